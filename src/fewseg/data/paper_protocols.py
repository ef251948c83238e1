"""The protocols of papers and of their released code, by name and data set."""

from __future__ import annotations

import difflib
import logging
from dataclasses import replace
from types import MappingProxyType

from fewseg.data.protocols import PAPER_SCL, PAPER_SRPNET, Protocol

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

HSNET = Protocol(
    name="hsnet",
    seeds=(0,),
    distinct_supports=False,
    label_size="network",
    aspect="stretched",
)
"""HSNet (Min et al. 2021): 1000 episodes, supports may repeat, images and labels stretched to the network's
size. It joins K shots by a vote, which is a part of the method: a line here says its own fusion.

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

PROTOCOLS: MappingProxyType[str, MappingProxyType[str, Protocol]] = MappingProxyType(
    {
        "pascal-5i": MappingProxyType(_PASCAL),
        "coco-20i": MappingProxyType(_COCO),
        "coco-20i-a": MappingProxyType({k: replace(p, coco_split="A") for k, p in _COCO.items()}),
        "coco-40-20-20": MappingProxyType({"paper_srpnet": PAPER_SRPNET}),
        "voc5i-mini": MappingProxyType(_PASCAL),
    }
)
"""Data set -> name -> protocol: episodes and query order of one name may differ between data sets.

COCO in 40/20/20 classes is SRPNet's alone (its Sec. 4.5); voc5i-mini has PASCAL's images and folds."""

logger = logging.getLogger(__name__)


def named_protocol(name: str, dataset: str = "pascal-5i") -> Protocol:
    """Returns a protocol by its name.

    Args:
        name: such as "paper_scl" or "paper-scl".
        dataset: one of ``PROTOCOLS``, such as "pascal-5i" or "coco-20i".

    Raises:
        ValueError: there is no such protocol or data set; near names are given.
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
    """Returns a protocol by its name for any data set, also one that nobody published it for.

    There it has the values for PASCAL-5i; a warning and its own name say so.

    Args:
        name: as of :func:`named_protocol`.
        dataset: any.

    Raises:
        ValueError: there is no such protocol; near names are given.
    """
    if dataset in PROTOCOLS:
        return named_protocol(name, dataset)
    of_pascal = named_protocol(name)
    logger.warning(
        "nobody published the protocol %s for %s: it has the values for PASCAL-5i", of_pascal.name, dataset
    )
    return replace(of_pascal, name=f"{of_pascal.name} of pascal-5i")
