"""Pairs a second of SCL's head and prior for numbers of processes and of threads in each.

Every process scores pairs of its own for some seconds, all at a time, as shares of an evaluation do. More
threads than cores are there to show what they cost.

uv run python benchmarks/layout.py [--size 473] [--seconds 12]
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch
import torch.nn.functional as F
import tyro

from fewseg.backbones import BackboneConfig
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.types import Guides, QueryMaps

LAYOUTS = ((1, 1), (1, 2), (2, 1), (2, 2))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure.

    Attributes:
        size: side of the network's input, pixels; 8k + 1.
        channels: d.
        keys: foreground cells of a support.
        seconds: of each layout.
    """

    size: int = 473
    channels: int = 256
    keys: int = 720
    seconds: float = 12


@torch.no_grad()
def pairs_a_second(settings: Settings, threads: int, bf16: bool) -> float:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    dtype, cells = torch.bfloat16 if bf16 else torch.float32, (settings.size - 1) // 8 + 1
    scales = (cells, cells // 2, cells // 4, (cells + 7) // 8)
    config = SCLPFENetConfig(backbone=BackboneConfig(weights=None), channels=settings.channels, scales=scales)
    model = config.build().eval().to(memory_format=torch.channels_last)

    def maps(channels: int) -> torch.Tensor:
        random = torch.rand(1, channels, cells, cells).to(dtype)
        return random.contiguous(memory_format=torch.channels_last)

    query = QueryMaps(mid=maps(settings.channels), prior=maps(2048))
    guide = Guides(
        maps={"vectors": torch.rand(1, 2, settings.channels).to(dtype)},
        keys=F.normalize(torch.rand(1, 1, settings.keys, 2048), dim=-1).to(dtype),
        valid=torch.ones(1, 1, settings.keys, dtype=torch.bool),
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        model.score(query, guide)
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < settings.seconds:
            model.score(query, guide)
            done += 1
    return done / (time.perf_counter() - start)


def main(settings: Settings) -> None:
    for bf16 in (False, True):
        for processes, threads in LAYOUTS:
            with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
                runs = [pool.submit(pairs_a_second, settings, threads, bf16) for _ in range(processes)]
                rate = sum(run.result() for run in runs)
            kind = "bf16" if bf16 else "fp32"
            print(
                f"{kind}: {processes} processes of {threads} threads: {rate:.1f} pairs a second", flush=True
            )


if __name__ == "__main__":
    main(tyro.cli(Settings))
