"""The data sets that recipes run on."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from fewseg.data import folds as splits
from fewseg.data.coco import coco_mini_source, coco_source
from fewseg.data.folder import voc5i_mini_lists
from fewseg.data.folds import (
    COCO_CLASSES,
    COCO_OF_VOC,
    ClassSplit,
    CocoSplit,
    FoldData,
    numbered,
    pascal_5i,
)
from fewseg.data.fss1000 import FSS1000Source, fss1000_parts, fss1000_split
from fewseg.data.index import build_index
from fewseg.data.pascal import TrainList, pascal_sources, pascal_val
from fewseg.data.protocols import COCO_MINI
from fewseg.data.source import JoinedSource, RelabelledSource, Source
from fewseg.types import DataError


def shared_folder() -> Path:
    """The folder that holds data and weights for measuring: ``$FEWSEG_SHARED`` or ``../shared``."""
    return Path(os.environ.get("FEWSEG_SHARED", "../shared"))


def voc5i_mini(fold: int, root: Path | None = None) -> FoldData:
    """1 906 VOC photographs in PASCAL-5i folds; 1 786 of them are in the eight lists of images."""
    root = root or shared_folder() / "data" / "voc5i-mini"
    parts = voc5i_mini_lists(root)
    source = JoinedSource("voc5i-mini", list(parts.values()))
    index = build_index(source)
    train, test = (index.only(parts[fold, part].ids) for part in ("train", "val"))
    return FoldData(dataset=source.name, source=source, split=pascal_5i(fold), train=train, test=test)


def pascal(fold: int, root: Path | None = None, *, train_list: TrainList = "voc+sbd_noval") -> FoldData:
    """PASCAL-5i with the 5 953 training images of PFENet and SCL, or the 10 582 of "trainaug" (PANet)."""
    root = _given(root, "PASCAL-5i", "VOC 2012 and SBD")
    return _fold_data("pascal-5i", *pascal_sources(root, root, train_list), pascal_5i(fold))


def training_data(
    data: Callable[[int, Path | None], FoldData], train_list: TrainList | None, fold: int, root: Path | None
) -> FoldData:
    """A recipe's data with the training list of its config."""
    if train_list is None:
        return data(fold, root)
    if data is not pascal:
        raise ValueError(
            f"train_list {train_list!r} is for PASCAL-5i alone: leave it out for other data sets"
        )
    return pascal(fold, root, train_list=train_list)


def coco_contiguous(fold: int, root: Path | None = None) -> FoldData:
    """COCO-20i in split A, blocks of 20 classes (PANet)."""
    return coco(fold, root, split="A")


def coco(fold: int, root: Path | None = None, *, split: CocoSplit = "B") -> FoldData:
    """COCO-20i on COCO 2014: train2014 to train on, val2014 to test."""
    return _coco(root, splits.coco_20i(fold, split))


def coco_three_parts(
    fold: int, root: Path | None = None, *, test: Literal["test", "validation"] = "test"
) -> FoldData:
    """COCO in 40 training, 20 validation and 20 test classes (SRPNet, Sec. 4.5); see ``coco_40_20_20``."""
    return _coco(root, splits.coco_40_20_20(fold, test))


def _coco(root: Path | None, split: ClassSplit) -> FoldData:
    root = _given(root, "COCO", "annotations, train2014 and val2014")
    return _fold_data(split.name, coco_source(root, "train"), coco_source(root, "val"), split)


def coco_mini(fold: int, root: Path | None = None, *, split: CocoSplit = "B") -> FoldData:
    """500 COCO photographs in the folds of COCO-20i: to test are those that show a novel class.

    Novel classes without six images, of ``COCO_MINI``'s least area, are neither trained on nor tested.
    """
    source = coco_mini_source(root or shared_folder() / "data" / "coco-mini")
    class_split = splits.coco_20i(fold, split)
    name, novel = class_split.name.replace("coco-20i", "coco-mini"), class_split.novel
    index = build_index(source)
    train, test = index.without(novel), index.only(index.images_with_any(novel))
    tested = tuple(c for c in novel if len(index.images_of(c, COCO_MINI.min_area)) > 5)
    class_split = replace(class_split, name=name, novel=tested)
    return FoldData(dataset=name, source=source, split=class_split, train=train, test=test)


def coco_mini_contiguous(fold: int, root: Path | None = None) -> FoldData:
    """``coco_mini`` in split A, blocks of 20 classes."""
    return coco_mini(fold, root, split="A")


def voc5i_mini_with_coco(fold: int, root: Path | None = None) -> FoldData:
    """``voc5i_mini`` with 75 classes to train on, from the photographs of coco-mini that show no novel one.

    VOC's classes keep their ids, so that the episodes of the test are the same; the 60 others follow them.
    """
    root = root or shared_folder() / "data"
    mini = voc5i_mini(fold, root / "voc5i-mini")
    names = {**mini.source.class_names}
    ids = {coco_id: voc_id for voc_id, coco_id in COCO_OF_VOC.items()}
    for coco_id, name in numbered(COCO_CLASSES).items():
        if coco_id not in ids:
            ids[coco_id] = len(names) + 1
            names[ids[coco_id]] = name
    coco = RelabelledSource(coco_mini_source(root / "coco-mini"), ids, names)
    voc = RelabelledSource(mini.source, {c: c for c in mini.source.class_names}, names)
    source, novel = JoinedSource("voc5i-mini with coco-mini", [voc, coco]), mini.split.novel
    split = ClassSplit("pascal-5i-and-coco", fold, tuple(c for c in names if c not in novel), novel, names)
    index = build_index(source)
    more = [id for id in coco.ids if index.images[id].areas.keys().isdisjoint(novel)]
    train, test = index.only([*mini.train.ids, *more]), index.only(mini.test.ids)
    return FoldData(dataset=mini.dataset, source=source, split=split, train=train, test=test)


def voc_tested_on_coco(fold: int, root: Path | None = None) -> FoldData:
    """VOC's 5 953 training images and COCO val2014, in COCO's class ids; see ``splits.voc_to_coco``."""
    root = _given(root, "VOC to COCO", "VOC 2012, SBD and COCO 2014")
    train, _ = pascal_sources(root, root)
    return _fold_data("voc-to-coco", _in_coco_ids(train), coco_source(root, "val"), splits.voc_to_coco(fold))


def coco_tested_on_voc(
    fold: int, root: Path | None = None, *, folds: Literal["coco-20i", "pascal-5i"] = "coco-20i"
) -> FoldData:
    """COCO train2014 and VOC's 1 449 val images, in COCO's class ids; see ``splits.coco_to_voc``."""
    root = _given(root, "COCO to VOC", "VOC 2012 and COCO 2014")
    split = splits.coco_to_voc(fold, folds)
    return _fold_data(split.name, coco_source(root, "train"), _in_coco_ids(pascal_val(root)), split)


def fss1000(
    fold: int = 0,
    root: Path | None = None,
    *,
    parts: Path | None = None,
    test: Literal["test", "validation"] = "test",
) -> FoldData:
    """FSS-1000: 520 classes to train on, 240 to choose by, 240 to test."""
    root = _given(root, "FSS-1000", "the class folders")
    if fold != 0:
        raise ValueError(f"FSS-1000 has one split, fold 0, not {fold}")
    if parts is None and (root / "splits").is_dir():
        parts = root / "splits"
    source = FSS1000Source(root)
    split = fss1000_split(source.class_names, fss1000_parts(tuple(source.class_of), parts), test)
    index = build_index(source)
    base, novel = (index.only(sorted(index.images_with_any(c))) for c in (split.base, split.novel))
    return FoldData(dataset=split.name, source=source, split=split, train=base, test=novel)


def _given(root: Path | None, name: str, holds: str) -> Path:
    if root is None:
        raise DataError(f"{name} needs --root: the folder that holds {holds} as unpacked")
    return root


def _in_coco_ids(source: Source) -> RelabelledSource:
    return RelabelledSource(source, COCO_OF_VOC, numbered(COCO_CLASSES))


def _fold_data(dataset: str, train: Source, test: Source, split: ClassSplit) -> FoldData:
    source = JoinedSource(dataset, [train, test])
    return FoldData(
        dataset=dataset, source=source, split=split, train=build_index(train), test=build_index(test)
    )
