"""Every value of every published protocol, written down from the papers a second time."""

from __future__ import annotations

import dataclasses

import pytest

from fewseg.data.protocols import PROTOCOLS, named_protocol, protocol_of_any

FIVE = (0, 1, 2, 3, 4)
ALIKE = {"drop_novel_training_images": False, "backbone_bn": "eval"}
"""No paper drops training images with novel classes; a frozen backbone stays in eval mode."""

SCL = {  # Sec. 5.1 and 5.2: 1000 pairs, 5 runs, otherwise as PFENet; Table 4 compares three fusions
    "name": "paper-scl",
    "episodes": 1000,
    "seeds": FIVE,
    "query_order": "list",
    "distinct_supports": True,
    "min_area": 2048,
    "label_size": "original",
    "aspect": "kept",
    "fusion": "any",
}
SRPNET = {  # Sec. 4.1: 5 runs of 1000 episodes; one pixel is Sec. 3.1's, of the training set
    "name": "paper-srpnet",
    "episodes": 1000,
    "seeds": FIVE,
    "query_order": "class_first",
    "distinct_supports": True,
    "min_area": 1,
    "label_size": "original",
    "aspect": "kept",
    "fusion": "any",
}
SDAANET = {  # Sec. IV-A: 1000 pairs, five rounds; Table II: labels of the original size; mean prototype
    "name": "paper-sdaanet",
    "episodes": 1000,
    "seeds": FIVE,
    "query_order": "list",
    "distinct_supports": True,
    "min_area": 2048,
    "label_size": "original",
    "aspect": "kept",
    "fusion": "mean",
}
PFENET = {  # 5000 episodes on PASCAL in one run; mean of the K support vectors
    "name": "pfenet",
    "episodes": 5000,
    "seeds": (0,),
    "query_order": "list",
    "distinct_supports": True,
    "min_area": 2048,
    "label_size": "original",
    "aspect": "kept",
    "fusion": "mean",
}
HSNET = {  # 1000 episodes, supports may repeat, everything at the network's size; the vote is the method's
    "name": "hsnet",
    "episodes": 1000,
    "seeds": (0,),
    "query_order": "list",
    "distinct_supports": False,
    "min_area": 2048,
    "label_size": "network",
    "aspect": "stretched",
    "fusion": "any",
}
PASCAL = {
    "paper_scl": SCL,
    "paper_srpnet": SRPNET,
    "paper_sdaanet": SDAANET,
    "pfenet": PFENET,
    "hsnet": HSNET,
}
COCO = {
    "paper_scl": SCL,
    "paper_srpnet": SRPNET,
    "paper_sdaanet": {**SDAANET, "episodes": 4000},
    "paper_sdaanet_473": {**SDAANET, "episodes": 4000, "name": "paper-sdaanet-473", "label_size": 473},
    "pfenet": {**PFENET, "episodes": 20_000},
    "pfenet_473": {**PFENET, "episodes": 20_000, "name": "pfenet-473", "label_size": 473},
    "hsnet": {**HSNET, "query_order": "class_first"},
}
TABLE = {
    **{("pascal-5i", name): {**fields, "coco_split": "B"} for name, fields in PASCAL.items()},
    **{("voc5i-mini", name): {**fields, "coco_split": "B"} for name, fields in PASCAL.items()},
    **{("coco-20i", name): {**fields, "coco_split": "B"} for name, fields in COCO.items()},
    **{("coco-20i-a", name): {**fields, "coco_split": "A"} for name, fields in COCO.items()},
    ("coco-40-20-20", "paper_srpnet"): {**SRPNET, "coco_split": "B"},
}


@pytest.mark.parametrize(("dataset", "name"), TABLE)
def test_every_value_of_a_published_protocol_is_the_papers(dataset, name):
    assert dataclasses.asdict(named_protocol(name, dataset)) == {**ALIKE, **TABLE[dataset, name]}


def test_there_is_no_published_protocol_beside_those_of_the_table():
    assert {(dataset, name) for dataset, named in PROTOCOLS.items() for name in named} == set(TABLE)


def test_on_a_data_set_that_nobody_published_it_for_a_protocol_says_whose_values_it_has(caplog):
    found = protocol_of_any("paper-srpnet", "fss-1000")
    of_pascal = named_protocol("paper_srpnet", "pascal-5i")
    assert found == dataclasses.replace(of_pascal, name="paper-srpnet of pascal-5i")
    assert "nobody published the protocol paper-srpnet for fss-1000" in caplog.text
    caplog.clear()
    assert protocol_of_any("hsnet", "coco-20i") == named_protocol("hsnet", "coco-20i")
    assert not caplog.text
    with pytest.raises(ValueError, match="unknown protocol 'imagined'"):
        protocol_of_any("imagined", "fss-1000")
