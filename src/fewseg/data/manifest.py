"""Episodes as a JSONL file: written once, replayed anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fewseg.data.episode_spec import EpisodeSpec
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
    rows = [
        {"index": s.index, "class_id": s.class_id, "query": s.query, "supports": list(s.supports)}
        for s in specs
    ]
    first = {**header, "schema": _SCHEMA, "episodes": len(rows)}
    lines = [json.dumps(row, separators=(",", ":")) for row in (first, *rows)]
    atomic_write_text(path, "\n".join(lines) + "\n")


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
        DataError: not a manifest, truncated, a broken line, a query among its supports, an image that the
            index does not hold, or one that does not show the episode's class.
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
    if index is not None:
        _check_images(path, specs, index)
    return header, specs


def _parse(path: Path, number: int, line: str) -> EpisodeSpec:
    try:
        row = json.loads(line)
        supports = tuple(str(s) for s in row["supports"])
        spec = EpisodeSpec(int(row["index"]), int(row["class_id"]), str(row["query"]), supports)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"manifest {path}, line {number}: {line[:80]!r} is not an episode ({error!r}); a line has "
            "index, class_id, query and supports"
        ) from error
    if not supports or spec.query in supports:
        raise DataError(
            f"manifest {path}, line {number}: supports {list(supports)} with query {spec.query!r}; an "
            "episode has one support at least and never its own query among them"
        )
    return spec


def _check_images(path: Path, specs: Iterable[EpisodeSpec], index: Index) -> None:
    named = {(spec.class_id, id) for spec in specs for id in (spec.query, *spec.supports)}
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
