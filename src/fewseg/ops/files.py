"""Files that are either the old one or the complete new one, never half of either."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fewseg.errors import DataError

_NEARLY_FULL = 16  # MiB; writers that hide the OSError (torch.save) fail with less than this left

_KEPT = 32  # letters of a file's name in that of its temporary file


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """Gives a temporary path in the same folder, which takes the name ``path`` when the block succeeds.

    When the block or the disk fails, or the process is interrupted, ``path`` is left as it was. Missing
    parent folders are made. An OSError's message has the path and the free space. What is ``durable``
    outlives a power failure too, which a cache with checksums need not. The first file that a process writes
    in a folder also removes the temporary files of processes that were killed, on any machine.
    """
    target = Path(path)
    start = target.stem[:_KEPT]  # a name as long as a file system takes leaves no room for more
    temporary = target.with_name(f".{start}.{_writer()}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_left(target.parent)
        with _in_use(temporary):
            yield temporary
            if durable:
                _flush(temporary)
            os.replace(temporary, target)
        if durable:
            _flush_folder(target.parent)
    except OSError as error:
        raise unwritten(target, error) from error
    except Exception as error:
        if free_mib(target.parent) < _NEARLY_FULL:
            raise unwritten(target, error) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes, *, durable: bool = True) -> None:
    """Writes ``data`` to ``path`` in one step, as ``atomic_path`` does."""
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes ``text`` as UTF-8 with its line ends unchanged, as ``atomic_path`` does."""
    atomic_write_bytes(path, text.encode("utf-8"))


_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}-[0-9]+-[0-9a-f]{12}(\.[^.]*)?")
_looked_at: set[tuple[int, Path]] = set()  # (process, folder)


def _writer() -> str:
    """The machine and the process, for people, and a random number."""
    return f"{zlib.crc32(platform.node().encode()):08x}-{os.getpid()}-{secrets.token_hex(6)}"


@contextmanager
def _in_use(temporary: Path, *, folder: bool = False) -> Iterator[None]:
    """Makes a temporary file or folder and locks it, so that no process takes it for that of a killed one.

    The system ends a lock with its process. Names and numbers of processes show nothing on a disk that
    containers or machines share. Without locks on the platform or the file system nothing is removed there.
    """
    if fcntl is None:
        if folder:
            temporary.mkdir(mode=0o700)
        yield
        return
    kind = os.O_RDONLY if folder else os.O_CREAT | os.O_EXCL | os.O_RDWR
    while True:
        if folder:
            temporary.mkdir(mode=0o700)
        handle = os.open(temporary, kind, 0o666)
        with suppress(OSError):  # a file system without locks
            lock(handle)
        if os.fstat(handle).st_nlink:  # else it was removed before it was locked
            break
        os.close(handle)
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for the length of the block, where the system has such; those of killed processes go."""
    home = Path(tempfile.gettempdir())
    remove_left(home)
    folder = home / f".fewseg.{_writer()}"
    try:
        with _in_use(folder, folder=True):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_left(folder: Path) -> None:
    """Removes temporary files and folders whose process is no more, once a process and folder.

    A file that is locked is in use; one that this process can lock is that of a process that was killed.
    """
    if fcntl is None or (os.getpid(), folder) in _looked_at:
        return
    _looked_at.add((os.getpid(), folder))
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not _TEMPORARY.fullmatch(entry.name):
                continue
            with suppress(OSError):
                is_folder = entry.is_dir(follow_symlinks=False)
                handle = os.open(entry.path, (os.O_RDONLY if is_folder else os.O_RDWR) | os.O_NOFOLLOW)
                try:
                    if lock(handle, wait=False):
                        shutil.rmtree(entry.path) if is_folder else os.unlink(entry.path)
                finally:
                    os.close(handle)


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; a ValueError too where it is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Makes the rename itself durable; a platform that cannot open folders goes without."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        return
    finally:
        os.close(handle)


def free_mib(folder: Path) -> float:
    """What the disk of a folder has left, in MiB."""
    return shutil.disk_usage(_existing(folder)).free / 2**20


def _existing(folder: Path) -> Path:
    """A folder, or the nearest above it that there is; a file where one is in its place."""
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def unwritten(path: Path, error: Exception) -> OSError:
    """The error of a file that could not be written: what happened to it, and what to do."""
    system = error if isinstance(error, OSError) else None
    number = (system.errno if system else errno.ENOSPC) or errno.EIO
    reason = (system.strerror if system else None) or str(error) or type(error).__name__
    return OSError(number, f"could not write {path}: {_explain(path, number, reason)}")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Has an OSError of the block name a file and what to do, as that of a write to an open file does not."""
    try:
        yield
    except OSError as error:
        raise unwritten(path, error) from error


def _explain(path: Path, number: int, reason: str) -> str:
    if os.path.isdir(path):  # not Path's: it raises where a folder may not be looked into
        return "it is a folder; give the name of a file in it"
    blocking = _existing(path.parent)
    if not os.path.isdir(blocking):
        return f"{blocking} is a file; choose another output folder"
    state = "the earlier file is unchanged" if os.path.exists(path) else "nothing was left behind"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{reason}; {state}. Make it writable or choose another output folder"
    free = free_mib(path.parent)
    return f"{reason} ({free:.0f} MiB free there); {state}. Free some space or choose another output folder"


def check_writable(path: Path) -> None:
    """Raises an OSError if a file cannot be written, as far as that is known without making it."""
    folder = _existing(path.parent)
    if os.path.isdir(path) or not os.path.isdir(folder):
        raise unwritten(path, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise unwritten(path, OSError(errno.EACCES, os.strerror(errno.EACCES)))


try:
    import fcntl
except ImportError:  # Windows has no such lock: one process at a time there
    fcntl = None  # type: ignore[assignment]


def lock(handle: int, *, shared: bool = False, wait: bool = True) -> bool:
    """Locks an open file or folder until it is closed.

    False where a different process holds it, or where the platform has no locks and ``wait`` is False.
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
    """Whether this process is alone, for the length of the block, among those that lock a folder here.

    No file is made. Without locks on the platform or the file system the answer is True.
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


@contextmanager
def one_process(folder: Path, does: str) -> Iterator[None]:
    """Keeps a folder for this process for the length of the block; a DataError where another one has it."""
    with folder_alone(folder) as alone:
        if not alone:
            raise DataError(f"another process {does} {folder} now: wait for it, or choose a different folder")
        yield


def cache_folder() -> Path:
    """Returns ``$FEWSEG_CACHE``, or ``~/.cache/fewseg``; it may not exist yet."""
    chosen = os.environ.get("FEWSEG_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "fewseg"
