"""Random numbers for rendering."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Stream:
    """A stream of random numbers that reads only ``Generator.random``.

    Numpy promises the raw stream of PCG64, not the values of its distributions: everything here is
    made of plain uniform doubles, so a picture stays the same under another version of numpy.
    """

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def uniform(self, low: float, high: float) -> float:
        """Returns a number in [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def below(self, n: int) -> int:
        """Returns an integer in 0 .. n - 1."""
        return int(n * self._generator.random())

    def chance(self, probability: float) -> bool:
        """Returns true with the given probability."""
        return bool(self._generator.random() < probability)

    def array(self, *shape: int) -> NDArray[np.float64]:
        """Returns uniform numbers in [0, 1) of the given shape."""
        return self._generator.random(shape)
