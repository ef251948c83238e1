"""The Semantic Boundaries Dataset's masks: MATLAB files, turned into PNG once."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat

from fewseg.data.parallel import for_each
from fewseg.data.source import DataError
from fewseg.data.storage import cache_folder
from fewseg.ops.files import atomic_write_bytes


def voc_palette() -> list[int]:
    """Returns VOC's colours of the numbers 0..255: 768 values, R G B by number.

    Bit k of a number goes to bit 7 - k // 3 of channel k mod 3.
    """
    colours = []
    for number in range(256):
        channels = [0, 0, 0]
        for bit in range(8):
            channels[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
        colours += channels
    return colours


def read_mat(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Reads ``GTcls.Segmentation`` of an SBD ``cls`` file: (H, W) uint8, 0 and classes 1..20.

    Raises:
        DataError: the file is missing, broken, or of another structure.
    """
    try:
        labels = loadmat(path)["GTcls"][0]["Segmentation"][0]
        plane = np.asarray(labels, dtype=np.uint8)
    except Exception as error:  # scipy raises whatever a broken file leads to
        raise DataError(
            f"mask {path} cannot be read ({error!r}); accepted are SBD's cls/*.mat with GTcls.Segmentation: "
            "unpack the archive again"
        ) from error
    if plane.ndim != 2:
        raise DataError(f"mask {path} has shape {plane.shape}; accepted is (H, W): unpack the archive again")
    return plane


def convert_masks(
    cls: Path,
    ids: Sequence[str],
    folder: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Mapping[str, Path]:
    """Turns ``<cls>/<id>.mat`` into palette PNGs; files already there and not older are kept.

    Args:
        cls: SBD's ``cls`` folder.
        ids: images to convert.
        folder: where the PNGs go; a folder of the cache named after ``cls`` by default.
        workers: threads.
        progress: show a progress bar.

    Returns:
        id -> PNG.

    Raises:
        DataError: masks that cannot be read; one error tells of all of them, the others are converted.
        OSError: the disk is full or not writable; what was written is complete and is kept.
    """
    if folder is None:
        key = hashlib.sha256(str(cls.resolve()).encode()).hexdigest()[:12]
        folder = cache_folder() / f"sbd-masks-{key}"
    target = {id: folder / f"{id}.png" for id in ids}
    waiting = [id for id in ids if not _done(cls / f"{id}.mat", target[id])]
    palette = voc_palette()

    def convert(id: str) -> None:
        image = Image.fromarray(read_mat(cls / f"{id}.mat"))
        image.putpalette(palette)
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        atomic_write_bytes(target[id], buffer.getvalue())

    if waiting:
        for_each(waiting, convert, "converting SBD masks", workers, progress)
    return target


def _done(mat: Path, png: Path) -> bool:
    """Tells whether a PNG exists and is not older than its MATLAB file."""
    try:
        return os.stat(png).st_mtime_ns >= os.stat(mat).st_mtime_ns
    except FileNotFoundError:
        return False
