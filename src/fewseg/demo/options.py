"""The options of ``fewseg demo``: one small fold, its sizes and its steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fewseg.backbones import BackboneConfig, ResNetShape
from fewseg.data.protocols import Protocol


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Training of the small backbone from scratch, in place of ImageNet weights."""

    steps: int = 1200  # optimiser steps.
    batch: int = 8  # images a step.
    lr: float = 2e-3  # highest learning rate of AdamW; one cycle, warm-up and then a cosine to zero.
    weight_decay: float = 0.02  # of AdamW.
    background: float = 0.3  # weight of background cells in the cross-entropy; objects weigh 1.


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The whole demo, in about five minutes: a probe of the machine first states the time.

    Where the training as given takes longer, pictures are smaller (97 pixels) and fewer, then steps fewer.
    """

    minutes: float = 5.0  # that it may take; 0 for the training as given, however long that takes.
    out: Path = Path("fewseg-demo")  # folder for the report, the results and the checkpoints.
    seed: int = 0  # of the pictures, the weights, the episodes and the order of training.
    fold: int = 0  # which five of the twenty classes are unseen in training, 0 to 3.
    size: int = 129  # side of the pictures, pixels; 8k + 1.
    train_images: int = 2000  # rendered pictures of the fifteen base classes.
    test_images: int = 400  # rendered pictures of all twenty classes.
    shape: ResNetShape = field(
        default_factory=lambda: ResNetShape(layers=(2, 2, 3, 1), channels=(32, 64, 128, 128), stem_width=16)
    )
    """size of the backbone; stages after layer3 are not built."""
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)  # how the backbone is trained.
    width: int = 24  # channels of both heads; wider ones need more steps to find as much.
    steps: int = 1250  # training steps of each head.
    batch: int = 8  # episodes a step.
    lr: float = 2e-3  # highest learning rate of the heads, AdamW with a linear fall to zero.
    episodes: int = 200  # test episodes per seed.
    test_seeds: tuple[int, ...] = (0, 1)  # test seeds.
    shots: int = 5  # K of the few-shot rows beside 1-shot.
    threads: int = 2  # CPU threads. Sums are split by threads, so a different number gives different digits.
    progress: bool = True  # show progress: bars in a terminal, lines elsewhere.

    def __post_init__(self) -> None:
        if self.size % 8 != 1 or self.size < 65:
            raise ValueError(f"size must be 8k + 1 and 65 at least (such as 129), got {self.size}")
        if self.shots < 2 or self.threads < 1:
            raise ValueError(
                f"shots must be 2 or more and threads 1 or more, got {self.shots}, {self.threads}"
            )
        if not self.minutes >= 0:
            raise ValueError(f"minutes must be 0 or more, got {self.minutes}")

    def backbone(self, weights: Path | None) -> BackboneConfig:
        """The frozen trunk, with the weights of a file or, for None, untrained."""
        return BackboneConfig(
            name="resnet18",
            weights=None if weights is None else str(weights),
            levels=("layer2", "layer3"),
            shape=self.shape,
            seed=self.seed,
        )

    @property
    def protocol(self) -> Protocol:
        """How all methods are tested: every class equally often, labels at the pictures' own size."""
        return Protocol(
            name="synthetic",
            query_order="class_first",
            episodes=self.episodes,
            seeds=self.test_seeds,
            min_area=round(0.01 * self.size**2),
        )
