"""Open pages on a disk, from which a server that was killed opens them again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fewseg.ops.files import atomic_write_bytes, atomic_write_text, parse_json

_PAGE = "page.json"


class KeptPage:
    """The folder of a page: what it has as JSON, written last, and the files that this names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, about: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Brings a page to the disk; a file that exists is not written again, one without use is removed."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        known = set(os.listdir(self.folder)) - {_PAGE}
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

    def remove(self) -> None:
        """Removes the page."""
        shutil.rmtree(self.folder, ignore_errors=True)


class KeptPages:
    """A folder with one for each page, which is named by a digest of the page's token."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def page(self, token: str) -> KeptPage:
        """The page with a token, which may not exist."""
        return KeptPage(self.folder / hashlib.sha256(token.encode()).hexdigest()[:32])

    def renew(self) -> None:
        """Starts the idle time of all pages again: it counts only while a server runs."""
        for folder in self.folder.iterdir():
            KeptPage(folder).used()

    def sweep(self, idle_seconds: float, but: Iterable[str]) -> None:
        """Removes the pages that nobody has used for so long, but those with some tokens."""
        kept = {self.page(token).folder for token in but}
        for folder in self.folder.iterdir():
            with suppress(OSError):
                if folder not in kept and folder.stat().st_mtime < time.time() - idle_seconds:
                    KeptPage(folder).remove()
