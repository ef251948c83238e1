"""How annotations are read and written, as values; free of torch, so that a command line starts fast."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Suppress, arg

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
SUPPORT_FORMATS = (
    "a folder of images and masks, YOLO or CVAT annotations, or JSON (COCO, LabelMe, Label Studio, VIA)"
)
"""Annotations that can be read, for errors."""

MAX_PIXELS = 89_478_485
"""Pillow's own limit, the default: a quarter of a gigabyte of RGB."""


def is_image_name(name: PurePath, suffixes: Sequence[str]) -> bool:
    """Whether a relative path has an image's suffix and no part that begins with a dot, but for ``..``."""
    hidden = any(part.startswith(".") and part != ".." for part in name.parts)
    return name.suffix.lower() in suffixes and not hidden


def is_image(file: Path, root: Path, suffixes: Sequence[str]) -> bool:
    """Whether a file is an image by its name below the root, a broken link too."""
    name = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
    return is_image_name(name, suffixes) and not file.is_dir()


def image_files(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES, deep: bool = True) -> list[Path]:
    """Returns the image files in a folder, with ``deep`` also those below it, in order."""
    files = folder.rglob("*") if deep else folder.iterdir()
    return sorted(file for file in files if is_image(file, folder, suffixes))


TITLES: Mapping[str, str] = {
    "png": "Masks (PNG)",
    "coco": "COCO (JSON)",
    "yolo": "YOLO segmentation",
    "labelme": "LabelMe (masks)",
    "labelme-polygons": "LabelMe (polygons)",
    "label-studio": "Label Studio (JSON)",
    "cvat": "CVAT segmentation masks",
    "coco-results": "COCO results (JSON)",
    "probability": "Probabilities (PNG)",
    "jsonl": "fewseg (JSON lines)",
}
"""The formats that predictions are written in, the usual ones first, and what people call them."""

CLASS_FORMATS = ("png", "probability", "cvat")
"""Those that hold the class of each pixel, and no instances."""

if TYPE_CHECKING:
    Format = str
else:
    Format = Literal[tuple(TITLES)]


ValueRange = tuple[float, float]
"""What becomes 0 and 255 of an image of more than 8 bits a pixel."""


def check_value_range(value_range: ValueRange | None) -> None:
    """Raises a ValueError unless a range of values can be one, or is None."""
    if value_range is not None and not -math.inf < value_range[0] < value_range[1] < math.inf:
        raise ValueError(
            f"the value range must be two finite numbers, the lower one first, got {value_range[0]:g} and "
            f"{value_range[1]:g}"
        )


def check_max_pixels(max_pixels: int) -> None:
    """Raises a ValueError unless a limit of pixels can be one."""
    if max_pixels < 1:
        raise ValueError(f"max_pixels must be 1 or more, got {max_pixels}")


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How annotated images are read."""

    # folder of the support images, which the annotations' image names are relative to; by default the
    # annotation file's own folder, then ``images`` in it and beside it.
    images: Annotated[Path | None, arg(name="support-images")] = None
    # the class of masks that name none (a folder of masks without a list of classes).
    class_name: str = "object"
    # width of scribbles in pixels, where the file gives none; a point becomes a disc of this diameter. 10 is
    # what LabelMe itself draws.
    stroke: float = 10.0
    max_pixels: int = MAX_PIXELS  # larger images and masks are refused, files from their header.
    # what becomes 0 and 255 of grey images of 16 or 32 bits a pixel, or floats, annotated or not; by default
    # the 0.1 and 99.9 percentiles of all annotated ones together, so that equal values look equal in all.
    value_range: ValueRange | None = None
    # read predictions too: of a Label Studio task without an annotation, the last one.
    predictions: Suppress[bool] = False

    def check(self) -> None:
        """Raises a ValueError where the stroke, the limit of pixels or the range of values is invalid."""
        if not 0 < self.stroke < math.inf:
            raise ValueError(f"stroke must be a width above 0 pixels, got {self.stroke}")
        check_max_pixels(self.max_pixels)
        check_value_range(self.value_range)


@dataclass(frozen=True, kw_only=True)
class LabelStudioNames:
    """What Label Studio's project calls things."""

    # of Label Studio's tasks; {name} becomes the image's quoted name.
    image_url: str = "/data/local-files/?d={name}"
    from_name: str = "tag"  # name of Label Studio's BrushLabels tag.
    to_name: str = "image"  # name of Label Studio's Image tag.
