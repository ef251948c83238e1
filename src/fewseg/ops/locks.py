"""Locks between processes, which a killed process does not leave behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such lock: one process at a time there
    fcntl = None  # type: ignore[assignment]


def lock(handle: int, *, shared: bool = False, wait: bool = True) -> bool:
    """Locks an open file or folder until it is closed.

    Args:
        handle: its descriptor.
        shared: beside other shared locks.
        wait: for those who hold it.

    Returns:
        False where somebody holds it, or where the platform has no such locks and ``wait`` is False.

    Raises:
        OSError: the file system has no locks.
    """
    if fcntl is None:
        return wait
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(handle, kind)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        return False
    return True


@contextmanager
def folder_alone(folder: Path) -> Iterator[bool]:
    """Whether this process is alone, for the length of the block, among those that ask so for a folder.

    The folder itself is locked, and no file is made. Where there are no such locks the answer is True.

    Args:
        folder: exists.
    """
    if fcntl is None:
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            alone = lock(handle, wait=False)
        except OSError:  # a file system without locks
            alone = True
        yield alone
    finally:
        os.close(handle)
