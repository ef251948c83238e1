"""What all feature stores of a folder take on the disk: those used longest ago go first."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fewseg.ops.locks import lock

logger = logging.getLogger(__name__)

_USED = "used"
_GONE = ".removed-"


def disk_budget() -> int:
    """Bytes that all stores of a folder may take: ``$FEWSEG_CACHE_BYTES``, or 200 GiB.

    Raises:
        ValueError: the variable is no number of bytes.
    """
    said = os.environ.get("FEWSEG_CACHE_BYTES", str(200 << 30))
    if not said.isdecimal():
        raise ValueError(f"FEWSEG_CACHE_BYTES is {said!r}: give a number of bytes, such as 50000000000")
    return int(said)


@dataclass
class InUse:
    """A store that this process uses: nobody removes it as long as the object lives.

    Attributes:
        folder: of the store.
    """

    folder: Path
    _file: IO[bytes] = field(repr=False)

    def touch(self) -> None:
        """Says that the store was used now."""
        os.utime(self.folder / _USED)

    def close(self) -> None:
        """Gives the store free."""
        self._file.close()


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """One process at a time makes or removes stores below ``place``; it exists after."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("ab") as file:
        lock(file.fileno())
        yield


def use(folder: Path) -> InUse:
    """Makes a store's folder where it is missing and says that it is used; call it under ``locked``."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / _USED).open("ab")
    lock(file.fileno(), shared=True)
    used = InUse(folder, file)
    used.touch()
    return used


def make_room(place: Path, wanted: int, budget: int) -> None:
    """Removes stores that nobody uses, the longest unused first, until ``wanted`` bytes fit the budget.

    A store is first renamed and then removed, so that a kill leaves nothing that looks like a store; what an
    earlier kill left, and stores of a run that was killed before it could remove them, go too.

    Args:
        place: folder of the stores.
        wanted: bytes that are about to be written.
        budget: bytes that all stores together may take.
    """
    with locked(place):
        for left in place.glob(f"{_GONE}*"):
            shutil.rmtree(left, ignore_errors=True)
        stores = [used.parent for used in place.glob(f"*/{_USED}")]
        taken = {store: _bytes(store) for store in stores}
        for store in sorted(stores, key=lambda s: (not s.name.startswith("temporary-"), _last_use(s))):
            over = sum(taken.values()) + wanted - budget
            if (over > 0 or store.name.startswith("temporary-")) and _free(store):
                if taken[store]:
                    logger.info("removing the feature store %s (%d MiB)", store, taken[store] >> 20)
                gone = store.with_name(f"{_GONE}{store.name}")
                os.replace(store, gone)
                shutil.rmtree(gone, ignore_errors=True)
                taken.pop(store)


def room(place: Path, budget: int) -> int:
    """Bytes that the stores of ``place`` may still grow by; below 0 where they are over the budget."""
    return budget - sum(_bytes(used.parent) for used in place.glob(f"*/{_USED}"))


def _free(store: Path) -> bool:
    """Whether nobody uses a store."""
    try:
        with (store / _USED).open("ab") as file:
            return lock(file.fileno(), wait=False)
    except OSError:
        return False


def _last_use(store: Path) -> float:
    return (store / _USED).stat().st_mtime


def _bytes(store: Path) -> int:
    """Bytes on the disk: files of stores are sparse. Of one that goes meanwhile: what is still there."""
    total = 0
    with suppress(FileNotFoundError):
        for path in store.iterdir():
            status = path.stat()
            total += int(getattr(status, "st_blocks", status.st_size / 512) * 512)
    return total
