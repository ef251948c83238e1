"""Gives back the memory that the allocator holds and nobody uses."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from typing import Any

SLACK = 512 << 20
"""Free bytes that the allocator may hold: the next maps are made in them without asking the system."""


class _Facts(ctypes.Structure):
    """``struct mallinfo2`` of glibc."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks")),
        *((name, ctypes.c_size_t) for name in ("fsmblks", "uordblks", "fordblks", "keepcost")),
    )


def give_back(slack: int | None = None) -> None:
    """Returns free memory to the system where there is more of it than ``slack`` bytes (``SLACK``).

    Up to version 2.37 glibc does not use freed aligned memory again that lies between other allocations, and
    all of torch's is aligned: a process that makes maps of changing sizes grows by several gigabytes while
    what it holds stays the same. Elsewhere than on glibc this does nothing.
    """
    library = _glibc()
    if library is not None and library.mallinfo2().fordblks > (SLACK if slack is None else slack):
        library.malloc_trim(0)


@lru_cache(maxsize=1)
def _glibc() -> Any:
    """The C library, where it is glibc 2.33 or newer; None elsewhere."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2") or not hasattr(library, "malloc_trim"):
        return None
    library.mallinfo2.restype = _Facts
    return library
