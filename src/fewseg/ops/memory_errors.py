"""One kind of error for memory that ran out, whoever asked for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ON_THE_CPU = "DefaultCPUAllocator"


@contextmanager
def as_memory_error() -> Iterator[None]:
    """Turns torch's errors of memory, which are ``RuntimeError`` on the CPU, into ``MemoryError``.

    Raises:
        MemoryError: torch could not get the memory that it asked for within the block.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and _ON_THE_CPU not in str(error):
            raise
        raise MemoryError(str(error)) from error
