"""Sources of a folder per class (``<class>/images``, ``<class>/masks``) and of a list file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from fewseg.annotations.class_masks import check_stored, read_class_mask
from fewseg.annotations.image_files import require_folder
from fewseg.annotations.options import image_files
from fewseg.data.folds import VOC_CLASSES, numbered
from fewseg.data.source import FileSource, ImagePair, JoinedSource, read_lines
from fewseg.ops.parallel import summary
from fewseg.types import DataError

logger = logging.getLogger(__name__)

LAYOUT = "<class>/images/<name>.jpg with <class>/masks/<name>.png"


class FolderSource(FileSource):
    """Images of one class each, with a mask of that class.

    Classes are numbered from 1 in alphabetical order of their folders; an image's id is
    ``<class>/<name>``. A mask may be of mode 1, L or P and is read, per file, by
    :func:`~fewseg.annotations.class_masks.read_class_mask`; all masks of a class must hold the same number.
    Other classes in the same photograph are background.

    Args:
        root: the folder of the class folders; entries that begin with a dot are skipped.
        name: what messages call the set; the folder's name by default.

    Raises:
        DataError: the root is missing or empty, no class folder, an image without a mask, a name twice,
            or more than 254 classes.
    """

    def __init__(self, root: Path | str, name: str | None = None) -> None:
        root = Path(root)
        name = name or root.resolve().name
        require_folder(root, name)
        folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
        wrong = [
            f"{f.name} has no {s}/" for f in folders for s in ("images", "masks") if not (f / s).is_dir()
        ]
        if not folders or wrong:
            raise DataError(f"{name}: {root} must hold {LAYOUT}: move the files so{summary(wrong)}")
        if len(folders) > 254:
            raise DataError(
                f"{name} must have up to 254 classes, got {len(folders)} in {root}: part it into roots"
            )
        pairs: dict[str, ImagePair] = {}
        for folder in folders:
            pairs.update(_class_pairs(folder, wrong))
        if wrong:
            raise DataError(f"{name}: {len(wrong)} wrong files in {root}; expected {LAYOUT}{summary(wrong)}")
        super().__init__(name, root, pairs, numbered([f.name for f in folders]))
        self._class_ids = {class_name: id for id, class_name in self.class_names.items()}
        self._assumed: set[str] = set()
        self._stored: dict[str, dict[str, Path]] = {f.name: {} for f in folders}

    def read_labels(self, id: str) -> Tensor:
        """Returns (H, W) uint8: 0, the class id of the image's folder, 255.

        Raises:
            DataError: the mask is missing or broken, of a wrong mode, or holds several numbers, or another
                one than a mask of its class that was read before.
        """
        path, class_name = self.pair(id).mask, id.split("/")[0]
        read = read_class_mask(path, modes=("1", "L", "P"))
        check_stored(
            read.stored_as, path, self._stored[class_name], "give the class the same number in all its masks"
        )
        if read.assumed and read.assumed not in self._assumed:
            self._assumed.add(read.assumed)
            logger.warning("%s: %s (this mask, and maybe others)", path, read.assumed)
        return torch.where(read.mask == 1, self._class_ids[class_name], read.mask)


def _class_pairs(folder: Path, wrong: list[str]) -> dict[str, ImagePair]:
    """Returns id -> files of one class; appends to ``wrong`` what does not fit."""
    masks: dict[str, Path] = {}
    for mask in image_files(folder / "masks", deep=False):
        if mask.stem in masks:
            wrong.append(f"{mask} and {masks[mask.stem].name} are two masks of one name")
        masks[mask.stem] = mask
    pairs: dict[str, ImagePair] = {}
    for image in image_files(folder / "images", deep=False):
        id = f"{folder.name}/{image.stem}"
        if id in pairs:
            wrong.append(f"{image} and {pairs[id].image.name} are two images of one name")
        elif image.stem not in masks:
            wrong.append(f"{image} has no mask of that name in masks/")
        else:
            pairs[id] = ImagePair(image, masks[image.stem])
    if not pairs:
        wrong.append(f"{folder.name} has no image with a mask")
    return pairs


class ListFileSource(FileSource):
    """Images and masks named by a list file.

    A line holds the path of an image and of its mask, relative to ``root``, parted by a tab or by
    blanks (a path that contains blanks needs the tab). Empty lines and lines that start with ``#`` are
    skipped; a leading slash is dropped, as published lists have it. An image's id is its file name
    without suffix or, where two images share that, its relative path without suffix.

    Args:
        root: folder that the paths are relative to.
        list_file: the list.
        class_names: id -> name, or names numbered from 1.
        name: what messages call the set; the list's file name by default.

    Raises:
        DataError: root or list is missing or empty, a line has not two paths, a file is missing, or an
            image is listed twice. All wrong lines are counted and the first few shown.
    """

    def __init__(
        self,
        root: Path | str,
        list_file: Path | str,
        class_names: Mapping[int, str] | Sequence[str],
        name: str | None = None,
    ) -> None:
        root, list_file = Path(root), Path(list_file)
        name = name or list_file.stem
        require_folder(root, name)
        rows = parse_list(list_file)
        super().__init__(name, root, _pairs(root, list_file, rows), numbered(class_names))


def voc5i_mini_lists(root: Path) -> dict[tuple[int, str], ListFileSource]:
    """Returns the eight lists of voc5i-mini: (fold, "train" or "val") -> source."""
    if not (root / "lists").is_dir():
        raise DataError(
            f"voc5i-mini is not at {root}: give --root, or set FEWSEG_SHARED to the folder that has "
            "data/voc5i-mini"
        )
    return {
        (fold, kind): ListFileSource(root, root / "lists" / f"fold{fold}_{kind}.txt", VOC_CLASSES)
        for fold in range(4)
        for kind in ("train", "val")
    }


def voc5i_mini_source(root: Path) -> JoinedSource:
    """Returns all images of voc5i-mini."""
    return JoinedSource("voc5i-mini", list(voc5i_mini_lists(root).values()))


def parse_list(list_file: Path) -> list[tuple[int, str, str]]:
    """Returns (line number, image, mask) of each line that holds something."""
    rows, wrong = [], []
    lines = read_lines(list_file, "list", "give a text file of lines `image mask`")
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        fields = [f.strip() for f in line.split("\t")] if "\t" in line else line.split()
        if len(fields) == 2 and all(fields):
            rows.append((number, fields[0].lstrip("/"), fields[1].lstrip("/")))
        else:
            wrong.append(f"line {number}: {line[:80]!r} has {len(fields)} field(s)")
    if wrong:
        raise _errors(list_file, wrong, "a line is `image mask`, two paths: add the mask's path")
    if not rows:
        raise DataError(f"list {list_file} is empty: it needs lines of `image mask`")
    return rows


def _pairs(root: Path, list_file: Path, rows: list[tuple[int, str, str]]) -> dict[str, ImagePair]:
    stems = [PurePosixPath(image).stem for _, image, _ in rows]
    plain = len(set(stems)) == len(stems)
    pairs: dict[str, ImagePair] = {}
    wrong = []
    for (number, image, mask), stem in zip(rows, stems, strict=True):
        id = stem if plain else str(PurePosixPath(image).with_suffix(""))
        pair = ImagePair(root / image, root / mask)
        if id in pairs:
            wrong.append(f"line {number}: {image} is listed twice")
        wrong += [f"line {number}: {p} does not exist" for p in (pair.image, pair.mask) if not p.is_file()]
        pairs[id] = pair
    if wrong:
        raise _errors(
            list_file, wrong, f"every file must exist under {root}, once: check the root and the list"
        )
    return pairs


def _errors(list_file: Path, wrong: list[str], advice: str) -> DataError:
    return DataError(f"list {list_file}: {len(wrong)} wrong entries; {advice}{summary(wrong)}")
