"""Figures of a folder, embedded unchanged in the page as images, which can neither run nor load anything."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

MOST_BYTES = 2 * 2**20
"""Most bytes of one picture."""

ALL_BYTES = 12 * 2**20
"""Most bytes of all pictures of a page."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PHOTOGRAPHS = "pictures/"  # where `fewseg report figures` puts figures that show photographs
_KINDS = {".png": "image/png", ".svg": "image/svg+xml"}


@dataclass(frozen=True, kw_only=True)
class EmbeddedPicture:
    """A figure: its path below the folder, without suffix, its media type and its content."""

    name: str
    kind: str
    content: bytes

    @property
    def title(self) -> str:
        """Its name in words."""
        return self.name.replace("_", " ").replace("-", " ")

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return f"data:{self.kind};base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The figures of a folder."""

    taken: tuple[EmbeddedPicture, ...] = ()  # pictures for the page, plots before photographs
    not_requested: int = 0  # number of photographs that are left out by the options
    # one sentence for each file that cannot be used, and one for all that do not fit
    problems: tuple[str, ...] = ()


def read_pictures(folder: Path, *, photographs: bool = False) -> Pictures:
    """Reads the PNG and SVG files of a folder; of one that exists as both, the SVG."""
    if not folder.is_dir():
        problem = f"{folder} is not a folder: give the folder that `fewseg report figures` writes to"
        return Pictures(problems=(problem,))
    by_name: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _KINDS and path.is_file():
            by_name.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    if not by_name:
        return Pictures(problems=(f"{folder} has no PNG or SVG file",))
    last = [name for name in by_name if name.startswith(_PHOTOGRAPHS)]
    names = [name for name in by_name if name not in last] + (last if photographs else [])
    taken: list[EmbeddedPicture] = []
    problems: list[str] = []
    outside: list[str] = []
    for name in names:
        path = min(by_name[name], key=_rank)
        content, shown = path.read_bytes(), path.relative_to(folder).as_posix()
        wrong = _wrong(path, content)
        if wrong:
            problems.append(f"{shown}: {wrong}")
        elif sum(len(picture.content) for picture in taken) + len(content) > ALL_BYTES:
            outside.append(shown)
        else:
            taken.append(EmbeddedPicture(name=name, kind=_KINDS[path.suffix.lower()], content=content))
    if outside:
        problems.append(
            f"{len(outside)} of {len(names)} figures are not in the page, which has room for "
            f"{ALL_BYTES // 2**20} MiB of them: {outside[0]}" + (" and others" if len(outside) > 1 else "")
        )
    return Pictures(
        taken=tuple(taken), not_requested=0 if photographs else len(last), problems=tuple(problems)
    )


def _rank(path: Path) -> tuple[bool, bool]:
    """Sort key of the files of one figure: those that fit come first, and vector graphics before others."""
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
