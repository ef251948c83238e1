"""PASCAL VOC 2012 with SBD: their folders, the training lists, and SBD's masks turned into PNG once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from fewseg.annotations.image_files import require_folder
from fewseg.annotations.mask_files import png_bytes, voc_palette
from fewseg.data.folds import VOC_CLASSES, numbered
from fewseg.data.source import FileSource, ImagePair, read_lines
from fewseg.ops.files import atomic_write_bytes, cache_folder
from fewseg.ops.parallel import for_each, summary
from fewseg.types import DataError


def read_mat(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Reads ``GTcls.Segmentation`` of an SBD ``cls`` file: (H, W) uint8, 0 and classes 1..20."""
    from scipy.io import loadmat  # slow to import, and needed once for each data set

    try:
        labels = loadmat(path)["GTcls"][0]["Segmentation"][0]
        plane = np.asarray(labels, dtype=np.uint8)
    except Exception as error:  # scipy raises whatever a broken file leads to
        raise DataError(
            f"mask {path} cannot be read ({error!r}); expected SBD's cls/*.mat with GTcls.Segmentation: "
            "unpack the archive again"
        ) from error
    if plane.ndim != 2:
        raise DataError(f"mask {path} must be (H, W), got {plane.shape}: unpack the archive again")
    return plane


def convert_masks(
    cls: Path, ids: Sequence[str], folder: Path | None = None, progress: bool = True
) -> Mapping[str, Path]:
    """Turns ``<cls>/<id>.mat`` into palette PNGs; files already there and not older are kept."""
    if folder is None:
        key = hashlib.sha256(str(cls.resolve()).encode()).hexdigest()[:12]
        folder = cache_folder() / f"sbd-masks-{key}"
    target = {id: folder / f"{id}.png" for id in ids}
    waiting = [id for id in ids if not _done(cls / f"{id}.mat", target[id])]
    palette = voc_palette()

    def convert(id: str) -> None:
        atomic_write_bytes(target[id], png_bytes(read_mat(cls / f"{id}.mat"), palette))

    if waiting:
        for_each(waiting, convert, "converting SBD masks", progress=progress)
    return target


def _done(mat: Path, png: Path) -> bool:
    """Whether a PNG exists and is not older than its MATLAB file."""
    try:
        return os.stat(png).st_mtime_ns >= os.stat(mat).st_mtime_ns
    except FileNotFoundError:
        return False


TrainList = Literal["voc+sbd_noval", "trainaug"]

VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
SBD_URL = (
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz"
)
NOVAL_URL = "https://www.cs.cornell.edu/~bharathh/train_noval.txt"


def find_voc(root: Path | str) -> Path:
    """Returns the ``VOC2012`` folder at or below ``root`` (``VOCdevkit/VOC2012`` too)."""
    parts = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
    return _find(Path(root), "VOC2012", ("", "VOC2012", "VOCdevkit/VOC2012"), parts, VOC_URL)


def find_sbd(root: Path | str) -> Path:
    """Returns SBD's ``dataset`` folder at or below ``root`` (``benchmark_RELEASE/dataset`` too)."""
    parts = ("cls", "train.txt", "val.txt")
    return _find(Path(root), "SBD", ("", "dataset", "benchmark_RELEASE/dataset"), parts, SBD_URL)


def _find(root: Path, what: str, places: tuple[str, ...], parts: tuple[str, ...], url: str) -> Path:
    require_folder(root, what)
    folders = [root / place for place in places if all((root / place / part).exists() for part in parts)]
    if not folders:
        missing = [part for part in parts if not (root / part).exists()]
        raise DataError(
            f"{what}: {root} lacks {', '.join(missing)}; expected the folder as unpacked, or one that "
            f"holds it at {' or '.join(p for p in places if p)}: fetch it from {url}"
        )
    return folders[0]


def read_ids(path: Path) -> tuple[str, ...]:
    """Returns the ids of an image-set file, one a line (the first word of each), without repeats."""
    lines = read_lines(path, "image set", "unpack the archive again")
    ids = tuple(dict.fromkeys(line.split()[0] for line in lines if line.strip()))
    if not ids:
        raise DataError(f"image set {path} is empty: unpack the archive again")
    return ids


def sbd_train_noval(voc: Path, sbd: Path) -> tuple[str, ...]:
    """Returns SBD's ``train_noval`` images (5 623), sorted: its part of VOC's *detection* train images."""
    given, main = sbd / "train_noval.txt", voc / "ImageSets" / "Main" / "train.txt"
    if given.exists():
        return tuple(sorted(read_ids(given)))
    if not main.exists():
        raise DataError(
            f"SBD's train_noval list needs {given} (fetch it from {NOVAL_URL}) or {main} (part of the VOC "
            "archive); neither exists. The trainaug list needs neither"
        )
    everything = set(read_ids(sbd / "train.txt")) | set(read_ids(sbd / "val.txt"))
    return tuple(sorted(everything & set(read_ids(main))))


def train_ids(voc: Path, sbd: Path, train_list: TrainList) -> tuple[str, ...]:
    """Returns a training list, sorted; no image of it is a segmentation val image."""
    if train_list == "voc+sbd_noval":
        extra = set(sbd_train_noval(voc, sbd))
    elif train_list == "trainaug":
        extra = set(read_ids(sbd / "train.txt")) | set(read_ids(sbd / "val.txt"))
    else:
        raise ValueError(f"train list {train_list!r} is unknown: choose 'voc+sbd_noval' or 'trainaug'")
    sets = voc / "ImageSets" / "Segmentation"
    return tuple(sorted((extra | set(read_ids(sets / "train.txt"))) - set(read_ids(sets / "val.txt"))))


def pascal_val(voc_root: Path | str) -> FileSource:
    """Returns the 1 449 segmentation val images of VOC 2012 with VOC's own masks."""
    voc = find_voc(voc_root)
    ids = read_ids(voc / "ImageSets" / "Segmentation" / "val.txt")
    return _source("pascal-val", voc, {id: _voc_pair(voc, id) for id in ids})


def pascal_sources(
    voc_root: Path | str,
    sbd_root: Path | str,
    train_list: TrainList = "voc+sbd_noval",
    masks: Path | None = None,
    progress: bool = True,
) -> tuple[FileSource, FileSource]:
    """Returns the training and the test images of PASCAL-5i.

    SBD's masks are converted on first use. Where an image has a mask of VOC and one of SBD, VOC's is
    taken (it has the void border). Photographs come from VOC's ``JPEGImages``, or from SBD's ``img``
    where VOC's archive lacks them.

    Args:
        voc_root: ``VOC2012``, or a folder above it.
        sbd_root: SBD's ``dataset``, or a folder above it.
        train_list: see :func:`train_ids`.
        masks: where SBD's converted masks go; the cache by default.
        progress: show a progress bar.

    Returns:
        (train, val).

    Raises:
        DataError: files are missing or broken.
        OSError: converted masks cannot be written.
        ValueError: the train list is unknown.
    """
    voc, sbd = find_voc(voc_root), find_sbd(sbd_root)
    val = pascal_val(voc)
    ids = train_ids(voc, sbd, train_list)
    in_voc = set(read_ids(voc / "ImageSets" / "Segmentation" / "train.txt"))
    converted = convert_masks(sbd / "cls", [id for id in ids if id not in in_voc], masks, progress=progress)
    pairs = {}
    for id in ids:
        pairs[id] = _voc_pair(voc, id)
        if id not in in_voc:
            image = pairs[id].image
            pairs[id] = ImagePair(image if image.exists() else sbd / "img" / f"{id}.jpg", converted[id])
    return _source(f"pascal-{train_list}", voc, pairs), val


def _voc_pair(voc: Path, id: str) -> ImagePair:
    return ImagePair(voc / "JPEGImages" / f"{id}.jpg", voc / "SegmentationClass" / f"{id}.png")


def _source(name: str, root: Path, pairs: dict[str, ImagePair]) -> FileSource:
    missing = [
        f"{p} does not exist" for pair in pairs.values() for p in (pair.image, pair.mask) if not p.exists()
    ]
    if missing:
        raise DataError(
            f"{name}: {len(missing)} files are missing: unpack the archive again{summary(missing)}"
        )
    return FileSource(name, root, pairs, numbered(VOC_CLASSES))
