"""FSS-1000: a thousand classes of ten photographs each, one thing a photograph."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewseg.annotations.image_files import require_folder
from fewseg.annotations.options import IMAGE_SUFFIXES, image_files
from fewseg.data.draws import Draws
from fewseg.data.folds import ClassSplit, numbered_in_16_bits
from fewseg.data.source import FileSource, ImagePair, read_lines
from fewseg.ops.parallel import summary
from fewseg.types import DataError

log = logging.getLogger(__name__)

FSS_PAGE = "the FSS-1000 project's page, HKUSTCV/FSS-1000 on GitHub"
"""Where the archive is."""

CLASSES, IMAGES_OF_CLASS = 1000, 10
"""Of the complete set."""

PARTS: dict[str, int] = {"train": 520, "validation": 240, "test": 240}
"""Classes of each part. Source: FSS-1000 (Li et al., CVPR 2020), Sec. 4."""

_FILES = {
    "train": ("train.txt", "trn.txt"),
    "validation": ("validation.txt", "val.txt"),
    "test": ("test.txt",),
}
_LAYOUT = "<class>/<n>.jpg with <class>/<n>.png"


class FSS1000Source(FileSource):
    """FSS-1000 as unpacked: ``<class>/<n>.jpg`` with ``<class>/<n>.png``.

    Ids are ``<class>/<n>``; classes are numbered in alphabetical order. A mask is black and white; grey edges
    are cut at half (HSNet reads them so), and nothing is ignored.

    The thousand classes do not fit beside 255 = ignore into 8 bits. The label map of an image is therefore of
    32-bit integers, and 255 is no class: index, samplers and views treat it as any other, and
    :func:`fewseg.data.transforms.way_labels` gives the 8-bit map of an episode.

    Args:
        root: the folder of the class folders, or one that holds it as ``fewshot_data`` (once or twice).

    Raises:
        DataError: the root is missing or empty, or a class has a photograph without a mask or none at all.
    """

    def __init__(self, root: Path | str) -> None:
        root, name = find_fss1000(root), "fss-1000"
        pairs: dict[str, ImagePair] = {}
        wrong: list[str] = []
        folders = sorted(
            f for f in root.iterdir() if f.is_dir() and not f.name.startswith(".") and f.name != "splits"
        )
        for folder in folders:
            pairs.update(_class_pairs(folder, wrong))
        if wrong:
            raise DataError(
                f"{name}: {len(wrong)} wrong entries in {root}; expected {_LAYOUT}{summary(wrong)}"
            )
        super().__init__(name, root, pairs, numbered_in_16_bits([f.name for f in folders]))
        self.class_of = {class_name: id for id, class_name in self.class_names.items()}

    def read_labels(self, id: str) -> Tensor:
        """Returns (H, W) int32: 0, and the class id of the image's folder.

        Raises:
            DataError: the mask is missing or broken.
        """
        path = self.pair(id).mask
        try:
            with Image.open(path) as file:
                grey = np.array(file.convert("RGB").convert("L"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(
                f"mask {path} cannot be read ({error}); expected black and white PNGs: unpack the "
                "archive again"
            ) from error
        labels = np.where(grey >= 128, np.int32(self.class_of[id.split("/")[0]]), np.int32(0))
        return torch.from_numpy(labels)


def find_fss1000(root: Path | str) -> Path:
    """Returns the folder of the class folders at or below ``root``."""
    root = Path(root)
    require_folder(root, "FSS-1000")
    for place in ("fewshot_data/fewshot_data", "fewshot_data", "FSS-1000", "fss1000", ""):
        if any((root / place).glob("*/1.jpg")):
            return root / place
    raise DataError(f"FSS-1000: {root} has no {_LAYOUT}: unpack the archive there ({FSS_PAGE})")


def _class_pairs(folder: Path, wrong: list[str]) -> dict[str, ImagePair]:
    """Id -> files of one class; appends to ``wrong`` what does not fit."""
    photographs = [suffix for suffix in IMAGE_SUFFIXES if suffix != ".png"]
    images = sorted(image_files(folder, photographs, deep=False), key=_number)
    if not images:
        wrong.append(f"{folder.name} has no photograph")
    wrong += [f"{i} has no mask {i.stem}.png" for i in images if not i.with_suffix(".png").is_file()]
    return {f"{folder.name}/{i.stem}": ImagePair(i, i.with_suffix(".png")) for i in images}


def _number(path: Path) -> tuple[int, str]:
    return (int(path.stem) if path.stem.isdecimal() else 10**9, path.name)


@dataclass(frozen=True)
class FSSParts:
    """Class names of each part; ``official`` where they are read from files, not drawn."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    official: bool


def fss1000_parts(names: Sequence[str], given: Path | str | None = None) -> FSSParts:
    """Parts the classes into training, validation and test.

    Args:
        names: of all classes of the copy.
        given: a folder with ``train.txt`` (or ``trn.txt``), ``val.txt`` (or ``validation.txt``) and
            ``test.txt``, one class a line; or a file of the test classes alone, and then the others are
            parted 520 : 240 as below. None draws all three.

    Returns:
        The parts. What is drawn depends on the names alone, in shares of 520 : 240 : 240, with a warning
        that it is not the published split.

    Raises:
        DataError: a list is missing or empty, names a class that is not there, or names one in two parts.
    """
    lists: dict[str, tuple[str, ...]] = {}
    if given is not None and Path(given).is_dir():
        lists = {part: _read_list(Path(given), files) for part, files in _FILES.items()}
    elif given is not None:
        lists = {"test": _read_names(Path(given))}
    named = [name for of_part in lists.values() for name in of_part]
    unknown = sorted(set(named) - set(names))
    twice = sorted({name for name in named if named.count(name) > 1})
    if unknown or twice:
        raise DataError(
            f"split {given}: {len(unknown)} classes are not in the data set, like {unknown[:3]}, and "
            f"{len(twice)} are named twice, like {twice[:3]}: give the lists that belong to this copy"
        )
    missing = [part for part in PARTS if part not in lists]
    if missing:
        lists.update(_drawn(sorted(set(names) - set(named)), missing))
        log.warning(
            "FSS-1000: %s classes are drawn here, not those of the publication: numbers cannot be compared "
            "with published ones; give the lists of %s",
            " and ".join(missing),
            FSS_PAGE,
        )
    return FSSParts(**lists, official=not missing)


def _drawn(names: Sequence[str], parts: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Parts of sizes in the published proportion; the first takes what is left over."""
    order = Draws("fss-1000 split", 1).sample(sorted(names), len(names))
    total, drawn, start = sum(PARTS[p] for p in parts), {}, 0
    for part in reversed(parts[1:]):
        size = len(names) * PARTS[part] // total
        drawn[part], start = tuple(sorted(order[start : start + size])), start + size
    drawn[parts[0]] = tuple(sorted(order[start:]))
    return drawn


def _read_list(folder: Path, files: Sequence[str]) -> tuple[str, ...]:
    for file in files:
        if (folder / file).exists():
            return _read_names(folder / file)
    raise DataError(f"split {folder} has no {' or '.join(files)}: give train.txt, val.txt and test.txt")


def _read_names(path: Path) -> tuple[str, ...]:
    lines = read_lines(path, "split", "give a text file, one class a line")
    names = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not names:
        raise DataError(f"split {path} is empty: it needs one class a line")
    return names


def fss1000_split(
    class_names: Mapping[int, str], parts: FSSParts, test: Literal["test", "validation"] = "test"
) -> ClassSplit:
    """Returns the class split of FSS-1000, its one fold 0.

    Args:
        class_names: id -> name, of the source.
        parts: which class is in which part.
        test: which part is called novel; the other one is in neither, and the base classes are the same.

    Returns:
        The split, named "fss-1000", or "fss-1000-drawn" where its parts are not read from lists.
    """
    number = {name: id for id, name in class_names.items()}
    base, novel = (tuple(sorted(number[n] for n in names)) for names in (parts.train, getattr(parts, test)))
    name = "fss-1000" if parts.official else "fss-1000-drawn"
    return ClassSplit(name=name, fold=0, base=base, novel=novel, class_names=dict(class_names))
