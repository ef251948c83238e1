"""Protocols: every published value written down from the papers a second time, digests, lines and errors."""

import dataclasses
import hashlib
import json

import pytest

from fewseg.data.episodes import EpisodeSampler
from fewseg.data.folds import coco_20i, coco_40_20_20, coco_to_voc, voc_to_coco
from fewseg.data.protocols import (
    ADDED,
    PAPER_SCL,
    PAPER_SRPNET,
    PROTOCOLS,
    SYNTHETIC,
    VOC5I_MINI,
    Protocol,
    named_protocol,
    protocol_of_any,
)

# SCL, Sec. 5.1 and 5.2: 1000 pairs, 5 runs, otherwise as PFENet; Table 4 compares three fusions. No paper
# drops training images with novel classes; a frozen backbone stays in eval mode.
SCL = {"name": "paper-scl", "episodes": 1000, "seeds": (0, 1, 2, 3, 4), "query_order": "list"}
SCL |= {
    "distinct_supports": True,
    "min_area": 2048,
    "label_size": "original",
    "aspect": "kept",
    "fusion": "any",
}
SCL |= {"drop_novel_training_images": False, "backbone_bn": "eval", "coco_split": "B"}
SCL |= {"novel_pixels": "background"}
# SRPNet, Sec. 4.1: 5 runs of 1000 episodes; one pixel is Sec. 3.1's, of the training set.
SRPNET = SCL | {"name": "paper-srpnet", "query_order": "class_first", "min_area": 1, "aspect": "stretched"}
# SD-AANet, Sec. IV-A: 1000 pairs, five rounds; Table II: labels of the original size; mean prototype.
SDAANET = SCL | {"name": "paper-sdaanet", "fusion": "mean"}
# PFENet: 5000 episodes on PASCAL in one run; mean of the K support vectors.
PFENET = SCL | {"name": "pfenet", "episodes": 5000, "seeds": (0,), "fusion": "mean"}
# HSNet: 1000 episodes, supports may repeat, everything at the network's size; the vote is the method's.
HSNET = SCL | {"name": "hsnet", "seeds": (0,), "distinct_supports": False}
HSNET |= {"label_size": "network", "aspect": "stretched"}
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
    "paper_sdaanet": SDAANET | {"episodes": 4000},
    "paper_sdaanet_473": SDAANET | {"episodes": 4000, "name": "paper-sdaanet-473", "label_size": 473},
    "pfenet": PFENET | {"episodes": 20_000},
    "pfenet_473": PFENET | {"episodes": 20_000, "name": "pfenet-473", "label_size": 473},
    "hsnet": HSNET | {"query_order": "class_first"},
}
TABLE = {
    **{(dataset, name): fields for dataset in ("pascal-5i", "voc5i-mini") for name, fields in PASCAL.items()},
    **{("coco-20i", name): fields for name, fields in COCO.items()},
    **{("coco-20i-a", name): fields | {"coco_split": "A"} for name, fields in COCO.items()},
    ("coco-40-20-20", "paper_srpnet"): SRPNET,
}


def test_every_value_of_a_published_protocol_is_the_papers_and_no_other_is_published():
    found = {(dataset, name) for dataset, named in PROTOCOLS.items() for name in named}
    assert {key: dataclasses.asdict(named_protocol(key[1], key[0])) for key in found} == TABLE


def test_a_protocol_on_a_data_set_without_it_is_named_after_the_set_whose_values_it_has(caplog):
    found = protocol_of_any("paper-srpnet", "fss-1000")
    of_pascal = named_protocol("paper_srpnet", "pascal-5i")
    assert found == dataclasses.replace(of_pascal, name="paper-srpnet of pascal-5i")
    assert "nobody published the protocol paper-srpnet for fss-1000" in caplog.text
    caplog.clear()
    assert protocol_of_any("hsnet", "coco-20i") == named_protocol("hsnet", "coco-20i")
    assert not caplog.text
    with pytest.raises(ValueError, match="unknown protocol 'imagined'"):
        protocol_of_any("imagined", "fss-1000")


def test_the_synthetic_set_counts_small_objects():
    assert (SYNTHETIC.min_area, SYNTHETIC.episodes, SYNTHETIC.seeds) == (64, 200, (0, 1))


CHANGES = [{"name": "y"}, {"episodes": 999}, {"seeds": (0, 1)}, {"query_order": "class_first"}]
CHANGES += [{"distinct_supports": False}, {"min_area": 1}, {"drop_novel_training_images": True}]
CHANGES += [{"label_size": "network"}, {"label_size": 473}, {"label_size": 417}, {"aspect": "stretched"}]
CHANGES += [{"backbone_bn": "train"}, {"coco_split": "A"}, {"fusion": "mean"}, {"novel_pixels": "ignored"}]


def test_every_field_changes_the_digest():
    digests = {dataclasses.replace(Protocol(name="x"), **change).digest() for change in CHANGES}
    assert len(digests | {Protocol(name="x").digest()}) == len(CHANGES) + 1


def test_the_digests_of_before_the_newer_fields_are_kept():
    assert Protocol(name="x").digest() == "bc6b285ff823"
    assert VOC5I_MINI.digest() == "55a2a75aeecb"  # of the result files in results/voc5i-mini
    for protocol in (VOC5I_MINI, PAPER_SCL, dataclasses.replace(PAPER_SRPNET, aspect="kept"), SYNTHETIC):
        fields = {k: v for k, v in dataclasses.asdict(protocol).items() if k not in ADDED}
        assert len(fields) == 8
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        assert protocol.digest() == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_what_older_results_were_measured_with_is_the_default():
    fields = {f.name: f.default for f in dataclasses.fields(Protocol)}
    assert dict(ADDED) == {name: fields[name] for name in ADDED}


def test_the_line_names_every_rule():
    protocol = Protocol(name="p", episodes=7, seeds=(3, 4), min_area=99)
    line = protocol.line()
    for part in ("p: 2 seeds x 7 episodes", "order list", "distinct", "99 px", "original size", "background"):
        assert part in line
    for part in ("aspect kept", "COCO split B", "batch-norm eval", protocol.digest()):
        assert part in line
    assert "joined" not in line  # any fusion is allowed: nothing to state
    changed = {"distinct_supports": False, "drop_novel_training_images": True, "label_size": 473}
    changed |= {"aspect": "stretched", "coco_split": "A", "backbone_bn": "train", "fusion": "mean"}
    line = Protocol(name="p", **changed).line()
    for part in ("may repeat", "DROPPED", "at 473 x 473 px", "aspect stretched", "COCO split A"):
        assert part in line
    assert "batch-norm train, shots joined by mean" in line
    assert "novel classes in training images are ignored" in Protocol(name="p", novel_pixels="ignored").line()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"episodes": 0}, "one episode"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "different seeds"),
        ({"query_order": "random"}, "class_first"),
        ({"label_size": "big"}, "network"),
        ({"min_area": 0}, "min_area"),
        ({"label_size": 0}, "number of pixels"),
        ({"label_size": -473}, "number of pixels"),
        ({"aspect": "cropped"}, "aspect must be one of .*stretched.*, got 'cropped'"),
        ({"backbone_bn": "off"}, "backbone_bn must be one of"),
        ({"coco_split": "C"}, "coco_split must be one of"),
        ({"fusion": "sum"}, "fusion must be one of .*cross-guided"),
    ],
)
def test_invalid_fields_are_refused_and_the_least_valid_ones_are_not(fields, message):
    assert Protocol(name="x", episodes=1, seeds=(0,), min_area=1).episodes == 1
    with pytest.raises(ValueError, match=message):
        Protocol(**{"name": "x", **fields})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("paper_sc",), "did you mean paper_scl"),
        (("pfenet_473", "pascal-5i"), "did you mean pfenet"),
        (("pfenet", "voc"), "no protocol is published for 'voc'"),
    ],
)
def test_an_unknown_protocol_or_data_set_is_refused_with_near_names(names, message):
    with pytest.raises(ValueError, match=message):
        named_protocol(*names)


BUILT_FROM_COCO = [
    coco_20i,
    lambda fold, split: coco_40_20_20(fold, "test", split),
    lambda fold, split: coco_40_20_20(fold, "validation", split),
    lambda fold, split: coco_to_voc(fold, "coco-20i", split),
    voc_to_coco,
]


@pytest.mark.parametrize(("split", "other"), [("A", "B"), ("B", "A")])
def test_data_of_the_other_coco_split_are_refused_and_other_data_are_not(make_index, split, other):
    index = make_index({f"i{k}": dict.fromkeys(range(1, 81), 2048) for k in range(3)})
    protocol = Protocol(name="p", coco_split=split)
    for make in BUILT_FROM_COCO:
        assert EpisodeSampler(index, make(0, split), protocol, shots=1).classes
        with pytest.raises(ValueError, match=f"COCO's split {split}, the data of split {other}"):
            EpisodeSampler(index, make(0, other), protocol, shots=1)
    for name in ("pascal-5i", "fss-1000", coco_to_voc(0, "pascal-5i").name):
        protocol.check_split(name)
