"""Which rate (eta of SRPNet's Eq. 12) to iterate prototypes with: mIoU on base classes held out of training.

The test fold's classes are never touched. Train with classes held out, then give the checkpoint:

uv run fewseg train voc5i_mini_srpnet_stretched --fold 1 --train.held-out 5 13 18 19 --out runs/held-out
uv run python benchmarks/iteration_rate.py runs/held-out/best.safetensors --no-guard
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.table import Table

from fewseg.data.episodes import EpisodeSampler
from fewseg.engine.checkpoint import load_checkpoint
from fewseg.engine.evaluate import Evaluator, Line
from fewseg.methods.fusion import IterativeInference, MeanVector
from fewseg.metrics import miou
from fewseg.recipes.registry import recipe
from fewseg.recipes.run import training_store


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to try.

    Attributes:
        checkpoint: trained with ``--train.held-out``.
        rates: candidates.
        steps: N.
        guard: as of ``IterativeInference``; without it Eq. 12 is as printed.
        episodes: for each of 1 and 5 shots.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    rates: tuple[float, ...] = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
    steps: int = 5
    guard: bool = True
    episodes: int = 300


def main(choice: Choice) -> None:
    method, about = load_checkpoint(choice.checkpoint)
    chosen, held_out = recipe(about.recipe), tuple(about.training["config"]["held_out"])
    if not held_out:
        raise SystemExit(f"{choice.checkpoint} was trained on all base classes: give --train.held-out")
    data = chosen.read(about.class_split["fold"])
    protocol = replace(chosen.protocol, episodes=choice.episodes, seeds=(0,))
    store = training_store(chosen, method, data)
    precision = "bf16" if store.dtype == torch.bfloat16 else "fp32"
    evaluator = Evaluator(method, data.source, store, precision=precision, progress=False)
    table = Table(title=f"held-out classes {held_out}, {choice.episodes} episodes, mIoU in percent")
    for heading in ("rate", "1-shot query", "1-shot supports", "5-shot query", "5-shot supports"):
        table.add_column(heading, justify="right")
    fusions = [
        MeanVector(),
        *(IterativeInference(steps=choice.steps, rate=r, guard=choice.guard) for r in choice.rates),
    ]
    samplers = [EpisodeSampler(data.train, data.split, protocol, shots, classes=held_out) for shots in (1, 5)]
    lines = [
        Line(episodes=sampler, fusion=fusion, on=on)
        for fusion in fusions
        for sampler in samplers
        for on in ("query", "support")
    ]
    cells = [f"{100 * miou(counts, held_out):.1f}" for counts in evaluator.run(lines)]
    for row, fusion in enumerate(fusions):
        name = "-" if isinstance(fusion, MeanVector) else f"{fusion.rate:g}"
        table.add_row(name, *cells[4 * row : 4 * row + 4])
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Choice))
