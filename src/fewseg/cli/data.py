"""``fewseg data check``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class DataCommand:
    """Says what a data set holds, and what is missing.

    Attributes:
        dataset: pascal (VOC 2012 and SBD below ROOT), coco (COCO 2014), fss1000, folder (<class>/images,
            <class>/masks), list (a file of `image mask` lines with VOC class ids) or voc5i-mini.
        root: the data set's folder.
        list_file: for ``list``: the list; its paths are relative to the root.
        min_area: pixels a class must cover to count as present.
    """

    dataset: Annotated[
        Literal["pascal", "coco", "fss1000", "folder", "list", "voc5i-mini"], tyro.conf.Positional
    ]
    root: Annotated[Path, tyro.conf.Positional]
    list_file: Path | None = None
    min_area: int = 2048


def check(command: DataCommand, console: Console) -> None:
    """Prints what a data set holds; raises a ValueError where it cannot be used."""
    from fewseg.data.check import check as check_source
    from fewseg.data.check import check_coco, check_fss1000, check_pascal
    from fewseg.data.folder import FolderSource, ListFileSource
    from fewseg.data.folds import VOC_CLASSES, pascal_5i
    from fewseg.recipes.datasets import voc5i_mini

    splits = [pascal_5i(fold) for fold in range(4)]
    if command.dataset == "pascal":
        lines = check_pascal(command.root, command.root)
    elif command.dataset == "coco":
        lines = check_coco(command.root, command.min_area)
    elif command.dataset == "fss1000":
        lines = check_fss1000(command.root)
    elif command.dataset == "folder":
        lines = check_source(FolderSource(command.root), command.min_area)
    elif command.dataset == "voc5i-mini":
        lines = check_source(voc5i_mini(0, command.root).source, command.min_area, splits)
    elif command.list_file is None:
        raise ValueError("`fewseg data check list` needs --list-file: the file of `image mask` lines")
    else:
        source = ListFileSource(command.root, command.list_file, VOC_CLASSES)
        lines = check_source(source, command.min_area, splits)
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
    if any(line.startswith("WRONG") for line in lines):
        raise ValueError("the data set cannot be used as it is: see the lines marked WRONG")
