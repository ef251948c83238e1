"""What is in a data set, in lines of text: the body of ``fewseg data check``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fewseg.data.folds import ClassSplit
from fewseg.data.index import Index, build_index
from fewseg.data.pascal import NOVAL_URL, SBD_URL, VOC_URL, TrainList, find_sbd, find_voc, pascal_sources
from fewseg.data.pascal_counts import check_counts
from fewseg.data.protocols import PASCAL_MIN_AREA
from fewseg.data.source import DataError, Source


def check(
    source: Source,
    min_area: int = PASCAL_MIN_AREA,
    splits: Sequence[ClassSplit] = (),
    cache_dir: Path | str | None = None,
    progress: bool = True,
) -> tuple[str, ...]:
    """Reads every image of a source (once; the index is cached) and tells what is there.

    Args:
        source: the images.
        min_area: pixels a class must cover to count as present.
        splits: folds whose novel classes are checked for enough images.
        cache_dir: of the index.
        progress: show a progress bar.

    Returns:
        Lines: the number of images, a line per class, a line per fold.

    Raises:
        DataError: images cannot be used; one error tells of all of them.
    """
    index = build_index(source, cache_dir=cache_dir, progress=progress)
    return (*describe(index, min_area), *(fold_line(index, split, min_area) for split in splits))


def describe(index: Index, min_area: int = PASCAL_MIN_AREA) -> tuple[str, ...]:
    """Returns a line on the set and one per class: images where it is present, images with any of it."""
    empty = sum(not facts.areas for facts in index.images.values())
    head = f"{index.name}: {len(index)} images, {len(index.class_names)} classes"
    head += f", content {index.content_digest()}"
    lines = [f"{head}; {empty} images without any class" if empty else head]
    for class_id, name in index.class_names.items():
        present, any_pixel = len(index.images_of(class_id, min_area)), len(index.images_of(class_id))
        lines.append(
            f"  {class_id:3d} {name:<16s} {present:6d} images from {min_area} px ({any_pixel} with any)"
        )
    return tuple(lines)


def fold_line(index: Index, split: ClassSplit, min_area: int = PASCAL_MIN_AREA) -> str:
    """Returns the images per novel class of a fold and the most shots that all of them allow."""
    counts = {c: len(index.images_of(c, min_area)) for c in split.novel}
    shots = max(0, min(counts.values()) - 1)
    parts = ", ".join(f"{split.class_names[c]} {n}" for c, n in counts.items())
    verdict = f"up to {shots} shots" if shots else "TOO FEW IMAGES for 1 shot"
    return f"{split.name} fold {split.fold}: {parts}; {verdict}"


def check_pascal(
    voc_root: Path | str,
    sbd_root: Path | str,
    train_list: TrainList = "voc+sbd_noval",
    cache_dir: Path | str | None = None,
    progress: bool = True,
) -> tuple[str, ...]:
    """Tells what of PASCAL VOC 2012 and SBD is there, and compares all counts with the known ones.

    What is missing is a line of the report, with where to get it, and no error.

    Args:
        voc_root: ``VOC2012``, or a folder above it.
        sbd_root: SBD's ``dataset``, or a folder above it.
        train_list: the training list to build.
        cache_dir: of the index.
        progress: show progress bars.
    """
    lines = []
    for what, find, root, url in (
        ("VOC2012", find_voc, voc_root, VOC_URL),
        ("SBD", find_sbd, sbd_root, SBD_URL),
    ):
        try:
            lines.append(f"ok    {what}: {find(root)}")
        except DataError as error:
            lines.append(f"WRONG {what} ({url}): {error}")
    if any(line.startswith("WRONG") for line in lines):
        return tuple(lines)
    noval = find_sbd(sbd_root) / "train_noval.txt"
    if train_list == "voc+sbd_noval" and not noval.exists():
        lines.append(f"note  no {noval.name} ({NOVAL_URL}): VOC's ImageSets/Main/train.txt is used for it")
    try:
        train, val = pascal_sources(voc_root, sbd_root, train_list, progress=progress)
        for source, which in ((val, "val"), (train, train_list)):
            index = build_index(source, cache_dir=cache_dir, progress=progress)
            lines += [count.line() for count in check_counts(index, which)]  # type: ignore[arg-type]
    except DataError as error:
        lines.append(f"WRONG {error}")
    return tuple(lines)
