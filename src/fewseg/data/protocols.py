"""How a number is measured, as a value: every field of it is printed beside the number."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

PASCAL_MIN_AREA = 2 * 32 * 32


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """An evaluation protocol.

    Attributes:
        name: what tables call it.
        episodes: episodes per seed.
        seeds: one run of ``episodes`` for each; the reported spread is over them.
        query_order: "list" walks all test images, reshuffled on every pass (each image is a query once
            before any is one twice), and draws a class among those present in it, as the PFENet family
            does; "class_first" draws the class uniformly, then the query among its images.
        distinct_supports: no image serves twice in one support set (HSNet's lists allow repeats).
        min_area: pixels a class must cover to count as present in an image.
        label_size: "original" scores the prediction resized to the label's own size; "network" scores
            at the network's input size.
        drop_novel_training_images: leave training images that show a novel class out (BAM) instead of
            calling those pixels background. Moves mIoU by 2-3 points, so it is printed with every result.
    """

    name: str
    episodes: int = 1000
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    query_order: Literal["list", "class_first"] = "list"
    distinct_supports: bool = True
    min_area: int = PASCAL_MIN_AREA
    label_size: Literal["original", "network"] = "original"
    drop_novel_training_images: bool = False

    def __post_init__(self) -> None:
        if self.episodes < 1 or not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(
                f"protocol {self.name!r}: got {self.episodes} episodes and seeds {self.seeds}; "
                "give one episode at least and one or more different seeds"
            )
        if self.query_order not in ("list", "class_first") or self.label_size not in ("original", "network"):
            raise ValueError(
                f"protocol {self.name!r}: query_order is 'list' or 'class_first' and label_size 'original' "
                f"or 'network'; got {self.query_order!r} and {self.label_size!r}"
            )
        if self.min_area < 1:
            raise ValueError(f"protocol {self.name!r}: min_area is 1 pixel at least, got {self.min_area}")

    def digest(self) -> str:
        """Returns 12 hex digits of the SHA-256 of the fields as canonical JSON."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def line(self) -> str:
        """Returns the protocol as one line of text."""
        supports = "distinct supports" if self.distinct_supports else "supports may repeat"
        novel = (
            "training images with novel classes DROPPED"
            if self.drop_novel_training_images
            else "novel classes in training images are background"
        )
        return (
            f"{self.name}: {len(self.seeds)} seeds x {self.episodes} episodes, "
            f"query order {self.query_order}, {supports}, class present from {self.min_area} px, "
            f"labels at {self.label_size} size, {novel} [{self.digest()}]"
        )


PAPER_SCL = Protocol(name="paper-scl", query_order="list")
"""SCL (Zhang et al. 2021), Sec. 5: 1000 episodes, 5 runs, queries from the validation list."""

PAPER_SRPNET = Protocol(name="paper-srpnet", query_order="class_first", min_area=1)
"""SRPNet (Ding et al. 2022), Sec. 3.1 and 4.1: 1000 episodes, 5 runs; one pixel makes a class present."""

VOC5I_MINI = Protocol(name="voc5i-mini", query_order="class_first")
"""The small real set: its lists are uneven, so the class is drawn first."""

SYNTHETIC = Protocol(name="synthetic", query_order="class_first", episodes=200, seeds=(0, 1), min_area=64)
"""The rendered set of the demo: small images, so a class counts from 64 pixels."""
