"""What of COCO 2014 and FSS-1000 is there: the reports of ``fewseg data check``."""

from __future__ import annotations

import json
from pathlib import Path

from fewseg.data.check import fold_line
from fewseg.data.coco import COCO_PAGE, CocoPart, annotation_file, coco_source, find_coco, image_folder
from fewseg.data.coco_counts import check_coco_counts, hsnet_lines
from fewseg.data.coco_splits import coco_20i
from fewseg.data.fss1000 import CLASSES, FSS_PAGE, IMAGES_OF_CLASS, PARTS, FSS1000Source
from fewseg.data.index import build_index
from fewseg.data.pascal_counts import Count
from fewseg.data.protocols import PASCAL_MIN_AREA
from fewseg.data.source import DataError


def check_coco(
    root: Path | str,
    min_area: int = PASCAL_MIN_AREA,
    cache_dir: Path | str | None = None,
    progress: bool = True,
) -> tuple[str, ...]:
    """Tells what of COCO 2014 is there, and compares all counts with the known ones.

    What is missing is a line of the report, with where to get it, and no error.

    Args:
        root: the folder with ``annotations``, ``train2014`` and ``val2014``, or one that holds it.
        min_area: pixels a class must cover to count as present.
        cache_dir: of label maps and indices (folders ``coco`` and ``index`` in it); the cache by default.
        progress: show progress bars.
    """
    try:
        coco = find_coco(root)
    except DataError as error:
        return (f"WRONG {error}",)
    lines = [f"ok    COCO 2014: {coco}"]
    parts: tuple[CocoPart, ...] = ("train", "val")
    for part in parts:
        missing = [p for p in (annotation_file(coco, part), image_folder(coco, part)) if not p.exists()]
        archives = f"{part}2014.zip and annotations_trainval2014.zip"
        lines += [f"WRONG {path} is missing: {archives}, {COCO_PAGE}" for path in missing]
        if not missing:
            lines += _coco_part(coco, part, min_area, cache_dir, progress)
    return tuple(lines)


def _coco_part(
    coco: Path, part: CocoPart, min_area: int, cache_dir: Path | str | None, progress: bool
) -> list[str]:
    cache = None if cache_dir is None else Path(cache_dir)
    try:
        source = coco_source(coco, part, cache and cache / "coco", progress)
        lines = [count.line() for count in check_coco_counts(source, part)]
        lines += [f"note  {part}2014: {times} {what}" for what, times in source.tolerated.items()]
        index = build_index(source, cache and cache / "index", progress=progress)
    except DataError as error:
        return [f"WRONG {error}"]
    lines += hsnet_lines(index, part)
    if part == "val":
        lines += [f"note  {fold_line(index, coco_20i(fold), min_area)}" for fold in range(4)]
    return lines


def check_fss1000(
    root: Path | str, cache_dir: Path | str | None = None, progress: bool = True
) -> tuple[str, ...]:
    """Tells what of FSS-1000 is there: classes, images, masks without anything in them.

    What is missing is a line of the report, with where to get it, and no error.

    Args:
        root: the folder of the class folders, or one that holds it.
        cache_dir: of the index.
        progress: show a progress bar.
    """
    try:
        source = FSS1000Source(root)
        lines = [f"ok    FSS-1000: {source.root}"]
        lines.append(Count("classes", len(source.class_names), CLASSES).line())
        of_class: dict[str, int] = {}
        for id in source.ids:
            name = id.split("/")[0]
            of_class[name] = of_class.get(name, 0) + 1
        odd = {name: n for name, n in of_class.items() if n != IMAGES_OF_CLASS}
        if odd:
            told = json.dumps(dict(list(odd.items())[:5]))
            lines.append(
                f"WRONG {len(odd)} classes have not {IMAGES_OF_CLASS} images, like {told} ({FSS_PAGE})"
            )
        lines.append(f"note  {', '.join(f'{n} {part}' for part, n in PARTS.items())} classes: give the lists")
        index = build_index(source, cache_dir=cache_dir, progress=progress)
    except DataError as error:
        return (f"WRONG {error}",)
    empty = [id for id, facts in index.images.items() if not facts.areas]
    lines.append(f"ok    {len(index)} images, content {index.content_digest()}")
    if empty:
        lines.append(f"note  {len(empty)} masks are empty, like {empty[:3]}: those are never drawn")
    return tuple(lines)
