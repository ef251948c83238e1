"""Memory: what the allocator holds in vain goes back to the system, and one error when memory runs out."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

SLACK = 512 << 20
"""Free bytes that the allocator may hold: the next maps are made in them without asking the system."""


class _Least:
    """The process's own memory when the last ``give_back`` was done, or the least that was seen since."""

    bytes: int | None = None


def give_back(slack: int | None = None) -> None:
    """Returns free memory to the system where the process has grown by ``slack`` bytes (``SLACK``) since.

    Up to version 2.37 glibc does not use freed aligned memory again that lies between other allocations, and
    all of torch's is aligned: a process that makes maps of changing sizes would grow by several gigabytes.
    """
    library = _glibc()
    if library is None:
        return
    used = own_memory()
    if _Least.bytes is None or used < _Least.bytes:
        _Least.bytes = used
    if used - _Least.bytes > (SLACK if slack is None else slack):
        library.malloc_trim(0)
        _Least.bytes = own_memory()


def own_memory() -> int:
    """Bytes that the process has in memory, without the files that it has mapped; on Linux."""
    with open("/proc/self/statm") as pages:
        _, resident, shared, *_ = map(int, pages.read().split())
    return (resident - shared) * mmap.PAGESIZE


@lru_cache(maxsize=1)
def _glibc() -> Any:
    """The C library, where it is glibc on Linux; None elsewhere."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None


_ON_THE_CPU = "DefaultCPUAllocator"


@contextmanager
def as_memory_error() -> Iterator[None]:
    """Turns torch's errors of memory, which are ``RuntimeError`` on the CPU, into ``MemoryError``."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and _ON_THE_CPU not in str(error):
            raise
        raise MemoryError(str(error)) from error
