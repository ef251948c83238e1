"""Any data set given as a text file of ``image mask`` lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from fewseg.data.folds import numbered
from fewseg.data.image_files import require_folder
from fewseg.data.parallel import summary
from fewseg.data.source import DataError, FileSource, ImagePair


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


def parse_list(list_file: Path) -> list[tuple[int, str, str]]:
    """Returns (line number, image, mask) of each line that holds something.

    Raises:
        DataError: the file is missing, not text, empty, or has lines without a mask.
    """
    try:
        text = list_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"list {list_file} cannot be read ({error}): give a text file of lines `image mask`"
        ) from error
    rows, wrong = [], []
    for number, line in enumerate(text.splitlines(), start=1):
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
