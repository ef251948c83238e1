"""Predictions as Parquet files, a row an image: what a cluster writes, shard by shard."""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from functools import lru_cache, partial
from typing import Any

from fewseg.annotations.jsonl import prediction_of
from fewseg.annotations.rle import decode_coco
from fewseg.annotations.values import Instance, Prediction
from fewseg.errors import first_line
from fewseg.ops.files import parse_json
from fewseg.ops.places import files_in, opened, store_errors
from fewseg.types import DataError

_FORMAT = "fewseg-parquet-1"
_OPEN = 4  # files that are in memory at once: a run's images lie in them in order, but for kills


def _schema(classes: Iterable[str]) -> Any:
    import pyarrow as pa

    rle = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
    region = [("class", pa.string()), ("bbox", pa.list_(pa.int32())), ("area", pa.int64())]
    instance = [*region, ("score", pa.float64()), ("segmentation", rle)]
    columns = [
        ("name", pa.string()),  # of the image
        ("problem", pa.string()),  # of an image that could not be used, which has nothing else
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("scores", pa.map_(pa.string(), pa.float64())),  # one of each class
        ("quality", pa.float64()),  # of the image, where it was estimated
        ("regions", pa.list_(pa.struct([*region, ("segmentation", rle)]))),  # one of each class that occurs
        ("instances", pa.list_(pa.struct(instance))),  # where they were looked for
        ("facts", pa.string()),  # presence and the parts of the quality
    ]
    about = {"fewseg": json.dumps({"format": _FORMAT, "classes": list(classes)}, ensure_ascii=False)}
    return pa.schema(columns, metadata=about)


def parquet_bytes(lines: Iterable[Mapping[str, Any]], classes: Iterable[str]) -> bytes:
    """A Parquet file of lines of ``line_of``, each with a name; of a bad image, with a problem."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = []
    for line in lines:
        facts = line.get("facts", {})
        scores = list(line.get("scores", {}).items()) if "scores" in line else None
        row = {"scores": scores, "quality": facts.get("quality"), "facts": json.dumps(facts)}
        rows.append({**line, **row})
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema=_schema(classes)), file)
    return file.getvalue()


def part_name(names: Sequence[str]) -> str:
    """The file of a run's output that has the images of these names."""
    return f"part-{hashlib.sha256(repr(names).encode()).hexdigest()[:16]}.parquet"


def parts_of(place: str) -> list[str]:
    """The files of a run's output, by name; of others that lie there, or below, none."""
    return [path for path in files_in(place) if fnmatch(posixpath.basename(path), "part-*.parquet")]


def read_columns(place: str, columns: list[str]) -> dict[str, list[Any]]:
    """Some columns of all files of a run's output, of all together."""
    from pyarrow import ArrowException, dataset

    fs, _ = opened(place)
    parts = parts_of(place)
    if not parts:
        return {name: [] for name in columns}
    broken: Exception | None = None
    with store_errors(place):
        try:
            table = dataset.dataset(parts, filesystem=fs, format="parquet").to_table(columns=columns)
        except ArrowException as error:  # of the file, not of the store
            broken = error
    if broken is not None:
        raise _broken(place, broken) from broken
    return {name: table[name].to_pylist() for name in columns}


def _broken(place: str, error: Exception) -> DataError:
    return DataError(
        f"{place} holds a broken file of predictions ({first_line(error)}): remove it and run again"
    )


def read_parquet(place: str, names: Iterable[str] | None = None) -> Iterator[Prediction]:
    """Yields the predictions that ``fewseg label --ray`` wrote, each image once; bad images have none.

    Args:
        place: its ``--out``, a folder or any place of fsspec.
        names: of the images that are wanted, in this order; all by default, file by file.

    Raises:
        DataError: a file is broken or of a different kind.
        OSError: the place cannot be read.
    """
    where: dict[str, tuple[str, int]] = {}  # file and row of each image
    for path in parts_of(place):
        columns = _table(place, path, ["name", "problem"]).to_pydict()
        for row, (name, problem) in enumerate(zip(columns["name"], columns["problem"], strict=True)):
            if problem is None:
                where.setdefault(name, (path, row))
    part = lru_cache(maxsize=_OPEN)(partial(_table, place))
    for name in where if names is None else names:
        if name in where:
            path, row = where[name]
            yield _prediction(part(path), row, f"{path}, {name}")


def _table(place: str, path: str, columns: list[str] | None = None) -> Any:
    """A file of a run's output, or some columns of it."""
    from pyarrow import ArrowException, parquet

    try:
        with store_errors(place), opened(place)[0].open(path) as file:
            content = file.read()
        table = parquet.read_table(io.BytesIO(content), columns=columns)
    except ArrowException as error:
        raise _broken(path, error) from error
    about = parse_json((table.schema.metadata or {}).get(b"fewseg", b"{}"))
    if about.get("format") != _FORMAT:
        raise DataError(f"{path} is no file of predictions: give the --out of `fewseg label --ray`")
    return table


def _prediction(table: Any, row: int, where: str) -> Prediction:
    line = table.slice(row, 1).to_pylist()[0]
    line = {**line, "scores": dict(line["scores"]), "facts": parse_json(line["facts"])}
    classes = tuple(parse_json(table.schema.metadata[b"fewseg"])["classes"])
    prediction = prediction_of(line, classes, where)
    if line["instances"] is None:
        return prediction
    instances = []
    for thing in line["instances"]:
        x, y, width, height = box = tuple(thing["bbox"])
        piece = decode_coco(thing["segmentation"], prediction.size, where)[y : y + height, x : x + width]
        instances.append(Instance(class_name=thing["class"], box=box, piece=piece, score=thing["score"]))
    return replace(prediction, instances=tuple(instances))
