"""How much training fits into the time on this machine: a probe, smaller pictures, then fewer steps."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from fewseg.demo.options import DemoOptions
from fewseg.demo.pretrain import Cells, CellTraining

_PROBE_SECONDS = 5.0
_SMALL, _FEWER = 97, 0.6  # side of smaller pictures, share of their number; fewer steps cost more points
_SHARES = ((1.0, 1.0), (0.75, 0.8), (0.5, 0.64))  # of the backbone's and the heads' steps

# In steps of the backbone with as many images: a step of both heads, and, at 129 pixels, all the rest; and by
# which power of the side a step's cost goes. Measured on an EPYC with AVX2.
_HEADS, _REST = 1.4, 350
_POWER = 1.2


def seconds_per_step(options: DemoOptions, limit: float = _PROBE_SECONDS) -> float:
    """Wall time of a step of the backbone's training on noise: the median of those that the limit allows."""
    generator = torch.Generator().manual_seed(0)
    count, cells = options.pretrain.batch, options.size // 8 + 1
    images = torch.randint(256, (count, 3, options.size, options.size), generator=generator).byte()
    classes = torch.randint(16, (count, cells, cells), generator=generator)
    noise = Cells(images=images, classes=classes, names=16)
    training = CellTraining(options.backbone(None), options.pretrain, noise, seed=options.seed)
    started = time.perf_counter()
    training.step(0)  # the first is slower
    times, done = [time.perf_counter() - started], 1
    while done < options.pretrain.steps and time.perf_counter() - started < limit:
        began = time.perf_counter()
        training.step(done)
        times.append(time.perf_counter() - began)
        done += 1
    return sorted(times)[len(times) // 2]


def expected_seconds(options: DemoOptions, step: float, size: int) -> float:
    """Of the whole demo, where a step at a size takes so long."""
    scaled_step: float = step * (options.size / size) ** _POWER
    heads = _HEADS * options.steps * options.batch / options.pretrain.batch
    return scaled_step * (options.pretrain.steps + heads) + _REST * step * (129 / size) ** 2


def planned(options: DemoOptions, step: float) -> tuple[DemoOptions, float]:
    """The options with as much training as their ``minutes`` allow, and the seconds to expect.

    Args:
        options: as given.
        step: seconds of a step of the backbone's training at the options' size.
    """
    plan, seconds = options, expected_seconds(options, step, options.size)
    for backbone, heads in _SHARES:
        if seconds <= 60 * options.minutes:
            break
        plan = replace(
            options,
            size=min(_SMALL, options.size),
            train_images=max(1, round(_FEWER * options.train_images)),
            steps=max(1, round(heads * options.steps)),
            pretrain=replace(options.pretrain, steps=max(1, round(backbone * options.pretrain.steps))),
        )
        seconds = expected_seconds(plan, step, options.size)
    return plan, seconds


def explained(options: DemoOptions, plan: DemoOptions, step: float, seconds: float) -> str:
    """What was chosen, and what to expect, in a line for the terminal."""
    usual = expected_seconds(options, step, options.size)
    if plan == options:
        return f"a training step takes {step:.2f} s here: about {_minutes(seconds)} in all"
    return (
        f"a training step takes {step:.2f} s here, which would be about {_minutes(usual)} in all: pictures "
        f"of {plan.size} pixels and {plan.pretrain.steps} + {plan.steps} training steps are used, about "
        f"{_minutes(seconds)} (--minutes 0 for pictures of {options.size} and {options.pretrain.steps} + "
        f"{options.steps} steps)"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
