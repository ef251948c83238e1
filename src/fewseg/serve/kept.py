"""Open pages on a disk, from which a server that was killed opens them again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fewseg.ops.files import atomic_write_bytes, atomic_write_text, parse_json

_PAGE = "page.json"
_NAME = re.compile("[0-9a-f]{32}")


class KeptPage:
    """The folder of a page: what it has as JSON, written after the files that this names.

    A new page's is written before them: a folder without it is not taken for a page's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, about: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Brings a page to the disk; a file that exists is not written again, one without use is removed."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        known = set(os.listdir(self.folder))
        if _PAGE not in known:
            atomic_write_text(self.folder / _PAGE, json.dumps(about))
        known.discard(_PAGE)
        for name in files.keys() - known:
            atomic_write_bytes(self.folder / name, files[name])
        atomic_write_text(self.folder / _PAGE, json.dumps(about))
        for name in known - files.keys():
            (self.folder / name).unlink(missing_ok=True)

    def read(self) -> Any:
        """What :meth:`write` was given; raises a FileNotFoundError where there is no such page."""
        return parse_json((self.folder / _PAGE).read_bytes())

    def file(self, name: str) -> bytes:
        """A file of the page."""
        return (self.folder / Path(name).name).read_bytes()

    def used(self) -> None:
        """Notes that the page was used now."""
        with suppress(OSError):
            os.utime(self.folder)

    def exists(self) -> bool:
        """Whether the folder is that of a page, by its name and its JSON."""
        try:
            about = self.read() if _NAME.fullmatch(self.folder.name) else None
        except (OSError, ValueError):
            return False
        return isinstance(about, dict) and about.keys() >= {"classes", "images", "version", "next"}

    def remove(self) -> None:
        """Removes the page: its files, and last the JSON, by which a server knows what a kill has left."""
        with suppress(OSError):
            for name in sorted(os.listdir(self.folder), key=_PAGE.__eq__):
                (self.folder / name).unlink()
            self.folder.rmdir()


class KeptPages:
    """A folder with one for each page, which is named by a digest of the page's token."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def page(self, token: str) -> KeptPage:
        """The page with a token, which may not exist."""
        return KeptPage(self.folder / hashlib.sha256(token.encode()).hexdigest()[:32])

    def _pages(self) -> Iterator[KeptPage]:
        return (page for page in map(KeptPage, self.folder.iterdir()) if page.exists())

    def check(self) -> None:
        """Raises a ValueError where the folder holds other things and no page."""
        names = sorted(name for name in os.listdir(self.folder) if not name.startswith("."))
        others = [name for name in names if not _NAME.fullmatch(name)]
        if others and not any(self._pages()):
            raise ValueError(
                f"--keep must be an empty folder, or one that a server has kept pages in: {self.folder} "
                f"has {others[0]}; give a folder of its own"
            )

    def renew(self) -> None:
        """Starts the idle time of all pages again: it counts only while a server runs."""
        for page in self._pages():
            page.used()

    def sweep(self, idle_seconds: float, but: Iterable[str]) -> None:
        """Removes the pages that nobody has used for so long, but those with some tokens."""
        kept = {self.page(token).folder for token in but}
        for page in self._pages():
            with suppress(OSError):
                if page.folder not in kept and page.folder.stat().st_mtime < time.time() - idle_seconds:
                    page.remove()
