"""Episodes as a JSONL file: written once, replayed anywhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fewseg.data.episode_spec import EpisodeSpec, Way
from fewseg.data.index import Index
from fewseg.data.source import DataError
from fewseg.ops.files import atomic_write_text

_SCHEMA = "fewseg-manifest-1"


def write_manifest(path: Path | str, specs: Iterable[EpisodeSpec], header: Mapping[str, Any]) -> None:
    """Writes episodes, one JSON object a line after a line with the header; complete or not at all.

    Args:
        path: the file.
        specs: the episodes, in order.
        header: what else a reader should know (protocol, fold, seed); JSON values.

    Raises:
        OSError: the file cannot be written.
    """
    rows = [_row(spec) for spec in specs]
    first = {**header, "schema": _SCHEMA, "episodes": len(rows)}
    lines = [json.dumps(row, separators=(",", ":")) for row in (first, *rows)]
    atomic_write_text(path, "\n".join(lines) + "\n")


def _row(spec: EpisodeSpec) -> dict[str, Any]:
    row: dict[str, Any] = {"index": spec.index, "class_id": spec.class_id, "query": spec.query}
    row["supports"] = list(spec.supports)
    if spec.others:  # absent for one way, whose files are those of before there were several
        row["others"] = [{"class_id": w.class_id, "supports": list(w.supports)} for w in spec.others]
    return row


def read_manifest(
    path: Path | str, index: Index | None = None
) -> tuple[dict[str, Any], tuple[EpisodeSpec, ...]]:
    """Reads a manifest and checks it.

    Args:
        path: the file.
        index: the images it is to be replayed on; without it, ids and classes are not checked.

    Returns:
        The header and the episodes.

    Raises:
        DataError: not a manifest, truncated, a broken line, an episode that comes twice, a query among the
            supports of one of its ways, a class in two ways, different numbers of supports or of ways, an
            image that the index does not hold, or one that does not show the class it was drawn for.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        header = json.loads(lines[0])
        schema, count = header["schema"], header["episodes"]
    except (OSError, ValueError, IndexError, KeyError, TypeError) as error:
        raise DataError(
            f"manifest {path} cannot be read ({error!r}): write it again from the protocol"
        ) from error
    if schema != _SCHEMA:
        raise DataError(f"manifest {path} has schema {schema!r}; accepted is {_SCHEMA!r}: write it again")
    if len(lines) - 1 != count:
        raise DataError(
            f"manifest {path} announces {count} episodes and holds {len(lines) - 1}: it is truncated or "
            "edited; fetch or write it again"
        )
    specs = tuple(_parse(path, number, line) for number, line in enumerate(lines[1:], start=2))
    doubled = sorted(index for index, times in Counter(s.index for s in specs).items() if times > 1)
    if doubled:
        raise DataError(
            f"manifest {path} has {len(doubled)} episodes more than once, like {doubled[:3]}: it is edited; "
            "fetch or write it again"
        )
    kinds = sorted({(len(spec.ways), len(spec.supports)) for spec in specs})
    if len(kinds) > 1:
        found = ", ".join(f"{ways}-way {shots}-shot" for ways, shots in kinds)
        raise DataError(
            f"manifest {path} has {found} episodes; those of one file are alike: write one file for each"
        )
    if index is not None:
        _check_images(path, specs, index)
    return header, specs


def _parse(path: Path, number: int, line: str) -> EpisodeSpec:
    try:
        row = json.loads(line)
        first, *others = map(_parse_way, (row, *row.get("others", ())))
        spec = EpisodeSpec(
            int(row["index"]), first.class_id, str(row["query"]), first.supports, tuple(others)
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"manifest {path}, line {number}: {line[:80]!r} is not an episode ({error!r}); a line has "
            "index, class_id, query and supports, and with several ways others"
        ) from error
    for way in spec.ways:
        if not way.supports or spec.query in way.supports:
            raise DataError(
                f"manifest {path}, line {number}: supports {list(way.supports)} with query {spec.query!r}; "
                "an episode has one support at least and never its own query among them"
            )
    shots = [len(way.supports) for way in spec.ways]
    if len(set(spec.classes)) != len(spec.classes) or len(set(shots)) != 1:
        raise DataError(
            f"manifest {path}, line {number}: ways of the classes {list(spec.classes)} with {shots} "
            "supports; those of an episode are different, with one number of supports: write it again"
        )
    return spec


def _parse_way(row: Mapping[str, Any]) -> Way:
    return Way(int(row["class_id"]), tuple(str(s) for s in row["supports"]))


def _check_images(path: Path, specs: Iterable[EpisodeSpec], index: Index) -> None:
    named = {(way.class_id, id) for spec in specs for way in spec.ways for id in way.supports}
    named |= {(spec.class_id, spec.query) for spec in specs}
    unknown = sorted({id for _, id in named if id not in index})
    if unknown:
        raise DataError(
            f"manifest {path} names {len(unknown)} images that {index.name} does not hold, like "
            f"{unknown[:3]}: replay it on the data it was written for"
        )
    without = sorted((c, id) for c, id in named if not index.images[id].areas.get(c))
    if without:
        raise DataError(
            f"manifest {path}: {len(without)} images do not show the class of their episode, like class "
            f"{without[0][0]} in {without[0][1]!r}: the masks are not those it was written for"
        )
