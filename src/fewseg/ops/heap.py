"""Memory that the allocator holds and nobody uses, and memory that the allocator does not hold."""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

SLACK = 512 << 20
"""Free bytes that the allocator may hold: the next maps are made in them without asking the system."""


_LARGE = 1 << 20  # bytes


class _Facts(ctypes.Structure):
    """``struct mallinfo2`` of glibc."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks")),
        *((name, ctypes.c_size_t) for name in ("fsmblks", "uordblks", "fordblks", "keepcost")),
    )


class _Returned:
    """Free bytes that the last ``give_back`` left: the allocator counts them on, but the system has them."""

    bytes = 0


def give_back(slack: int | None = None) -> None:
    """Returns free memory to the system where there is more of it than ``slack`` bytes (``SLACK``).

    Up to version 2.37 glibc does not use freed aligned memory again that lies between other allocations, and
    all of torch's is aligned: a process that makes maps of changing sizes grows by several gigabytes while
    what it holds stays the same. Elsewhere than on glibc this does nothing.
    """
    library = _glibc()
    if library is None:
        return
    free = library.mallinfo2().fordblks
    _Returned.bytes = min(_Returned.bytes, free)
    if free - _Returned.bytes > (SLACK if slack is None else slack):
        library.malloc_trim(0)
        _Returned.bytes = library.mallinfo2().fordblks


def apart(tensor: Tensor) -> Tensor:
    """Returns a large tensor of the CPU in pages of its own, which go back to the system with it.

    What is kept for long among maps that come and go leaves the allocator with holes that it does not fill.

    Args:
        tensor: dense, or channels last. A small one, or one of another device, is returned as it is.
    """
    size = tensor.numel() * tensor.element_size()
    if tensor.device.type != "cpu" or size < _LARGE:
        return tensor
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    pages = torch.from_numpy(np.frombuffer(mmap.mmap(-1, size, **private), dtype=np.uint8))
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    dense = tensor.permute(0, 2, 3, 1) if last else tensor
    copy = pages.view(tensor.dtype).view(dense.shape).copy_(dense)
    return copy.permute(0, 3, 1, 2) if last else copy


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
