"""Training configs: optimisers with their learning-rate schedules, views, batches and validation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import nn

from fewseg.data.episodes import Queries
from fewseg.data.pascal import TrainList
from fewseg.data.protocols import NovelPixels
from fewseg.data.transforms import TrainView
from fewseg.types import check_choices


@dataclass(frozen=True, kw_only=True)
class SGD:
    """SGD with a polynomial schedule: lr (1 - step / steps)^power; power 0 keeps the rate constant.

    Source: PFENet (Tian et al. 2020), Sec. 4.1, and SCL (Zhang et al. 2021), Sec. 5.1: lr 2.5e-3,
    momentum 0.9, weight decay 1e-4, power 0.9.
    """

    lr: float = 2.5e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    power: float = 0.9

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Builds the optimiser."""
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of a step, 0 <= step < steps."""
        return float(self.lr * (1.0 - step / steps) ** self.power)


@dataclass(frozen=True, kw_only=True)
class StepSGD:
    """SGD whose rate falls by a factor every so many steps: lr factor^floor(step / every).

    Source: PANet (Wang et al. 2019), Sec. 4.1, and SRPNet (Ding et al. 2022), Sec. 4.2: lr 1e-3, momentum
    0.9, weight decay 5e-4, x 0.1 every 10 000 of 30 000 steps.
    """

    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    every: int = 10_000
    factor: float = 0.1

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Builds the optimiser."""
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of a step; ``steps`` does not matter."""
        del steps
        return float(self.lr * self.factor ** (step // self.every))


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW with a warm-up and a polynomial schedule; for short runs."""

    lr: float = 5e-4
    weight_decay: float = 1e-2
    power: float = 1.0
    warmup: int = 50

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Builds the optimiser."""
        return torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of a step, 0 <= step < steps."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return float(self.lr * warm * (1.0 - step / steps) ** self.power)


Optimiser = SGD | StepSGD | AdamW


Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run."""

    steps: int = 1000  # optimiser steps.
    # passes over the training images that show a base class; when given, it decides ``steps``.
    epochs: int | None = None
    batch: int = 4  # episodes a step and device.
    shots: int = 1  # K of the training episodes, of each way.
    ways: int = 1  # N of the training episodes.
    view: TrainView = field(default_factory=lambda: TrainView(size=473))  # the random view of every image.
    # 0 draws a fresh view of every image at every step; n > 0 keeps the features of the plain view and of n
    # random views of each image, so that the backbone runs once a view (frozen backbones only; less variety,
    # many times faster).
    cached_views: int = 0
    # "independent" draws every query anew; "epochs" walks the training images, reshuffled on every
    # pass, so that each is a query once before any is one twice (released PFENet, SCL and
    # SD-AANet). Only with ``class_first`` 0.
    queries: Queries = "independent"
    # of PASCAL-5i alone: the training images, "voc+sbd_noval" (5 953, PFENet and SCL) or "trainaug" (10 582,
    # PANet); None for the first.
    train_list: TrainList | None = None
    # share of episodes whose class is drawn first, uniformly; the others draw the query from the image list.
    # PFENet and SCL: 0.
    class_first: float = 0.0
    min_area: int = 2048  # pixels of the original image that a class must cover to count as present.
    drop_novel: bool = False  # leave out training images with a novel class (BAM); off in all three papers.
    # what novel classes are in the training images that stay: "background", as in the papers, or "ignored".
    novel_pixels: NovelPixels = "background"
    # base classes kept out of training to select the checkpoint by; empty keeps the last.
    held_out: tuple[int, ...] = ()
    validate_every: int = 0  # steps between validations on the held-out classes.
    validation_episodes: int = 200  # episodes of one validation.
    save_every: int = 200  # steps between resumable checkpoints.
    optimiser: Optimiser = field(default_factory=SGD)  # with its schedule.
    clip: float | None = None  # largest gradient norm; None does not clip.
    # Fabric's name; bf16 and fp16 keep fp32 weights. "auto" is bf16-mixed where the machine does it well, and
    # 32-true elsewhere; a checkpoint records which it was.
    precision: Precision = "32-true"
    # of the initial weights, the episodes, the dropout, the fresh views and the choice among cached
    # ones (which are drawn once, with seed 0, so that runs can share their features).
    seed: int = 0
    workers: int = 2  # processes that read and transform images (fresh views only).

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.shots, self.ways, self.save_every) < 1:
            raise ValueError(
                f"steps, batch, shots, ways and save_every must be at least 1, got {self.steps}, "
                f"{self.batch}, {self.shots}, {self.ways}, {self.save_every}"
            )
        check_choices(self)
        if self.queries == "epochs" and self.class_first:
            raise ValueError(
                f"queries='epochs' walks the image list, so class_first must be 0, got {self.class_first}"
            )
        if self.validate_every and not self.held_out:
            raise ValueError(
                "validate_every needs held_out base classes: the test fold never selects a checkpoint"
            )

    def for_images(self, images: int, devices: int = 1) -> TrainConfig:
        """The config with ``steps`` worked out from ``epochs``, for images that show a base class."""
        if self.epochs is None:
            return self
        return replace(self, epochs=None, steps=max(1, self.epochs * images // (self.batch * devices)))
