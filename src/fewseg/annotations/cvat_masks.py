"""CVAT's "Segmentation mask 1.1": class masks in the colours of ``labelmap.txt``.

``SegmentationClass/a/x.png`` belongs to ``JPEGImages/a/x.jpg`` (or ``images``). A grey file of one channel
holds the labels' numbers in the order of ``labelmap.txt``, from 0 on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewseg.annotations.image_files import check_same_size, image_size, opened
from fewseg.annotations.json_values import read_annotations
from fewseg.annotations.mask_files import png_bytes, voc_palette
from fewseg.annotations.names import image_of_stem
from fewseg.annotations.options import ReadOptions, image_files
from fewseg.annotations.shapes import BACKGROUND_NAMES, Canvas
from fewseg.annotations.values import Items, Prediction, Problem, warn_of_left_out
from fewseg.annotations.writer import FilesWriter
from fewseg.ops.files import atomic_write_bytes, atomic_write_text
from fewseg.types import IGNORE, DataError

_MASKS, _LABELS, _LISTS = "SegmentationClass", "labelmap.txt", "ImageSets/Segmentation"
_HEADER = "# label:color_rgb:parts:actions\n"


def is_cvat_masks(root: Path) -> bool:
    """Whether a folder has CVAT's masks."""
    return (root / _MASKS).is_dir()


def iter_cvat_masks(root: Path, options: ReadOptions) -> Items:
    """Yields the images that have a mask; one that is background throughout is a negative."""
    names = _labels(root / _LABELS)
    masks = root / _MASKS
    folders = (root / "JPEGImages", root / "images")
    images = options.images or next((f for f in folders if f.is_dir()), folders[0])
    used = set()
    for file in (f for f in sorted(masks.rglob("*.png")) if not f.name.startswith(".")):
        try:
            image = image_of_stem(images / file.relative_to(masks).with_suffix(""), file)
            used.add(image)
            size = image_size(image, options.max_pixels)
            stored = _stored(file, names, options.max_pixels)
            check_same_size(str(image), size, (stored.shape[0], stored.shape[1]))
            canvas = Canvas(size)
            for colour in np.unique(stored).tolist():
                canvas.add(names[colour], stored == colour)
            yield canvas.annotated(image, names.values())
        except DataError as error:
            yield Problem(str(file), error)
    warn_of_left_out(root, [f for f in image_files(images) if f not in used], f"no mask in {_MASKS}")


def _labels(path: Path) -> Mapping[int, str]:
    """Returns colour (0xRRGGBB) -> label, in the order of the file."""
    if not path.is_file():
        raise DataError(
            f"{path} does not exist; expected CVAT's list of labels and colours (name:r,g,b:parts:actions): "
            "add it"
        )
    names: dict[int, str] = {}
    content = read_annotations(path)
    try:
        for line in content.decode("utf-8-sig").splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            name, colour, *_ = line.rsplit(":", 3)
            red, green, blue = (int(part) for part in colour.split(","))
            packed = red << 16 | green << 8 | blue
            valid = {red, green, blue} <= set(range(256))
            if not valid or not name or name in names.values() or packed in names:
                raise ValueError(line)
            names[packed] = name
    except ValueError as error:
        raise DataError(
            f"{path}: a line is wrong ({error}); labels and colours must be different "
            "(name:r,g,b:parts:actions): export it again"
        ) from error
    return names


def _stored(path: Path, names: Mapping[int, str], max_pixels: int) -> NDArray[np.int32]:
    """Returns the colours (0xRRGGBB) of a mask file, all of which have a label."""
    with opened(path, "mask", max_pixels) as file:
        grey = file.mode == "L"
        pixels = np.array(file if grey else file.convert("RGB")).astype(np.int32)
    colours = np.array(list(names), dtype=np.int32)
    if grey and (not len(colours) or pixels.max() >= len(colours)):
        raise DataError(
            f"grey mask {path} must hold 0 .. {len(names) - 1}, the labels of {_LABELS}, got {pixels.max()}: "
            "export it again"
        )
    stored: NDArray[np.int32] = (
        colours[pixels] if grey else pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    )
    unknown = sorted(set(np.unique(stored).tolist()) - set(names))
    if unknown:
        shown = "; ".join(f"{v >> 16},{v >> 8 & 255},{v & 255}" for v in unknown[:5])
        raise DataError(
            f"mask {path} must hold the colours of {_LABELS}, got {len(unknown)} others, like {shown}: "
            "add them there, or save the mask without smoothing"
        )
    return stored


class CvatMaskWriter(FilesWriter):
    """Writes ``SegmentationClass/<image>.png`` in VOC's colours, ``labelmap.txt`` and the list of images.

    A pixel that is 255 becomes background, since CVAT knows no such label.
    """

    folder, ending = f"cvat/{_MASKS}", ".png"

    def _begin(self) -> None:
        if any(
            name in BACKGROUND_NAMES or ":" in name or len(name.splitlines()) > 1 for name in self.classes
        ):
            raise ValueError(
                f"class names {list(self.classes)} are invalid in {_LABELS}: remove colons and line breaks, "
                "and name no class background"
            )
        lines = [
            f"{name}:{','.join(map(str, voc_palette()[3 * j : 3 * j + 3]))}::\n"
            for j, name in enumerate(("background", *self.classes))
        ]
        self._write_listing(f"cvat/{_LABELS}", _HEADER + "".join(lines))

    def _write(self, prediction: Prediction) -> None:
        labels = np.where(prediction.labels == IGNORE, 0, prediction.labels)
        atomic_write_bytes(self.path(prediction.name), png_bytes(labels, voc_palette()))

    def close(self, finish: bool = True) -> None:
        """Lists the images that have a mask."""
        if finish:
            masks = self.out / self.folder
            stems = sorted(f.relative_to(masks).with_suffix("").as_posix() for f in masks.rglob("[!.]*.png"))
            atomic_write_text(
                self.out / "cvat" / _LISTS / "default.txt", "".join(f"{stem}\n" for stem in stems)
            )
