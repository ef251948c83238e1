"""Figures of a folder, put into the page as they are."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from pathlib import Path

from fewseg.reporting.html import Cell, Markup, element

MOST_BYTES = 2 * 2**20
"""Of one picture."""

ALL_BYTES = 12 * 2**20
"""Of all pictures of a page."""

_PNG = b"\x89PNG\r\n\x1a\n"
_KINDS = {".png": "image/png", ".svg": "image/svg+xml"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure.

    Attributes:
        name: its path below the folder, without suffix.
        kind: its media type.
        content: the file.
    """

    name: str
    kind: str
    content: bytes


def read_pictures(folder: Path) -> tuple[list[Picture], list[str]]:
    """Reads the PNG and SVG files of a folder; of one that is there as both, the smaller.

    Returns:
        The pictures, and one sentence for each file that was not taken.
    """
    if not folder.is_dir():
        return [], [f"{folder} is not a folder: give the folder that `fewseg report figures` writes to"]
    by_name: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _KINDS and path.is_file():
            by_name.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    if not by_name:
        return [], [f"{folder} has no PNG or SVG file"]
    pictures: list[Picture] = []
    problems: list[str] = []
    for name, paths in by_name.items():
        path = min(paths, key=lambda each: each.stat().st_size)
        content = path.read_bytes()
        wrong = _wrong(path, content, sum(len(each.content) for each in pictures))
        if wrong:
            problems.append(f"{path.relative_to(folder).as_posix()}: {wrong}")
        else:
            pictures.append(Picture(name=name, kind=_KINDS[path.suffix.lower()], content=content))
    return pictures, problems


def _wrong(path: Path, content: bytes, before: int) -> str:
    """Why a file cannot be taken, or ""."""
    if path.suffix.lower() == ".png" and not content.startswith(_PNG):
        return "it is no PNG file"
    if path.suffix.lower() == ".svg" and b"<svg" not in content[:4096]:
        return "it is no SVG file"
    if len(content) > MOST_BYTES:
        return f"it has {len(content) / 2**20:.1f} MiB, more than {MOST_BYTES // 2**20}: not in the page"
    if before + len(content) > ALL_BYTES:
        return f"the pictures before it have {ALL_BYTES // 2**20} MiB with it: not in the page"
    return ""


def pictures_section(pictures: list[Picture]) -> list[Cell]:
    """The figures, each with its name; a picture cannot run or ask for anything."""
    if not pictures:
        return []
    figures = [_figure(picture) for picture in pictures]
    heading = element("h2", "Figures", id="figures-title")
    return [element("section", heading, *figures, id="figures", aria_labelledby="figures-title")]


def _figure(picture: Picture) -> Markup:
    name = picture.name.replace("_", " ").replace("-", " ")
    uri = f"data:{picture.kind};base64,{base64.b64encode(picture.content).decode()}"
    image = Markup(f'<img src="{uri}" alt="Figure: {html.escape(name)}" loading="lazy">')
    return element("figure", image, element("figcaption", name), class_="picture")
