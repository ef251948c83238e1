"""Files that are either the old one or the whole new one, never half of either."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NEARLY_FULL = 16 * 2**20  # bytes; writers that hide the OSError (torch.save) fail with less than this left

_KEPT = 32  # letters of a file's name in that of its temporary file


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path in the same folder, which takes the name ``path`` when the block succeeds.

    The file is flushed to the disk before the rename. When the block or the disk fails, or the process is
    interrupted, ``path`` is left as it was and the temporary file is removed. Missing parent folders are
    made. The temporary name keeps the suffix of ``path`` (numpy and torch look at it).

    Raises:
        OSError: the file could not be written; the message has the path and the free space.
    """
    target = Path(path)
    start = target.stem[:_KEPT]  # a name as long as a file system takes leaves no room for more
    temporary = target.with_name(f".{start}.{secrets.token_hex(6)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
        _flush_folder(target.parent)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, _explain(target, error)) from error
    except Exception as error:
        if _free_bytes(target) < _NEARLY_FULL:
            raise OSError(errno.ENOSPC, _explain(target, error)) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes ``data`` to ``path`` in one step, as :func:`atomic_path` does.

    Raises:
        OSError: the file could not be written; the old file is still there.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes ``text`` as UTF-8 with its line ends unchanged, as :func:`atomic_path` does.

    Raises:
        OSError: the file could not be written; the old file is still there.
    """
    atomic_write_bytes(path, text.encode("utf-8"))


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


def _free_bytes(path: Path) -> int:
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _explain(path: Path, error: Exception) -> str:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    free = _free_bytes(path) / 2**20
    number = error.errno if isinstance(error, OSError) else errno.ENOSPC
    closed = number in (errno.EROFS, errno.EACCES, errno.EPERM)
    kept = "the earlier file is unchanged" if path.exists() else "nothing was left behind"
    return (
        f"could not write {path}: {reason} ({free:.0f} MiB free there); {kept}. "
        f"{'Make it writable' if closed else 'Free some space'} or choose another output folder"
    )
