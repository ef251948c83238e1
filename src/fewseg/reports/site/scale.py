"""From values to places on a drawing: linear axes with round ticks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear axis.

    Attributes:
        low: value at ``start``.
        high: value at ``end``.
        start: place in the drawing, in its units.
        end: place; may be less than ``start`` (upwards).
        step: distance of two ticks, a value.
    """

    low: float
    high: float
    start: float
    end: float
    step: float

    def at(self, value: float) -> float:
        """The place of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Multiples of the step, from low to high."""
        first, last = round(self.low / self.step), round(self.high / self.step)
        return [i * self.step for i in range(first, last + 1)]

    def text(self, tick: float) -> str:
        """A tick as text, with as many decimals as the step needs."""
        return f"{tick:.{max(0, -floor(log10(self.step) + 1e-9))}f}"


def scale_over(values: Sequence[float], start: float, end: float, *, ticks: int = 6) -> Scale:
    """An axis over all values whose ends are ticks.

    Args:
        values: finite; others are passed over, and with none the axis is 0 .. 1.
        start: place of its lower end.
        end: place of its upper end.
        ticks: at most about so many.
    """
    known = [v for v in values if isfinite(v)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    step = _round_step((high - low) / max(1, ticks - 1))
    return Scale(
        low=floor(low / step + 1e-9) * step,
        high=ceil(high / step - 1e-9) * step,
        start=start,
        end=end,
        step=step,
    )


def _round_step(least: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is not below ``least``."""
    power = 10.0 ** floor(log10(least))
    return float(next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9)))
