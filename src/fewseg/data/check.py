"""What a data set on disk holds, beside the numbers known to be right; what is missing, where to get it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

from fewseg.data.coco import (
    COCO_PAGE,
    CocoPart,
    coco_mini_source,
    coco_paths,
    coco_source,
    find_coco,
)
from fewseg.data.folder import FolderSource, ListFileSource, voc5i_mini_source
from fewseg.data.folds import VOC_CLASSES, ClassSplit, coco_20i, pascal_5i
from fewseg.data.fss1000 import CLASSES, FSS_PAGE, IMAGES_OF_CLASS, PARTS, FSS1000Source
from fewseg.data.index import Index, build_index
from fewseg.data.pascal import NOVAL_URL, SBD_URL, VOC_URL, TrainList, find_sbd, find_voc, pascal_sources
from fewseg.data.protocols import PASCAL_MIN_AREA
from fewseg.data.source import Source
from fewseg.types import DataError


def check_named(
    dataset: str,
    root: Path,
    min_area: int,
    list_file: Path | None,
    train_list: TrainList,
) -> tuple[str, ...]:
    """Reports a data set in lines; those that start with WRONG name what is missing or unexpected."""
    if dataset == "list" and list_file is None:
        raise ValueError("`fewseg data check list` needs --list-file: the file of `image mask` lines")
    if dataset == "pascal":
        return check_pascal(root, train_list)
    if dataset == "coco":
        return check_coco(root, min_area)
    if dataset == "fss1000":
        return check_fss1000(root)
    source: Source
    splits = [pascal_5i(fold) for fold in range(4)]
    if dataset == "folder":
        source, splits = FolderSource(root), []
    elif dataset == "coco-mini":
        source, splits = coco_mini_source(root), [coco_20i(fold) for fold in range(4)]
    elif list_file is None:
        source = voc5i_mini_source(root)
    else:
        source = ListFileSource(root, list_file, VOC_CLASSES)
    return check_source(source, min_area, splits)


def count_line(what: str, counted: int, expected: int) -> str:
    """Returns a number found beside the one known to be right."""
    return f"{'ok   ' if counted == expected else 'WRONG'} {what}: {counted} (expected {expected})"


def check_source(source: Source, min_area: int, splits: Sequence[ClassSplit] = ()) -> tuple[str, ...]:
    """Reads every image of a source, once: a line on the set, one for each class, one for each fold."""
    index = build_index(source)
    empty = sum(not facts.areas for facts in index.images.values())
    counts = f"{len(index)} images, {len(index.class_names)} classes, content {index.content_digest()}"
    lines = [f"{index.name}: {counts}" + (f"; {empty} images without any class" if empty else "")]
    for class_id, name in index.class_names.items():
        present, any_pixel = len(index.images_of(class_id, min_area)), len(index.images_of(class_id))
        lines.append(
            f"  {class_id:3d} {name:<16s} {present:6d} images from {min_area} px ({any_pixel} with any)"
        )
    return (*lines, *(fold_line(index, split, min_area) for split in splits))


def fold_line(index: Index, split: ClassSplit, min_area: int) -> str:
    """Returns the images per novel class of a fold and the most shots that all of them allow."""
    counts = {c: len(index.images_of(c, min_area)) for c in split.novel}
    shots = max(0, min(counts.values()) - 1)
    parts = ", ".join(f"{split.class_names[c]} {n}" for c, n in counts.items())
    verdict = f"up to {shots} shots" if shots else "TOO FEW IMAGES for 1 shot"
    return f"{split.name} fold {split.fold}: {parts}; {verdict}"


IMAGES: dict[TrainList | Literal["val"], int] = {"val": 1449, "voc+sbd_noval": 5953, "trainaug": 10582}
"""Images of each list."""

NOVEL_IMAGES = (364, 445, 592, 336)
"""Val images that show a novel class of fold 0..3 on 2048 pixels."""

NOVEL_PAIRS = (365, 467, 734, 357)
"""(image, novel class) pairs among them."""

BASE_IMAGES: dict[TrainList, tuple[int, int, int, int]] = {
    "voc+sbd_noval": (4760, 4588, 4097, 5108),
    "trainaug": (8535, 8199, 7154, 9119),
}
"""Training images that show a base class of fold 0..3 on 2048 pixels."""


def check_counts(index: Index, which: TrainList | Literal["val"]) -> Iterable[str]:
    """Compares the index of a whole PASCAL list with the known counts."""
    yield count_line(f"{which} images", len(index), IMAGES[which])
    for fold in range(4):
        split = pascal_5i(fold)
        if which == "val":
            images = len(index.images_with_any(split.novel, PASCAL_MIN_AREA))
            pairs = sum(len(index.images_of(c, PASCAL_MIN_AREA)) for c in split.novel)
            yield count_line(f"fold {fold} val images with a novel class", images, NOVEL_IMAGES[fold])
            yield count_line(f"fold {fold} val (image, novel class) pairs", pairs, NOVEL_PAIRS[fold])
        else:
            images = len(index.images_with_any(split.base, PASCAL_MIN_AREA))
            expected = BASE_IMAGES[which][fold]
            yield count_line(f"fold {fold} {which} images with a base class", images, expected)


def check_pascal(root: Path, train_list: TrainList) -> tuple[str, ...]:
    """Finds PASCAL VOC 2012 and SBD and compares all counts; what is missing is a line and no error."""
    lines = []
    for what, find, url in (("VOC2012", find_voc, VOC_URL), ("SBD", find_sbd, SBD_URL)):
        try:
            lines.append(f"ok    {what}: {find(root)}")
        except DataError as error:
            lines.append(f"WRONG {what} ({url}): {error}")
    if any(line.startswith("WRONG") for line in lines):
        return tuple(lines)
    noval = find_sbd(root) / "train_noval.txt"
    if train_list == "voc+sbd_noval" and not noval.exists():
        lines.append(f"note  no {noval.name} ({NOVAL_URL}): VOC's ImageSets/Main/train.txt is used for it")
    try:
        train, val = pascal_sources(root, root, train_list)
        lines += check_counts(build_index(val), "val")
        lines += check_counts(build_index(train), train_list)
    except DataError as error:
        lines.append(f"WRONG {error}")
    return tuple(lines)


LISTED: dict[CocoPart, int] = {"train": 82783, "val": 40504}
"""Images of each part's annotation file."""

ANNOTATED: dict[CocoPart, int] = {"train": 82081, "val": 40137}
"""Those with annotations."""

HSNET_IMAGES: dict[CocoPart, tuple[int, int, int, int]] = {
    "train": (62040, 74381, 73035, 73808),
    "val": (26052, 15305, 13138, 12640),
}
"""HSNet's lists, split B: train images with a base class, val images with a novel class of fold 0..3."""

_NEAR = 0.01


def hsnet_lines(index: Index, part: CocoPart) -> Iterable[str]:
    """Yields the images per fold beside HSNet's lists, whose filter is not published: notes, no errors."""
    for fold, expected in enumerate(HSNET_IMAGES[part]):
        split = coco_20i(fold)
        kind, classes = ("base", split.base) if part == "train" else ("novel", split.novel)
        images = len(index.images_with_any(classes))
        verdict = "like" if abs(images - expected) <= _NEAR * expected else "unlike"
        yield (
            f"note  fold {fold} {part} images with a {kind} class from 1 px: {images}, {verdict} "
            f"HSNet's list ({expected})"
        )


def check_coco(root: Path, min_area: int) -> tuple[str, ...]:
    """Finds COCO 2014 and compares all counts; what is missing is a line and no error."""
    try:
        coco = find_coco(root)
    except DataError as error:
        return (f"WRONG {error}",)
    lines = [f"ok    COCO 2014: {coco}"]
    for part in get_args(CocoPart):
        missing = [p for p in coco_paths(coco, part) if not p.exists()]
        archives = f"{part}2014.zip and annotations_trainval2014.zip"
        lines += [f"WRONG {path} is missing: {archives}, {COCO_PAGE}" for path in missing]
        if not missing:
            lines += _coco_part(coco, part, min_area)
    return tuple(lines)


def _coco_part(coco: Path, part: CocoPart, min_area: int) -> list[str]:
    try:
        source = coco_source(coco, part)
        lines = [count_line(f"{part}2014 images listed", source.listed, LISTED[part])]
        lines.append(count_line(f"{part}2014 images with annotations", len(source), ANNOTATED[part]))
        lines += [f"note  {part}2014: {times} {what}" for what, times in source.tolerated.items()]
        index = build_index(source)
    except DataError as error:
        return [f"WRONG {error}"]
    lines += hsnet_lines(index, part)
    if part == "val":
        lines += [f"note  {fold_line(index, coco_20i(fold), min_area)}" for fold in range(4)]
    return lines


def check_fss1000(root: Path) -> tuple[str, ...]:
    """Counts the classes, images and empty masks of FSS-1000; what is missing is a line and no error."""
    try:
        source = FSS1000Source(root)
        index = build_index(source)
    except DataError as error:
        return (f"WRONG {error}",)
    lines = [f"ok    FSS-1000: {source.root}", count_line("classes", len(source.class_names), CLASSES)]
    of_class = Counter(id.split("/")[0] for id in source.ids)
    odd = {name: n for name, n in of_class.items() if n != IMAGES_OF_CLASS}
    if odd:
        shown = json.dumps(dict(list(odd.items())[:5]))
        lines.append(f"WRONG {len(odd)} classes have not {IMAGES_OF_CLASS} images, like {shown} ({FSS_PAGE})")
    lines.append(f"note  {', '.join(f'{n} {part}' for part, n in PARTS.items())} classes: give the lists")
    empty = [id for id, facts in index.images.items() if not facts.areas]
    lines.append(f"ok    {len(index)} images, content {index.content_digest()}")
    if empty:
        lines.append(f"note  {len(empty)} masks are empty, like {empty[:3]}: those are never drawn")
    return tuple(lines)
