"""The data sets that recipes run on."""

from __future__ import annotations

import os
from pathlib import Path

from fewseg.data.fold_data import FoldData, JoinedSource
from fewseg.data.folds import VOC_CLASSES, pascal_5i
from fewseg.data.index import build_index
from fewseg.data.list_file import ListFileSource
from fewseg.data.pascal import pascal_sources
from fewseg.data.source import DataError


def shared_folder() -> Path:
    """The folder that holds data and weights for measuring: ``$FEWSEG_SHARED`` or ``../shared``."""
    return Path(os.environ.get("FEWSEG_SHARED", "../shared"))


def voc5i_mini(fold: int, root: Path | None = None) -> FoldData:
    """1 906 VOC photographs in PASCAL-5i folds.

    Args:
        fold: 0 to 3.
        root: the folder with ``JPEGImages``, ``SegmentationClassAug`` and ``lists``.

    Raises:
        DataError: the folder is not there or not complete.
    """
    root = root or shared_folder() / "data" / "voc5i-mini"
    if not (root / "lists").is_dir():
        raise DataError(
            f"voc5i-mini is not at {root}: give --root, or set FEWSEG_SHARED to the folder that has "
            "data/voc5i-mini"
        )
    parts = {
        (i, kind): ListFileSource(root, root / "lists" / f"fold{i}_{kind}.txt", VOC_CLASSES)
        for i in range(4)
        for kind in ("train", "val")
    }
    source = JoinedSource("voc5i-mini", list(parts.values()))
    index = build_index(source)
    return FoldData(
        dataset="voc5i-mini",
        source=source,
        split=pascal_5i(fold),
        train=index.only(parts[fold, "train"].ids),
        test=index.only(parts[fold, "val"].ids),
    )


def pascal(fold: int, root: Path | None = None) -> FoldData:
    """PASCAL-5i with the 5 953 training images of PFENet and SCL.

    Args:
        fold: 0 to 3.
        root: a folder that holds VOC 2012 and SBD as unpacked: ``VOCdevkit/VOC2012`` (or ``VOC2012``) and
            ``benchmark_RELEASE/dataset`` (or ``dataset``).

    Raises:
        DataError: no root was given, or files are missing.
    """
    if root is None:
        raise DataError("PASCAL-5i needs --root: the folder that holds VOC 2012 and SBD as unpacked")
    train, val = pascal_sources(root, root)
    source = JoinedSource("pascal-5i", [train, val])
    return FoldData(
        dataset="pascal-5i",
        source=source,
        split=pascal_5i(fold),
        train=build_index(train),
        test=build_index(val),
    )
