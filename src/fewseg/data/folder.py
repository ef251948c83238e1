"""A folder per class: ``<class>/images/*`` and ``<class>/masks/*``."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fewseg.data.folds import numbered
from fewseg.data.image_files import IMAGE_SUFFIXES, one_class_mask, read_mask, require_folder
from fewseg.data.parallel import summary
from fewseg.data.source import DataError, FileSource, ImagePair

LAYOUT = "<class>/images/<name>.jpg with <class>/masks/<name>.png"


class FolderSource(FileSource):
    """Images of one class each, with a mask of that class.

    Classes are numbered from 1 in alphabetical order of their folders; an image's id is
    ``<class>/<name>``. A mask may be of mode 1, L or P and means, per file, what
    :func:`~fewseg.data.image_files.one_class_mask` says.
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
            raise DataError(f"{name}: {len(folders)} classes in {root}; accepted are 254: part it into roots")
        pairs: dict[str, ImagePair] = {}
        for folder in folders:
            pairs.update(_class_pairs(folder, wrong))
        if wrong:
            raise DataError(
                f"{name}: {len(wrong)} wrong files in {root}; accepted is {LAYOUT}{summary(wrong)}"
            )
        super().__init__(name, root, pairs, numbered([f.name for f in folders]))
        self._class_ids = {class_name: id for id, class_name in self.class_names.items()}

    def read_labels(self, id: str) -> Tensor:
        """Returns (H, W) uint8: 0, the class id of the image's folder, 255.

        Raises:
            DataError: the mask is missing or broken, of a wrong mode, or holds several numbers.
        """
        path = self.pair(id).mask
        labels = one_class_mask(read_mask(path, modes=("1", "L", "P")), str(path))
        labels[labels == 1] = self._class_ids[id.split("/")[0]]
        return labels


def _files(folder: Path) -> list[Path]:
    found = (f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith("."))
    return sorted(found)


def _class_pairs(folder: Path, wrong: list[str]) -> dict[str, ImagePair]:
    """Returns id -> files of one class; appends to ``wrong`` what does not fit."""
    masks: dict[str, Path] = {}
    for mask in _files(folder / "masks"):
        if mask.stem in masks:
            wrong.append(f"{mask} and {masks[mask.stem].name} are two masks of one name")
        masks[mask.stem] = mask
    pairs: dict[str, ImagePair] = {}
    for image in _files(folder / "images"):
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
