"""Training the small backbone from scratch: which base class does each cell show?

This stands for the ImageNet training that published backbones come with. The unseen classes of the fold
are in no picture that it sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from fewseg.backbones import BackboneConfig
from fewseg.data.draws import Draws
from fewseg.data.source import Source
from fewseg.demo.options import PretrainConfig
from fewseg.ops.files import atomic_write_bytes
from fewseg.ops.progress import progress_bar
from fewseg.types import IGNORE

STRIDE = 8


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Pictures and the class of each cell of the backbone's map."""

    images: Tensor  # (n, 3, H, W) uint8
    classes: Tensor  # (n, h, w) int64: 0 background, k the k-th base class from 1, 255 ignore
    names: int  # how many classes there are, background included


def read_cells(source: Source, ids: Sequence[str], base: Sequence[int]) -> Cells:
    """Reads pictures and the class of each cell, that of its central pixel; unlisted ones are background."""
    lookup = torch.zeros(256, dtype=torch.long)
    lookup[torch.tensor(base)] = torch.arange(1, len(base) + 1)
    lookup[IGNORE] = IGNORE
    images = torch.stack([source.read_image(id) for id in ids])
    labels = torch.stack([source.read_labels(id) for id in ids])
    return Cells(images=images, classes=lookup[labels[:, ::STRIDE, ::STRIDE].long()], names=len(base) + 1)


def augment(images: Tensor, classes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirrors uint8 pictures with their classes, and permutes and shifts their colours; about [0, 1]."""
    n = len(images)
    order = torch.stack([torch.randperm(3, generator=generator) for _ in range(n)])
    mixed = images[torch.arange(n)[:, None], order].float() / 255
    mirror = torch.rand(n, generator=generator) < 0.5
    mixed[mirror] = mixed[mirror].flip(-1)
    classes = classes.clone()
    classes[mirror] = classes[mirror].flip(-1)
    contrast = 0.8 + 0.4 * torch.rand(n, 1, 1, 1, generator=generator)
    shift = 0.15 * (2 * torch.rand(n, 3, 1, 1, generator=generator) - 1)
    return (mixed - 0.5) * contrast + 0.5 + shift, classes


class CellTraining:
    """A backbone in training, with a linear classifier of cells for each of its levels."""

    def __init__(self, backbone: BackboneConfig, config: PretrainConfig, cells: Cells, *, seed: int) -> None:
        self.config, self.cells, self.seed = config, cells, seed
        trunk = replace(backbone, weights=None, trainable=True, bn="train").build().train()
        self.trunk = trunk.to(memory_format=torch.channels_last)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(Draws("cell classifiers", seed).below(2**63))
            self.heads = nn.ModuleDict(
                {level: nn.Conv2d(c, cells.names, 1) for level, c in trunk.channels.items()}
            )
        parameters = [*trunk.parameters(), *self.heads.parameters()]
        self.optimiser = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, config.lr, total_steps=config.steps, pct_start=0.15
        )
        self.weight = torch.ones(cells.names)
        self.weight[0] = config.background

    def step(self, number: int) -> tuple[Tensor, Tensor]:
        """Trains on one batch; returns its cells' true classes and those that the deepest level gave."""
        images, classes = _batch(self.cells, self.config.batch, self.seed, number)
        maps = self.trunk(images.contiguous(memory_format=torch.channels_last)).maps
        logits = {level: head(maps[level]) for level, head in self.heads.items()}
        losses = [F.cross_entropy(x, classes, self.weight, ignore_index=IGNORE) for x in logits.values()]
        loss = torch.stack(losses).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
        return classes, logits[max(logits)].argmax(dim=1)


def pretrain(
    backbone: BackboneConfig, config: PretrainConfig, cells: Cells, path: Path, *, seed: int, progress: bool
) -> float:
    """Trains a backbone, writes its trunk to a file and returns the accuracy on objects' cells at the end."""
    training = CellTraining(backbone, config, cells, seed=seed)
    right = total = 0
    with progress_bar(progress) as bar:
        task = bar.add_task("training the backbone", total=config.steps)
        for step in range(config.steps):
            classes, named = training.step(step)
            if step >= 0.9 * config.steps:
                objects = (classes > 0) & (classes != IGNORE)
                right += int((named == classes)[objects].sum())
                total += int(objects.sum())
            bar.update(task, completed=step + 1)
    state = training.trunk.trunk.state_dict()
    atomic_write_bytes(path, save({k: v.contiguous() for k, v in state.items()}))
    return right / max(total, 1)


def _batch(cells: Cells, batch: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """The pictures of a step: every picture once before any comes again."""
    n = len(cells.images)
    places = [divmod(step * batch + k, n) for k in range(batch)]
    chosen = torch.tensor([_order(n, seed, lap)[position] for lap, position in places])
    generator = torch.Generator().manual_seed(Draws("pre-training view", seed, step).below(2**63))
    return augment(cells.images[chosen], cells.classes[chosen], generator)


@lru_cache(maxsize=2)
def _order(n: int, seed: int, lap: int) -> tuple[int, ...]:
    return Draws("pre-training order", seed, lap).sample(range(n), n)
