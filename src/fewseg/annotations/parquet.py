"""Predictions as Parquet files, a row an image: what a cluster writes, shard by shard."""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fnmatch import fnmatch
from functools import lru_cache, partial
from typing import Any

from fewseg.annotations.jsonl import MOST_PIXELS, prediction_of
from fewseg.annotations.rle import decode_coco
from fewseg.annotations.values import Instance, Prediction, check_classes
from fewseg.ops.files import parse_json
from fewseg.ops.parquet import LONGEST, check_size, parquet_errors, parquet_file, texts
from fewseg.ops.places import files_in, opened, store_errors
from fewseg.types import DataError

_FORMAT = "fewseg-parquet-1"
_AGAIN = "remove the file and run again"
_READERS = 8  # files that are read at once, of which little is kept
_OPEN = 4  # files that are in memory at once: a run's images lie in them in order, but for kills


def _schema(classes: Iterable[str], run: str = "") -> Any:
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
    about = {"format": _FORMAT, "classes": list(classes), "run": run}
    return pa.schema(columns, metadata={"fewseg": json.dumps(about, ensure_ascii=False)})


def parquet_bytes(lines: Iterable[Mapping[str, Any]], classes: Iterable[str], run: str = "") -> bytes:
    """A Parquet file of lines of ``line_of``, each with a name; of a bad image, with a problem.

    ``run`` is a key of the settings: files of different ones are not read together.
    """
    import pyarrow as pa
    from pyarrow import parquet

    rows = []
    for line in lines:
        facts = line.get("facts", {})
        scores = list(line.get("scores", {}).items()) if "scores" in line else None
        row = {"scores": scores, "quality": facts.get("quality"), "facts": json.dumps(facts)}
        rows.append({**line, **row})
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema=_schema(classes, run)), file)
    return file.getvalue()


def part_name(names: Sequence[str]) -> str:
    """The file of a run's output that has the images of these names."""
    return f"part-{hashlib.sha256(repr(names).encode()).hexdigest()[:16]}.parquet"


def parts_of(place: str) -> list[str]:
    """The files of a run's output, by name; of others that lie there, or below, none."""
    return [path for path in files_in(place) if fnmatch(posixpath.basename(path), "part-*.parquet")]


def read_columns(place: str, columns: list[str], run: str = "") -> dict[str, list[Any]]:
    """Some columns of texts of all files of a run's output, of all together; see :func:`parquet_bytes`."""
    found: dict[str, list[Any]] = {name: [] for name in columns}
    with ThreadPoolExecutor(_READERS) as pool:
        paths = parts_of(place)
        for path, table in zip(
            paths, pool.map(lambda path: _table(place, path, columns), paths), strict=True
        ):
            run = _same_run(table, path, run)
            for name in columns:
                found[name] += texts(table[name])
    return found


def read_parquet(place: str, names: Iterable[str] | None = None) -> Iterator[Prediction]:
    """Yields the predictions that ``fewseg label --ray`` wrote, each image once; bad images have none.

    Args:
        place: its ``--out``, a folder or any place of fsspec.
        names: of the images that are wanted, in this order; all by default, file by file.

    Raises:
        DataError: a file is broken or of a different kind, or files are of runs with different settings.
        OSError: the place cannot be read.
    """
    where: dict[str, tuple[str, int]] = {}  # file and row of each image
    run = ""
    for path in parts_of(place):
        table = _table(place, path, ["name", "problem"])
        run = _same_run(table, path, run)
        for row, (name, problem) in enumerate(
            zip(texts(table["name"]), texts(table["problem"]), strict=True)
        ):
            if problem is None:
                where.setdefault(name, (path, row))
    part = lru_cache(maxsize=_OPEN)(partial(_table, place))
    for name in where if names is None else names:
        if name in where:
            path, row = where[name]
            table = part(path)
            with parquet_errors(f"row {row + 1} of {path}, {name}, is broken", _AGAIN):
                prediction = _prediction(table, row, f"{path}, {name}")
            yield prediction


def _table(place: str, path: str, columns: list[str] | None = None) -> Any:
    """A file of a run's output, or some columns of it."""
    with store_errors(place):
        content = opened(place)[0].cat_file(path)
    with parquet_errors(f"{path} is a broken file of predictions", _AGAIN):
        check_size(content)
        file = parquet_file(content)
        about = parse_json((file.schema_arrow.metadata or {}).get(b"fewseg", b"{}"))
        if about.get("format") != _FORMAT:
            raise DataError(f"{path} is not a file of predictions: give the --out of `fewseg label --ray`")
        check_classes(tuple(about["classes"]))
        if not file.schema_arrow.equals(_schema_read()):
            raise ValueError("it has other columns")
        table = file.read(columns)
        table.validate(full=True)
        if not all(name and len(name) <= LONGEST for name in texts(table["name"])):
            raise ValueError(f"an image has no name, or one of more than {LONGEST} characters")
        return table


def _same_run(table: Any, path: str, run: str) -> str:
    """The key of a file's run, which must be ``run`` where both are known."""
    with parquet_errors(f"{path} is a broken file of predictions", _AGAIN):
        found = str(parse_json(table.schema.metadata[b"fewseg"]).get("run", ""))
    if run and found and found != run:
        raise DataError(
            f"{path} is of a run with other supports, model or settings than this one or than other files "
            "beside it: remove the files of one of the runs, or choose a different --out"
        )
    return run or found


@lru_cache(maxsize=1)
def _schema_read() -> Any:
    """What a file's columns are read as."""
    return parquet_file(parquet_bytes([], ("a",))).schema_arrow


def _prediction(table: Any, row: int, where: str) -> Prediction:
    """The prediction of a row; what may stand in it any number of times is read one by one."""
    classes = tuple(parse_json(table.schema.metadata[b"fewseg"])["classes"])
    line = {name: table[name][row].as_py() for name in ("name", "height", "width", "facts")}
    line |= {"facts": parse_json(line["facts"]), "scores": {}}
    for name, score in table["scores"][row]:
        if name not in classes:
            raise DataError(f"{where} has a score of {name[:80]!r}, which must be one of {list(classes)}")
        line["scores"][name] = score
    if len(table["regions"][row]) > len(classes):
        raise DataError(f"{where} has more regions than classes: {_AGAIN}")
    line["regions"] = list(_things(table["regions"][row], classes, where))
    prediction = prediction_of(line, classes, where)
    if not table["instances"][row].is_valid:
        return prediction
    instances, room = [], MOST_PIXELS
    for thing in _things(table["instances"][row], classes, where):
        x, y, width, height = box = tuple(thing["bbox"])
        room -= width * height
        whole = decode_coco(thing["segmentation"], prediction.size, where)
        piece = whole[y : y + height, x : x + width].copy()  # of the whole mask nothing is kept
        if min(box) < 0 or piece.shape != (height, width) or not piece.size or not 0 <= thing["score"] <= 1:
            raise DataError(
                f"{where}: an instance needs a box in the image and a score in [0, 1], got {box} and "
                f"{thing['score']}: {_AGAIN}"
            )
        if room < 0:
            raise DataError(f"{where}: its instances have boxes of more than {MOST_PIXELS} pixels: {_AGAIN}")
        instances.append(Instance(class_name=thing["class"], box=box, piece=piece, score=thing["score"]))
    return replace(prediction, instances=tuple(instances))


def _things(cell: Any, classes: tuple[str, ...], where: str) -> Iterator[dict[str, Any]]:
    """The regions or instances of a row."""
    room = MOST_PIXELS
    for value in cell.values:
        thing = value.as_py()
        room -= len(thing["segmentation"]["counts"])
        if thing["class"] not in classes or room < 0:
            raise DataError(
                f"{where}: its masks are of other classes than {list(classes)}, or too long: {_AGAIN}"
            )
        yield thing
