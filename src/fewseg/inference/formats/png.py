"""Predictions as PNG files: index maps and probabilities."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from fewseg.data.errors import DataError
from fewseg.data.sbd import voc_palette
from fewseg.inference.formats.image_names import file_safe
from fewseg.inference.formats.mask_folders import CLASSES_FILE
from fewseg.inference.formats.values import Mask, Prediction
from fewseg.inference.formats.writer import OutputNames, PredictionWriter
from fewseg.ops.files import atomic_write_bytes, atomic_write_text


class IndexPngWriter(PredictionWriter):
    """Writes ``<image>.png``: palette PNGs of class numbers (0 background, 255 unknown), and ``classes.txt``.

    The folder can be read back as the masks of the same images. The colours are PASCAL VOC's.

    Args:
        folder: the output folder.
        classes: the names, number 1 on.
        stems: see :class:`~fewseg.inference.formats.writer.OutputNames`.

    Raises:
        ValueError: the names are not accepted, or one has a line break.
        DataError: the folder has a list of other classes.
        OSError: the folder is not writable.
    """

    def __init__(
        self, folder: Path, classes: tuple[str, ...], stems: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(classes)
        if any(name.strip() != name or len(name.splitlines()) > 1 for name in classes):
            raise ValueError(
                f"class names {list(classes)} are not accepted in a list: remove line breaks and outer spaces"
            )
        self._names = OutputNames(folder, stems)
        self._palette = voc_palette()
        listed = "background\n" + "".join(f"{name}\n" for name in classes)
        path = folder / CLASSES_FILE
        if path.is_file() and path.read_bytes() != listed.encode():
            raise DataError(
                f"{path} lists other classes than {list(classes)}: choose another output folder or remove it"
            )
        atomic_write_text(path, listed)

    def _write(self, prediction: Prediction) -> None:
        atomic_write_bytes(
            self._names.file(prediction.name, ".png"), png_bytes(prediction.labels, self._palette)
        )

    def __contains__(self, name: object) -> bool:
        return self._names.file(str(name), ".png").is_file()


class ProbabilityPngWriter(PredictionWriter):
    """Writes ``<image>.<class>.png``: grey PNGs of each class's probability, 0 .. 255 or 0 .. 65535.

    Args:
        folder: the output folder.
        classes: the names.
        bits: 8 or 16 a pixel.
        stems: see :class:`~fewseg.inference.formats.writer.OutputNames`.

    Raises:
        ValueError: the names or the number of bits are not accepted, or two names make one file name.
    """

    def __init__(
        self,
        folder: Path,
        classes: tuple[str, ...],
        bits: Literal[8, 16] = 8,
        stems: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(classes)
        if bits not in (8, 16):
            raise ValueError(f"bits are {bits}; accepted are 8 and 16")
        self._endings = [f".{file_safe(name)}.png" for name in classes]
        if len({e.casefold() for e in self._endings}) != len(classes):
            raise ValueError(
                f"classes {list(classes)} differ in case only; accepted are names that make different files"
            )
        self._names = OutputNames(folder, stems)
        self._bits = bits

    def _write(self, prediction: Prediction) -> None:
        if prediction.probability is None:
            raise ValueError(f"{prediction.name!r} has no probability: keep it when segmenting")
        planes = [png_bytes(quantised(plane, self._bits)) for plane in prediction.probability]
        for plane, ending in zip(planes, self._endings, strict=True):
            atomic_write_bytes(self._names.file(prediction.name, ending), plane)

    def __contains__(self, name: object) -> bool:
        return all(self._names.file(str(name), ending).is_file() for ending in self._endings)


def quantised(probability: np.ndarray, bits: int) -> np.ndarray:
    """Returns a probability (H, W) as whole numbers of 8 or 16 bits, rounded; 1 is the largest.

    Raises:
        ValueError: a value is not in [0, 1].
    """
    if probability.dtype == np.uint8:
        return probability if bits == 8 else probability.astype(np.uint16) * 257
    if not (np.isfinite(probability).all() and probability.min() >= 0 and probability.max() <= 1):
        raise ValueError("probabilities are not all in [0, 1]; accepted are those of a softmax or a sigmoid")
    scaled: np.ndarray = np.rint(probability.astype(np.float64) * (2**bits - 1))
    return scaled.astype(np.uint8 if bits == 8 else np.uint16)


def png_bytes(plane: Mask | np.ndarray, palette: list[int] | None = None) -> bytes:
    """Returns (H, W) uint8 or uint16 as a PNG file; with 768 values of a palette, as one of indices."""
    image = Image.fromarray(np.ascontiguousarray(plane))
    if palette is not None:
        image.putpalette(palette)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
