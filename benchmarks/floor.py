"""FLOPs of a piece of work, and the seconds that they would take at this machine's matmul rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Measured:
    """Seconds a call (median of several) and its FLOPs (multiply-adds count two)."""

    seconds: float
    flops: int


def measure(work: Callable[[], object], repeat: int = 5) -> Measured:
    with FlopCounterMode(display=False) as counter:
        work()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return Measured(seconds=sorted(times)[repeat // 2], flops=counter.get_total_flops())


def matmul_rate(dtype: torch.dtype, device: str, side: int = 2048) -> float:
    """FLOPs a second of a square matrix product."""
    a = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / measure(lambda: a @ a).seconds


def convolution_rate(dtype: torch.dtype, side: int = 60, channels: int = 256) -> float:
    """FLOPs a second of a 3x3 convolution on a CPU, channels last; a float32 product may be slower there."""
    layout = torch.channels_last
    maps = torch.randn(1, channels, side, side).to(dtype).contiguous(memory_format=layout)
    weight = torch.randn(channels, channels, 3, 3).to(dtype).contiguous(memory_format=layout)
    with torch.no_grad():
        seconds = measure(lambda: torch.nn.functional.conv2d(maps, weight, padding=1)).seconds
    return 2 * 9 * channels**2 * side**2 / seconds


def report(title: str, parts: dict[str, Measured], rate: float) -> None:
    table = Table(title=title, caption=f"floor: FLOPs over the measured rate, {rate / 1e9:.0f} GFLOP/s")
    for heading in ("part", "ms", "share", "GFLOP", "floor ms", "time / floor"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    total = sum(m.seconds for m in parts.values())
    for name, m in [*parts.items(), ("all", Measured(total, sum(m.flops for m in parts.values())))]:
        floor = m.flops / rate
        ratio = f"{m.seconds / floor:.1f}" if floor else "-"
        row = (
            f"{m.seconds * 1e3:.1f}",
            f"{m.seconds / total:.0%}",
            f"{m.flops / 1e9:.2f}",
            f"{floor * 1e3:.1f}",
        )
        table.add_row(name, *row, ratio)
    Console().print(table)
