"""Tensors under names, within a budget of memory: what was used longest ago moves to a file."""

from __future__ import annotations

import errno
import logging
import os
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from torch import Tensor

from fewseg.data.storage import cache_folder
from fewseg.ops.heap import apart

logger = logging.getLogger(__name__)

MEMORY = 4 << 30
"""Bytes of memory that an evaluation keeps, unless it is told another number."""


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in the file, and how it is laid out in memory."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    channels_last: bool


class BytePool:
    """Keeps tuples of tensors by name; nothing that was put in by ``put`` is lost.

    The tensors in memory take ``budget`` bytes at most. What is beyond goes to a file that has no name, so
    that it is gone with the process however that ends, and is read from there by memory map. Where the disk
    is full the rest stays in memory, with a warning. What lies in another file anyway (``lend``) is let go
    first, and not written again.

    Args:
        budget: bytes in memory; one entry is kept however large it is.
        folder: of the file; ``$FEWSEG_CACHE`` by default.
    """

    def __init__(self, budget: int = MEMORY, folder: Path | None = None) -> None:
        self.budget, self.bytes, self.spilled = budget, 0, 0
        self._folder = folder
        self._kept: OrderedDict[Hashable, tuple[Tensor, ...]] = OrderedDict()
        self._lent: OrderedDict[Hashable, tuple[Tensor, ...]] = OrderedDict()
        self._places: dict[Hashable, tuple[_Place, ...]] = {}
        self._file: int | None = None
        self._full = False

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept or key in self._places

    def get(self, key: Hashable) -> tuple[Tensor, ...] | None:
        """The tensors of a name, laid out as they were put in; None where there are none."""
        for held in (self._kept, self._lent):
            if key in held:
                held.move_to_end(key)
                return held[key]
        if key not in self._places:
            return None
        found = tuple(self._read(place) for place in self._places[key])
        self._keep(key, found)
        return found

    def put(self, key: Hashable, tensors: tuple[Tensor, ...]) -> None:
        """Keeps tensors under a name that has none yet. They must not be views into larger ones."""
        if key not in self:
            self._keep(key, tuple(apart(tensor) for tensor in tensors))

    def lend(self, key: Hashable, tensors: tuple[Tensor, ...]) -> None:
        """Keeps tensors as long as there is room; who asks for them later may get None."""
        if key not in self and key not in self._lent:
            self._lent[key] = tensors
            self.bytes += _bytes(tensors)
            self._let_go()

    def _let_go(self) -> None:
        while self.bytes > self.budget and self._lent:
            self.bytes -= _bytes(self._lent.popitem(last=False)[1])

    def _keep(self, key: Hashable, tensors: tuple[Tensor, ...]) -> None:
        self._kept[key] = tensors
        self.bytes += _bytes(tensors)
        self._let_go()
        while self.bytes > self.budget and len(self._kept) > 1 and not self._full:
            oldest = next(iter(self._kept))
            if oldest not in self._places and not self._spill(oldest):
                return
            self.bytes -= _bytes(self._kept.pop(oldest))

    def _spill(self, key: Hashable) -> bool:
        """Writes an entry; False where the disk is full."""
        end, places = self.spilled, []
        try:
            file = self._opened()
            for tensor in self._kept[key]:
                last = _is_channels_last(tensor)
                dense = (tensor.permute(0, 2, 3, 1) if last else tensor).contiguous().cpu()
                places.append(_Place(end, tuple(dense.shape), tensor.dtype, tensor.device, last))
                end = _append(file, dense.flatten().view(torch.uint8).numpy().tobytes(), end)
        except OSError as error:
            self._full = True
            logger.warning(
                "no more of what an evaluation keeps fits on the disk of %s (%s): it stays in memory, beyond "
                "the budget of %d MiB. Free some space or set FEWSEG_CACHE to a folder on another disk",
                self._folder or cache_folder(),
                error,
                self.budget >> 20,
            )
            return False
        self.spilled, self._places[key] = end, tuple(places)
        return True

    def _opened(self) -> int:
        if self._file is None:
            folder = self._folder or cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
            self._anonymous = TemporaryFile(dir=folder)  # noqa: SIM115 - as long as the pool
            self._file = self._anonymous.fileno()
        return self._file

    def _read(self, place: _Place) -> Tensor:
        size = int(np.prod(place.shape)) * place.dtype.itemsize
        if size == 0:
            return torch.empty(place.shape, dtype=place.dtype, device=place.device)
        stored = np.memmap(self._anonymous, dtype=np.uint8, mode="r", offset=place.offset, shape=(size,))
        dense = torch.from_numpy(np.array(stored)).view(place.dtype).view(place.shape)
        return apart(dense.permute(0, 3, 1, 2) if place.channels_last else dense).to(place.device)


def _append(file: int, data: bytes, start: int) -> int:
    """Writes by system calls, so that a full disk is an error and not the end of the process.

    Raises:
        OSError: the disk is full.
    """
    written = 0
    while written < len(data):
        count = os.pwrite(file, data[written:], start + written)
        if count <= 0:
            raise OSError(errno.ENOSPC, "the disk is full")
        written += count
    return start + written


def _is_channels_last(tensor: Tensor) -> bool:
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return last and not tensor.is_contiguous()


def _bytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
