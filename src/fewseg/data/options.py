"""Options of ``fewseg data check``; free of torch, so that a command line starts fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fewseg.data.protocols import PASCAL_MIN_AREA

DataSet = Literal["pascal", "coco", "fss1000", "folder", "list", "voc5i-mini"]


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Reports what a data set holds, and what is missing.

    Attributes:
        dataset: pascal (VOC 2012 and SBD below ROOT), coco (COCO 2014), fss1000, folder (<class>/images,
            <class>/masks), list (a file of `image mask` lines with VOC class ids) or voc5i-mini.
        root: the data set's folder.
        list_file: for ``list``: the list; its paths are relative to the root.
        min_area: pixels a class must cover to count as present.
    """

    dataset: Annotated[DataSet, tyro.conf.Positional]
    root: Annotated[Path, tyro.conf.Positional]
    list_file: Path | None = None
    min_area: int = PASCAL_MIN_AREA
