"""``fewseg data check``: its options are free of torch, so that a command line starts fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

DataSet = Literal["pascal", "coco", "fss1000", "folder", "list", "voc5i-mini", "coco-mini"]


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Reports what a data set holds, and what is missing."""

    # pascal (VOC 2012 and SBD below ROOT), coco (COCO 2014), fss1000, folder (<class>/images, <class>/masks),
    # list (a file of `image mask` lines with VOC class ids), voc5i-mini or coco-mini.
    dataset: Annotated[DataSet, tyro.conf.Positional]
    root: Annotated[Path, tyro.conf.Positional]  # the data set's folder.
    list_file: Path | None = None  # for ``list``: the list; its paths are relative to the root.
    train_list: Literal["voc+sbd_noval", "trainaug"] = "voc+sbd_noval"  # for ``pascal``: the training images.
    min_area: int = 2048  # pixels a class must cover to count as present.


def check(options: CheckOptions, console: Console) -> None:
    """Prints what a data set holds; raises a ValueError where it cannot be used."""
    from fewseg.data.check import check_named

    lines = check_named(**vars(options))
    console.out("\n".join(lines), highlight=False)
    if any(line.startswith("WRONG") for line in lines):
        raise ValueError("the data set cannot be used: see the lines marked WRONG")
