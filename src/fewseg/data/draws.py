"""Random draws that depend on a key alone: not on numpy, torch, Python, workers or the order of calls."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
Part = str | int | float

_BITS = 64
_BLOCK = 8  # integers of 64 bits in one blake2b digest of 64 bytes


def _encode(part: Part) -> bytes:
    if isinstance(part, str):
        text = "s" + part
    elif isinstance(part, int):
        text = f"i{int(part)}"
    elif isinstance(part, float):
        text = "f" + part.hex()
    else:
        raise TypeError(f"a key of Draws holds str, int and float; got {type(part).__name__}")
    raw = text.encode()
    return len(raw).to_bytes(4, "little") + raw


class Draws:
    """A stream of random integers: blake2b of the key and a counter.

    The same key gives the same stream on every machine and with every library version.

    Example:
        >>> Draws("episode", 0).below(10) == Draws("episode", 0).below(10)
        True
    """

    def __init__(self, *key: Part) -> None:
        self._seed = hashlib.blake2b(b"".join(map(_encode, key)), digest_size=32).digest()
        self._counter = 0
        self._pending: list[int] = []

    def spawn(self, *key: Part) -> Draws:
        """Returns an independent stream named by this one's key and ``key``; draws nothing from this one."""
        return Draws(self._seed.hex(), *key)

    def integer(self) -> int:
        """Returns the next integer of the stream, uniform in [0, 2^64)."""
        if not self._pending:
            counter = self._counter.to_bytes(8, "little")
            block = hashlib.blake2b(counter, key=self._seed, digest_size=64).digest()
            self._counter += 1
            self._pending = [int.from_bytes(block[8 * k : 8 * k + 8], "little") for k in range(_BLOCK)][::-1]
        return self._pending.pop()

    def below(self, n: int) -> int:
        """Returns an integer uniform in [0, n): without bias, by rejection."""
        if not 1 <= n <= 1 << _BITS:
            raise ValueError(f"Draws.below needs 1 <= n <= 2^64, got {n}")
        limit = (1 << _BITS) - (1 << _BITS) % n
        while (value := self.integer()) >= limit:
            pass
        return value % n

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Returns a float uniform in [low, high)."""
        return low + (high - low) * ((self.integer() >> 11) * 2.0**-53)

    def chance(self, probability: float) -> bool:
        """Returns True with the given probability (always draws once)."""
        return self.uniform() < probability

    def choice(self, items: Sequence[T]) -> T:
        """Returns one of the items."""
        if not items:
            raise ValueError("Draws.choice must have one item at least, got none")
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], k: int) -> tuple[T, ...]:
        """Returns ``k`` items without repeats; a smaller ``k`` from the same state gives a prefix."""
        if not 0 <= k <= len(items):
            raise ValueError(f"cannot draw {k} of {len(items)} items without repeats")
        moved: dict[int, int] = {}
        taken = []
        for i in range(k):
            j = i + self.below(len(items) - i)
            taken.append(items[moved.get(j, j)])
            moved[j] = moved.get(i, i)
        return tuple(taken)
