"""How a number is measured, as a value: every field of it is printed beside the number."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from fewseg.types import check_choices

logger = logging.getLogger(__name__)

PASCAL_MIN_AREA = 2 * 32 * 32

LabelSize = Literal["original", "network"] | int
FusionRule = Literal["any", "mean", "average", "attention", "cross-guided", "iterative", "vote"]

NovelPixels = Literal["background", "ignored"]
"""What pixels of classes that training must not see are in its label maps."""

ADDED: Mapping[str, Any] = {
    "aspect": "kept",
    "backbone_bn": "eval",
    "coco_split": "B",
    "fusion": "any",
    "novel_pixels": "background",
}
"""Fields that older results have not, and what those were measured with. With these values a field is no part
of the digest, so that older and newer results share a table."""

_SPLIT_OF: Mapping[str, str] = {
    name + suffix: letter
    for name in ("coco-20i", "coco-40-20-20", "coco-to-voc", "voc-to-coco")
    for suffix, letter in (("", "B"), ("-a", "A"))
}
"""Name of a class split built from COCO-20i's folds -> which of its two splits."""


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
            at the network's input size; a number of pixels scores prediction and label in a square of that
            side, as PFENet's second COCO figures (473).
        drop_novel_training_images: leave training images that show a novel class out (BAM) instead of
            keeping them. Moves mIoU by 2-3 points, so it is printed with every result.
        novel_pixels: what the pixels of novel classes are in the training images that stay: "background", as
            in the papers, or "ignored", in no loss and in no prototype.
        aspect: of the image in the network's square: "kept" pads what is left, "stretched" fills the square.
        backbone_bn: "train" where a frozen backbone's batch-norm follows the training images, as in the code
            released with PFENet, SCL and SD-AANet; "eval" where it keeps the stored statistics.
        coco_split: of COCO-20i and of the splits built from its folds: "B" is interleaved, "A" blocks of 20
            (PANet). Other sets do not look at it.
        fusion: the one fusion that K > 1 shots may be joined by; "any" leaves it to each line of a recipe,
            and the result states which it was.
    """

    name: str
    episodes: int = 1000
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    query_order: Literal["list", "class_first"] = "list"
    distinct_supports: bool = True
    min_area: int = PASCAL_MIN_AREA
    label_size: LabelSize = "original"
    drop_novel_training_images: bool = False
    novel_pixels: NovelPixels = "background"
    aspect: Literal["kept", "stretched"] = "kept"
    backbone_bn: Literal["eval", "train"] = "eval"
    coco_split: Literal["B", "A"] = "B"
    fusion: FusionRule = "any"

    def __post_init__(self) -> None:
        if self.episodes < 1 or not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(
                f"protocol {self.name!r}: got {self.episodes} episodes and seeds {self.seeds}; "
                "give one episode at least and one or more different seeds"
            )
        fixed = isinstance(self.label_size, int) and self.label_size > 0
        if not fixed and self.label_size not in ("original", "network"):
            raise ValueError(
                f"protocol {self.name!r}: label_size must be 'original', 'network' or a number of pixels, "
                f"got {self.label_size!r}"
            )
        check_choices(self, f"protocol {self.name!r}: ")
        if self.min_area < 1:
            raise ValueError(f"protocol {self.name!r}: min_area is 1 pixel at least, got {self.min_area}")

    def digest(self) -> str:
        """Returns 12 hex digits of the SHA-256 of the fields as canonical JSON.

        Fields that have the value they have in ``ADDED`` are left out.
        """
        fields = {k: v for k, v in asdict(self).items() if k not in ADDED or v != ADDED[k]}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def of_test(self) -> Protocol:
        """Returns the protocol with the usual rules for novel classes in training images."""
        return replace(self, drop_novel_training_images=False, novel_pixels="background")

    def line(self) -> str:
        """Returns the protocol as one line of text."""
        supports = "distinct supports" if self.distinct_supports else "supports may repeat"
        novel = (
            "training images with novel classes DROPPED"
            if self.drop_novel_training_images
            else f"novel classes in training images are {self.novel_pixels}"
        )
        fixed = isinstance(self.label_size, int)
        size = f"{self.label_size} x {self.label_size} px" if fixed else f"{self.label_size} size"
        joined = "" if self.fusion == "any" else f", shots joined by {self.fusion}"
        return (
            f"{self.name}: {len(self.seeds)} seeds x {self.episodes} episodes, "
            f"query order {self.query_order}, {supports}, class present from {self.min_area} px, "
            f"labels at {size}, aspect {self.aspect}, {novel}, COCO split {self.coco_split}, "
            f"backbone batch-norm {self.backbone_bn}{joined} [{self.digest()}]"
        )

    def check_split(self, split_name: str) -> None:
        """Checks that a class split built from COCO-20i's folds is of the protocol's split.

        Raises:
            ValueError: it is the other one.
        """
        of_name = _SPLIT_OF.get(split_name, self.coco_split)
        if of_name != self.coco_split:
            raise ValueError(
                f"protocol {self.name!r} is of COCO's split {self.coco_split}, the data of split {of_name}: "
                f"give data of split {self.coco_split}, or set coco_split={of_name!r} in the protocol"
            )


def stored_protocol(stored: Mapping[str, Any]) -> Protocol | None:
    """The protocol of a result file; None where the file's is of a different kind or of a newer fewseg."""
    values = {key: value for key, value in stored.items() if key != "type"}
    known = {field.name for field in fields(Protocol)}
    if stored.get("type") != "Protocol" or not set(values) <= known:
        return None
    return Protocol(**{**values, "seeds": tuple(values.get("seeds", Protocol.seeds))})


PAPER_SCL = Protocol(name="paper-scl", query_order="list")
"""SCL (Zhang et al. 2021), Sec. 5: 1000 episodes, 5 runs, queries from the validation list."""

PAPER_SRPNET = Protocol(name="paper-srpnet", query_order="class_first", min_area=1, aspect="stretched")
"""SRPNet (Ding et al. 2022), Sec. 4.1: 1000 episodes, 5 runs; Sec. 4.2: images resized to 417 x 417.

Sec. 3.1 states for the *training* set that one pixel makes a class present, and for the test set only that it
is "randomly sampled": that one pixel counts there too, and that the class is drawn first, is inferred."""

VOC5I_MINI = Protocol(name="voc5i-mini", query_order="class_first")
"""The small real set: its lists are uneven, so the class is drawn first."""

COCO_MINI = replace(VOC5I_MINI, name="coco-mini", min_area=1024)
"""The second small real set, whose things are smaller."""

SYNTHETIC = Protocol(name="synthetic", query_order="class_first", episodes=200, seeds=(0, 1), min_area=64)
"""The rendered set of the demo: small images, so a class counts from 64 pixels."""


PAPER_SDAANET = Protocol(name="paper-sdaanet", fusion="mean")
"""SD-AANet (Zhao et al. 2022), Sec. IV-A: 1000 pairs, 5 rounds, labels at their original size."""

PAPER_SDAANET_COCO = replace(PAPER_SDAANET, episodes=4000)
"""The same section: 4000 pairs on COCO."""

PAPER_SDAANET_COCO_473 = replace(PAPER_SDAANET_COCO, name="paper-sdaanet-473", label_size=473)
"""Its Table II, rows with a dagger: labels at 473 x 473, aspect kept."""

PFENET = Protocol(name="pfenet", episodes=5000, seeds=(0,), fusion="mean")
"""PFENet (Tian et al. 2020): 5000 episodes on PASCAL, in one run; several shots by the mean vector."""

PFENET_COCO = replace(PFENET, episodes=20_000)
"""The same: 20 000 on COCO."""

PFENET_COCO_473 = replace(PFENET_COCO, name="pfenet-473", label_size=473)
"""PFENet's second COCO figures, labels at 473 x 473 (SD-AANet, Table II, quotes them with a dagger)."""

HSNET = Protocol(name="hsnet", seeds=(0,), distinct_supports=False, label_size="network", aspect="stretched")
"""HSNet (Min et al. 2021): 1000 episodes, supports may repeat, images and labels stretched to the network's
size. It joins K shots by a vote, which is a part of the method: a line here states its own fusion.

Deviations: its own image lists are filtered by a rule that is not published; here it is the 2048 pixels of
the others. On PASCAL its code walks a list of (image, class) pairs, so that an image of two novel classes is
a query for each; the order "list" here walks images and draws one of the classes."""

HSNET_COCO = replace(HSNET, query_order="class_first")
"""The same on COCO, where the class is drawn first."""

_PASCAL = {
    "paper_scl": PAPER_SCL,
    "paper_srpnet": PAPER_SRPNET,
    "paper_sdaanet": PAPER_SDAANET,
    "pfenet": PFENET,
    "hsnet": HSNET,
}
_COCO = _PASCAL | {
    "paper_sdaanet": PAPER_SDAANET_COCO,
    "paper_sdaanet_473": PAPER_SDAANET_COCO_473,
    "pfenet": PFENET_COCO,
    "pfenet_473": PFENET_COCO_473,
    "hsnet": HSNET_COCO,
}

PROTOCOLS: Mapping[str, Mapping[str, Protocol]] = {
    "pascal-5i": _PASCAL,
    "coco-20i": _COCO,
    "coco-20i-a": {k: replace(p, coco_split="A") for k, p in _COCO.items()},
    "coco-40-20-20": {"paper_srpnet": PAPER_SRPNET},
    "voc5i-mini": _PASCAL,
}
"""Data set -> name -> protocol: episodes and query order of one name may differ between data sets.

COCO in 40/20/20 classes is SRPNet's alone (its Sec. 4.5); voc5i-mini has PASCAL's images and folds."""


def named_protocol(name: str, dataset: str = "pascal-5i") -> Protocol:
    """Returns a protocol by its name.

    Args:
        name: such as "paper_scl" or "paper-scl".
        dataset: one of ``PROTOCOLS``, such as "pascal-5i" or "coco-20i".

    Raises:
        ValueError: the protocol or data set is unknown; near names are given.
    """
    if dataset not in PROTOCOLS:
        raise ValueError(f"no protocol is published for {dataset!r}: choose of {sorted(PROTOCOLS)}")
    known = PROTOCOLS[dataset]
    key = name.replace("-", "_")
    if key not in known:
        near = difflib.get_close_matches(key, known) or list(known)
        raise ValueError(f"unknown protocol {name!r} for {dataset}: did you mean {' or '.join(near)}?")
    return known[key]


def protocol_of_any(name: str, dataset: str) -> Protocol:
    """Returns a protocol by its name for any data set, also one that nobody published it for."""
    if dataset in PROTOCOLS:
        return named_protocol(name, dataset)
    of_pascal = named_protocol(name)
    logger.warning(
        "nobody published the protocol %s for %s: it has the values for PASCAL-5i", of_pascal.name, dataset
    )
    return replace(of_pascal, name=f"{of_pascal.name} of pascal-5i")
