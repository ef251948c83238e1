"""Figures of a folder, put into the page as they are."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from pathlib import Path

from fewseg.reports.html import Cell, Markup, element

MOST_BYTES = 2 * 2**20
"""Of one picture."""

ALL_BYTES = 12 * 2**20
"""Of all pictures of a page."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PHOTOGRAPHS = "pictures/"  # where `fewseg report figures` puts figures that show photographs
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


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What a folder of figures has.

    Attributes:
        taken: for the page, plots before photographs.
        unasked: how many photographs were left where they are, since nobody asked for them.
        problems: one sentence for each file that cannot be used, and one for all that have no room.
    """

    taken: tuple[Picture, ...] = ()
    unasked: int = 0
    problems: tuple[str, ...] = ()


def read_pictures(folder: Path, *, photographs: bool = False) -> Pictures:
    """Reads the PNG and SVG files of a folder; of one that is there as both, the SVG.

    Args:
        folder: of figures, at any depth.
        photographs: also those below its subfolder ``pictures``, as far as there is room.
    """
    if not folder.is_dir():
        return _nothing(f"{folder} is not a folder: give the folder that `fewseg report figures` writes to")
    by_name: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _KINDS and path.is_file():
            by_name.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    if not by_name:
        return _nothing(f"{folder} has no PNG or SVG file")
    last = [name for name in by_name if name.startswith(_PHOTOGRAPHS)]
    names = [name for name in by_name if name not in last] + (last if photographs else [])
    taken: list[Picture] = []
    problems: list[str] = []
    outside: list[str] = []
    for name in names:
        path = min(by_name[name], key=_rank)
        content, shown = path.read_bytes(), path.relative_to(folder).as_posix()
        wrong = _wrong(path, content)
        if wrong:
            problems.append(f"{shown}: {wrong}")
        elif sum(len(each.content) for each in taken) + len(content) > ALL_BYTES:
            outside.append(shown)
        else:
            taken.append(Picture(name=name, kind=_KINDS[path.suffix.lower()], content=content))
    if outside:
        problems.append(
            f"{len(outside)} of {len(names)} figures are not in the page, which has room for "
            f"{ALL_BYTES // 2**20} MiB of them: {outside[0]}" + (" and others" if len(outside) > 1 else "")
        )
    unasked = 0 if photographs else len(last)
    return Pictures(taken=tuple(taken), unasked=unasked, problems=tuple(problems))


def _nothing(problem: str) -> Pictures:
    return Pictures(problems=(problem,))


def _rank(path: Path) -> tuple[bool, bool]:
    """Of the files of one figure that with the lowest rank is taken: small enough, and drawn in lines."""
    return path.stat().st_size > MOST_BYTES, path.suffix.lower() != ".svg"


def _wrong(path: Path, content: bytes) -> str:
    """Why a file cannot be taken, or ""."""
    if path.suffix.lower() == ".png" and not content.startswith(_PNG):
        return "it is no PNG file"
    if path.suffix.lower() == ".svg" and b"<svg" not in content[:4096]:
        return "it is no SVG file"
    if len(content) > MOST_BYTES:
        return f"it has {len(content) / 2**20:.1f} MiB, more than {MOST_BYTES // 2**20}: not in the page"
    return ""


def pictures_section(pictures: Pictures) -> list[Cell]:
    """The figures, each with its name; a picture cannot run or ask for anything."""
    if not pictures.taken and not pictures.unasked:
        return []
    parts: list[Cell] = [element("h2", "Figures", id="figures-title")]
    if pictures.unasked:
        told = f"{pictures.unasked} figures with photographs are not in the page: --photographs puts them in."
        parts.append(element("p", told, class_="soft"))
    parts += [_figure(picture) for picture in pictures.taken]
    return [element("section", *parts, id="figures", aria_labelledby="figures-title")]


def _figure(picture: Picture) -> Markup:
    name = picture.name.replace("_", " ").replace("-", " ")
    uri = f"data:{picture.kind};base64,{base64.b64encode(picture.content).decode()}"
    image = Markup(f'<img src="{uri}" alt="Figure: {html.escape(name)}" loading="lazy">')
    return element("figure", image, element("figcaption", name), class_="picture")
