"""What a training run is made of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from fewseg.data.transforms import TrainView
from fewseg.engine.optimiser import SGD, Optimiser

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run.

    Attributes:
        steps: optimiser steps.
        epochs: passes over the training images that show a base class; when given, it decides ``steps``.
        batch: episodes a step and device.
        shots: K of the training episodes, of each way.
        ways: N of the training episodes.
        view: the random view of every image.
        cached_views: 0 draws a fresh view of every image at every step; n > 0 keeps the features of the
            plain view and of n random views of each image, so that the backbone runs once a view
            (frozen backbones only; less variety, many times faster).
        class_first: share of episodes whose class is drawn first, uniformly; the others draw the query
            from the image list. PFENet and SCL: 0.
        min_area: pixels of the original image that a class must cover to count as present.
        drop_novel: leave out training images with a novel class (BAM); off in all three papers.
        held_out: base classes kept out of training to select the checkpoint by; empty keeps the last.
        validate_every: steps between validations on the held-out classes.
        validation_episodes: episodes of one validation.
        save_every: steps between resumable checkpoints.
        optimiser: with its schedule.
        clip: largest gradient norm; None does not clip.
        precision: Fabric's name; bf16 and fp16 keep fp32 weights.
        seed: of the initial weights, the episodes, the dropout, the fresh views and the choice among cached
            ones (which are drawn once, with seed 0, so that runs can share their features).
        workers: processes that read and transform images (fresh views only).
    """

    steps: int = 1000
    epochs: int | None = None
    batch: int = 4
    shots: int = 1
    ways: int = 1
    view: TrainView = field(default_factory=lambda: TrainView(size=473))
    cached_views: int = 0
    class_first: float = 0.0
    min_area: int = 2048
    drop_novel: bool = False
    held_out: tuple[int, ...] = ()
    validate_every: int = 0
    validation_episodes: int = 200
    save_every: int = 200
    optimiser: Optimiser = field(default_factory=SGD)
    clip: float | None = None
    precision: Precision = "32-true"
    seed: int = 0
    workers: int = 2

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.shots, self.ways, self.save_every) < 1:
            raise ValueError(
                f"steps, batch, shots, ways and save_every must be at least 1, got {self.steps}, "
                f"{self.batch}, {self.shots}, {self.ways}, {self.save_every}"
            )
        if self.validate_every and not self.held_out:
            raise ValueError(
                "validate_every needs held_out base classes: the test fold never selects a checkpoint"
            )

    def for_images(self, images: int, devices: int = 1) -> TrainConfig:
        """The config with ``steps`` worked out from ``epochs``.

        Args:
            images: training images of the fold that show a base class.
            devices: processes that share a step.
        """
        if self.epochs is None:
            return self
        return replace(self, epochs=None, steps=max(1, self.epochs * images // (self.batch * devices)))
