"""One annotated region: a few polygons or a run-length code, checked before anything is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fewseg.data.errors import DataError

Floats = npt.NDArray[np.float64]
Runs = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Region:
    """What one annotation marks.

    Attributes:
        id: of the annotation.
        class_id: 1 .. 80.
        crowd: a group that is not parted into things.
        polygons: x, y, x, y, ... of each, pixels; empty where ``runs`` are given.
        runs: lengths of runs of 0, 1, 0, ... down the columns, which add up to the image; or None.
    """

    id: int
    class_id: int
    crowd: bool
    polygons: tuple[Floats, ...] = ()
    runs: Runs | None = None


def compact(entry: dict[str, Any]) -> dict[str, Any]:
    """Makes a JSON object small as soon as it is parsed; a hook of ``json.loads``.

    Of annotations and images only what is used is kept, and coordinates become arrays: a file of 300 MB
    would otherwise take some gigabytes.
    """
    if "segmentation" in entry and "image_id" in entry:
        names = ("id", "image_id", "category_id", "iscrowd")
        kept: dict[str, Any] = {k: entry[k] for k in names if k in entry}
        return {**kept, "segmentation": _as_arrays(entry["segmentation"])}
    if "file_name" in entry:
        return {k: entry[k] for k in ("id", "file_name", "height", "width") if k in entry}
    return entry


def _as_arrays(segmentation: Any) -> Any:
    """Lists of numbers as arrays; what is none stays as it is and is told of later."""
    try:
        if isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list):
            return {**segmentation, "counts": np.asarray(segmentation["counts"], dtype=np.int64)}
        if isinstance(segmentation, list):
            return [np.asarray(polygon, dtype=np.float64) for polygon in segmentation]
    except (TypeError, ValueError, OverflowError):
        return None
    return segmentation


def region_of(
    raw: Mapping[str, Any], class_id: int, size: tuple[int, int], tolerated: Counter[str]
) -> Region | None:
    """Checks an annotation.

    Args:
        raw: what :func:`compact` left of it.
        class_id: 1 .. 80.
        size: (H, W) of its image.
        tolerated: what is left out or mended is counted here.

    Returns:
        The region; None where no polygon has three points.

    Raises:
        DataError: segmentation, id or iscrowd cannot be used; the message goes on from "annotation 7 ".
        KeyError: there is no segmentation.
    """
    segmentation = raw["segmentation"]
    number, crowd = _id_and_crowd(raw)
    about: dict[str, Any] = {"id": number, "class_id": class_id, "crowd": crowd}
    if isinstance(segmentation, dict):
        return Region(**about, runs=_runs(segmentation, size))
    if not isinstance(segmentation, list):
        raise DataError("has a segmentation that is neither polygons nor a run-length code")
    polygons = []
    for polygon in segmentation:
        if polygon.ndim != 1 or len(polygon) % 2 or not np.isfinite(polygon).all():
            raise DataError("has a polygon that is no list of x, y, x, y, ... of finite numbers")
        if len(polygon) < 6:
            tolerated["polygons of fewer than 3 points, left out"] += 1
            continue
        out = outside(polygon, size)
        if max(out) > max(size):
            raise DataError(
                f"has a polygon that reaches {max(out):.0f} pixels outside its image of "
                f"{size[1]} x {size[0]}: its coordinates are of another image, or no pixels"
            )
        if max(out) > 0:
            tolerated["polygons outside their image, clipped"] += 1
        polygons.append(polygon)
    if not polygons:
        tolerated["annotations without a polygon of 3 points, left out"] += 1
        return None
    return Region(**about, polygons=tuple(polygons))


def _id_and_crowd(raw: Mapping[str, Any]) -> tuple[int, bool]:
    """The id and whether it is a crowd; both may be missing.

    Raises:
        DataError: one is of another type than COCO's.
    """
    number, crowd = raw.get("id", 0), raw.get("iscrowd", 0)
    if not isinstance(number, int):
        raise DataError(f"has the id {number!r}, which is no whole number")
    if crowd not in (0, 1):
        raise DataError(f"has iscrowd {crowd!r}, which is neither 0 nor 1")
    return number, bool(crowd)


def outside(polygon: Floats, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Returns how far a polygon reaches past the left, top, right and lower edge, pixels; 0 where not."""
    x, y = polygon[::2], polygon[1::2]
    past = (-x.min(), -y.min(), x.max() - size[1], y.max() - size[0])
    left, top, right, below = (max(0.0, float(v)) for v in past)
    return left, top, right, below


def _runs(code: Mapping[str, Any], size: tuple[int, int]) -> Runs:
    """The runs of a run-length code of either kind, checked to be of the image's size.

    Raises:
        DataError: they are not.
    """
    stated, counts = code.get("size"), code.get("counts")
    if isinstance(counts, str | bytes):
        runs = decode_counts(counts)
    elif isinstance(counts, np.ndarray) and counts.ndim == 1:
        runs = counts
    else:
        raise DataError("has a run-length code without counts")
    if not isinstance(stated, Sequence) or tuple(stated) != size:
        raise DataError(f"has a run-length code of size {stated}, its image is {list(size)} (height, width)")
    if (runs < 0).any() or int(runs.sum()) != size[0] * size[1]:
        raise DataError(
            f"has a run-length code of {int(runs.sum())} pixels, its image of {size[1]} x {size[0]} has "
            f"{size[0] * size[1]}"
        )
    return runs


def decode_counts(text: str | bytes) -> Runs:
    """Returns the runs of a compressed run-length code.

    Each number has groups of 5 bits in characters from "0", the lowest group first; bit 6 tells that another
    group follows, bit 5 of the last one is the sign. From the fourth number on they are differences to
    the number two before. Done here, and not by pycocotools alone, because it draws before it checks.

    Source: COCO API, maskApi (Piotr Dollár and Tsung-Yi Lin), as documented for ``rleToString``.

    Raises:
        DataError: a character is outside the code, or the last number is not complete.
    """
    data = text.encode("latin-1", "replace") if isinstance(text, str) else text
    runs: list[int] = []
    value = shift = 0
    for character in data:
        group = character - 48
        if not 0 <= group < 64 or shift > 35:
            raise DataError("has a compressed run-length code with characters that are none of the code")
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            value -= (group & 16) and 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise DataError("has a compressed run-length code that breaks off")
    return np.array(runs, dtype=np.int64)
