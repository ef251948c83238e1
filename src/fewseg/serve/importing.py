"""Masks of other tools on a page, in any format that ``fewseg label`` reads: a file or an archive."""

from __future__ import annotations

import errno
import io
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from fewseg.annotations.formats import iter_supports
from fewseg.annotations.mask_files import png_bytes, read_classes
from fewseg.annotations.options import ReadOptions
from fewseg.annotations.values import AnnotatedImage, Mask, Problem
from fewseg.ops.files import temporary_folder
from fewseg.ops.places import BROKEN_ARCHIVE
from fewseg.serve.limits import MIB, Limits
from fewseg.serve.pages import DEFAULT_CLASS, Drawn, PageImage, PageState, clean_name
from fewseg.types import IGNORE, DataError

_MOST_FILES = 20_000
_PICTURES = {"labels": "images", "masks": "images", "SegmentationClass": "JPEGImages"}
"""Folder of annotations to the one of pictures beside it."""
_OF_NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EILSEQ, errno.EINVAL)
"""What a file system answers to names, whatever room it has."""


def import_masks(page: PageState, name: str, content: bytes, role: Drawn) -> tuple[int, list[str]]:
    """Gives the page's images the masks of an upload, and adds images that come with it.

    Args:
        page: whose images are found by their names.
        name: of the file.
        content: a file of annotations, or a ZIP archive of a folder.
        role: what the images become.

    Returns:
        How many images have got a mask, and what is wrong with others.
    """
    classes, masks, notes = list(page.classes), dict[str, bytes](), list[str]()
    if classes == [DEFAULT_CLASS] and not any(image.mask_png for image in page.images):
        classes = []
    with ExitStack() as claim, temporary_folder() as folder:
        top = root = folder.resolve() / "upload" / "annotations"
        root.mkdir(parents=True)
        try:
            if zipfile.is_zipfile(io.BytesIO(content)):
                _unpack(content, root, page, claim)
            else:
                (root / clean_name(name)).write_bytes(content)
            root = _prepared(root, page.images)
            items = _items(root, page.limits)
            while (read := _next(items, page, classes)) is not None:
                item, mask = read
                if isinstance(item, Problem):
                    notes.append(str(item.error))
                    continue
                known = {image.name: image for image in page.images}
                image = known.get(item.image.name) or page.add_image(item.image.name, item.image.read_bytes())
                masks[image.id] = mask
        except DataError as error:
            raise DataError(str(error).replace(f"{folder}/upload/annotations", name)) from error
        except OSError as error:
            place = Path(str(error.filename))
            if error.errno not in _OF_NAMES or not place.is_relative_to(top):
                raise
            raise DataError(
                f"{name} has an entry {str(place.relative_to(top))[:80]!r} that cannot be unpacked "
                f"({error.strerror}): pack it with different names"
            ) from error
        notes = [note.replace(f"{root}/", "").replace(str(folder), "") for note in notes]
    if masks:
        page.put_masks(masks, tuple(classes), role)
    return len(masks), notes


def _unpack(content: bytes, root: Path, page: PageState, claim: ExitStack) -> None:
    """Unpacks an archive, and claims the disk; what is hidden, or leads out of the folder, is left out."""
    most = page.limits.unpacked_bytes
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = [info for info in archive.infolist() if not info.filename.endswith("/")]
            size = sum(info.file_size for info in files)
            if len(files) > _MOST_FILES or size > most:
                raise DataError(
                    f"an archive may hold {_MOST_FILES} files and {most / MIB:.0f} MiB, this one is larger: "
                    "import it in parts"
                )
            claim.enter_context(page.claim_unpacked(size))
            for info in files:
                parts = PurePosixPath(info.filename).parts
                hidden = any(part.startswith((".", "/", "__MACOSX")) or "\\" in part for part in parts)
                if parts and not hidden:
                    archive.extract(info, root)
    except BROKEN_ARCHIVE as error:
        raise DataError(f"the archive cannot be unpacked ({error}): pack it again as a plain ZIP") from error


def _prepared(root: Path, images: Sequence[PageImage]) -> Path:
    """The folder to read: with an empty picture of each of the page's images where a reader looks for it."""
    inside = list(root.iterdir())
    if len(inside) == 1 and inside[0].is_dir() and not _named_for_a_reader(inside[0]):
        return _prepared(inside[0], images)
    files = [file for file in root.rglob("*") if file.is_file()]
    described = [file.parent for file in files if file.suffix.lower() in (".json", ".xml")]
    kinds = {part for file in files for part in file.relative_to(root).parts[:-1]} & set(_PICTURES)
    if described and not kinds:
        _draw(described[0] / "images", images, files)
        return described[0]
    if not kinds and not _side_by_side(files):  # masks alone
        shutil.move(root, root.with_name("masks"))
        root.mkdir()
        shutil.move(root.with_name("masks"), root)
        files = [file for file in root.rglob("*") if file.is_file()]
    named: dict[str, list[PageImage]] = {}
    for image in images:
        for key in {image.name, Path(image.name).stem}:
            named.setdefault(key, []).append(image)
    for file in files:
        *parents, last = file.relative_to(root).parts
        kind = next((part for part in parents if part in _PICTURES), None)
        if kind is None:
            continue
        at = parents.index(kind)
        below = [] if kind == "masks" else parents[at + 1 :]
        stem = Path(last).stem
        folder = root.joinpath(*parents[:at], _PICTURES[kind], *below)
        _draw(folder, named.get(stem) or named.get(stem.removesuffix("_mask")) or (), files)
    return root


def _named_for_a_reader(folder: Path) -> bool:
    """Whether a folder's name means something: annotations, or a class."""
    of_class = (folder / "images").is_dir() and (folder / "masks").is_dir() and not read_classes(folder)
    return folder.name in _PICTURES or of_class


def _side_by_side(files: Sequence[Path]) -> bool:
    """Whether each picture has a mask beside it."""
    pictures = [file for file in files if file.suffix.lower() != ".txt"]
    stems = [file.with_name(file.stem.removesuffix("_mask")) for file in pictures]
    return all(stems.count(stem) == 2 for stem in set(stems))


def _draw(folder: Path, images: Sequence[PageImage], files: Sequence[Path]) -> None:
    """Puts empty pictures of the images' sizes into a folder, but of those that came with the upload."""
    present = {file.name for file in files if not _PICTURES.keys() & set(file.parts)}
    for image in images:
        place = folder / image.name
        if image.name not in present and not place.exists():
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("1", image.size[::-1]).save(place, format="PNG")


def _items(root: Path, limits: Limits) -> Iterator[AnnotatedImage | Problem]:
    """What the readers find, of files in the folder alone."""
    for item in iter_supports(root, ReadOptions(max_pixels=limits.pixels)):
        if isinstance(item, AnnotatedImage) and not item.image.resolve().is_relative_to(root):
            text = f"{item.image.name} is not in the archive: put it there"
            yield Problem(item.image.name, DataError(text))
        else:
            yield item


def _next(
    items: Iterator[AnnotatedImage | Problem], page: PageState, classes: list[str]
) -> tuple[AnnotatedImage | Problem, bytes] | None:
    """The next item with its mask as a PNG; a mask may have as many pixels as an image."""
    with page.claim_most():
        item = next(items, None)
        if item is None:
            return None
        if isinstance(item, Problem):
            return item, b""
        # without its planes, of which there is one for each class
        return replace(item, masks={}), png_bytes(_labels(item, classes))


def _labels(item: AnnotatedImage, classes: list[str]) -> Mask:
    """The masks of an image as class numbers; new classes are added to the list."""
    labels: Mask = np.zeros(item.size, dtype=np.uint8)
    for name, mask in item.masks.items():
        same = [known for known in classes if known.casefold() == name.strip().casefold()]
        if not same:
            classes.append(name)
        labels[(mask == IGNORE) & (labels == 0)] = IGNORE
        labels[mask == 1] = classes.index(same[0] if same else name) + 1
    return labels
