from __future__ import annotations

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
)


def test_the_papers_protocol_is_a_thousand_episodes_by_five_seeds_from_the_list():
    assert (PAPER_SCL.episodes, PAPER_SCL.seeds, PAPER_SCL.query_order) == (1000, (0, 1, 2, 3, 4), "list")
    assert (PAPER_SCL.min_area, PAPER_SCL.label_size, PAPER_SCL.distinct_supports) == (2048, "original", True)
    assert not PAPER_SCL.drop_novel_training_images


def test_the_mini_set_draws_the_class_first_and_the_synthetic_one_counts_small_objects():
    assert (VOC5I_MINI.query_order, VOC5I_MINI.episodes, len(VOC5I_MINI.seeds)) == ("class_first", 1000, 5)
    assert VOC5I_MINI.label_size == "original"
    assert (SYNTHETIC.min_area, SYNTHETIC.episodes, SYNTHETIC.seeds) == (64, 200, (0, 1))


def test_one_episode_of_one_seed_from_one_pixel_is_the_least():
    assert Protocol(name="x", episodes=1, seeds=(0,), min_area=1).episodes == 1


def test_the_digest_never_changes_for_the_same_fields():
    assert Protocol(name="x").digest() == "bc6b285ff823"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "y"},
        {"episodes": 999},
        {"seeds": (0, 1)},
        {"query_order": "class_first"},
        {"distinct_supports": False},
        {"min_area": 1},
        {"label_size": "network"},
        {"drop_novel_training_images": True},
        {"label_size": 473},
        {"label_size": 417},
        {"aspect": "stretched"},
        {"backbone_bn": "train"},
        {"coco_split": "A"},
        {"fusion": "mean"},
    ],
)
def test_every_field_changes_the_digest(change):
    assert dataclasses.replace(Protocol(name="x"), **change).digest() != Protocol(name="x").digest()


def test_the_line_names_every_rule():
    line = Protocol(name="p", episodes=7, seeds=(3, 4), min_area=99).line()
    for part in ("p: 2 seeds x 7 episodes", "order list", "distinct", "99 px", "original size", "background"):
        assert part in line
    assert Protocol(name="p", episodes=7, seeds=(3, 4), min_area=99).digest() in line
    other = Protocol(name="p", distinct_supports=False, drop_novel_training_images=True).line()
    assert "may repeat" in other
    assert "DROPPED" in other


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
        ({"fusion": "vote"}, "fusion must be one of .*cross-guided"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**{"name": "x", **fields})


def test_the_digests_of_before_the_newer_fields_are_kept():
    digests = [p.digest() for p in (VOC5I_MINI, PAPER_SCL, PAPER_SRPNET, SYNTHETIC)]
    assert digests[0] == "55a2a75aeecb"  # of the result files in results/voc5i-mini
    for protocol, found in zip((VOC5I_MINI, PAPER_SCL, PAPER_SRPNET, SYNTHETIC), digests, strict=True):
        fields = {k: v for k, v in dataclasses.asdict(protocol).items() if k not in ADDED}
        assert len(fields) == 8
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        assert found == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_what_older_results_were_measured_with_is_the_default():
    fields = {f.name: f.default for f in dataclasses.fields(Protocol)}
    assert dict(ADDED) == {name: fields[name] for name in ADDED}


def test_the_line_names_the_newer_rules():
    line = Protocol(name="p").line()
    for part in ("aspect kept", "COCO split B", "batch-norm eval"):
        assert part in line
    assert "joined" not in line  # any fusion is allowed: nothing to say
    changed = {"aspect": "stretched", "coco_split": "A", "backbone_bn": "train", "fusion": "mean"}
    line = Protocol(name="p", label_size=473, **changed).line()
    for part in ("at 473 x 473 px", "aspect stretched", "COCO split A", "batch-norm train", "joined by mean"):
        assert part in line


def test_the_papers_differ_in_episodes_by_data_set():
    def runs(name, dataset):
        protocol = named_protocol(name, dataset)
        return protocol.episodes, len(protocol.seeds)

    of_pascal = {name: runs(name, "pascal-5i") for name in PROTOCOLS["pascal-5i"]}
    assert of_pascal == {
        "paper_scl": (1000, 5),
        "paper_srpnet": (1000, 5),
        "paper_sdaanet": (1000, 5),
        "pfenet": (5000, 1),
        "hsnet": (1000, 1),
    }
    assert runs("paper-sdaanet", "coco-20i") == (4000, 5)
    assert runs("pfenet", "coco-20i") == (20_000, 1)
    assert named_protocol("pfenet_473", "coco-20i").label_size == 473
    assert named_protocol("paper_sdaanet_473", "coco-20i").episodes == 4000
    assert named_protocol("hsnet", "coco-20i").query_order == "class_first"


def test_hsnets_protocol_lets_supports_repeat_and_stretches():
    hsnet = named_protocol("hsnet")
    assert (hsnet.distinct_supports, hsnet.aspect, hsnet.label_size) == (False, "stretched", "network")


def test_every_named_protocol_keeps_novel_images_and_says_the_split_of_its_data_set():
    for dataset, named in PROTOCOLS.items():
        for protocol in named.values():
            assert not protocol.drop_novel_training_images
            assert protocol.coco_split == ("A" if dataset == "coco-20i-a" else "B")
        assert len({p.digest() for p in named.values()}) == len(named)


def test_a_protocol_that_nobody_published_is_refused_with_near_names():
    with pytest.raises(ValueError, match="did you mean paper_scl"):
        named_protocol("paper_sc")
    with pytest.raises(ValueError, match="did you mean pfenet"):
        named_protocol("pfenet_473", "pascal-5i")
    with pytest.raises(ValueError, match="no protocol is published for 'voc'"):
        named_protocol("pfenet", "voc")


@pytest.mark.parametrize(
    "made_of",
    [
        coco_20i,
        lambda fold, split: coco_40_20_20(fold, "test", split),
        lambda fold, split: coco_40_20_20(fold, "validation", split),
        lambda fold, split: coco_to_voc(fold, "coco-20i", split),
        voc_to_coco,
    ],
)
def test_every_split_made_of_coco_20i_is_told_from_its_other_form(made_of):
    for split, other in (("A", "B"), ("B", "A")):
        protocol = Protocol(name="p", coco_split=split)
        protocol.check_split(made_of(0, split).name)
        with pytest.raises(ValueError, match=f"COCO's split {split}, the data of split {other}"):
            protocol.check_split(made_of(0, other).name)


@pytest.mark.parametrize("name", ["pascal-5i", "fss-1000", coco_to_voc(0, "pascal-5i").name])
def test_splits_that_are_not_made_of_coco_20i_are_of_any_protocol(name):
    for split in ("A", "B"):
        Protocol(name="p", coco_split=split).check_split(name)


def test_data_of_the_other_coco_split_are_refused(make_index):
    images = {f"i{k}": dict.fromkeys(range(1, 81), 2048) for k in range(3)}
    index = make_index(images)
    for split, other in (("A", "B"), ("B", "A")):
        protocol = Protocol(name="p", coco_split=split)
        assert EpisodeSampler(index, coco_20i(0, split), protocol, shots=1).classes
        with pytest.raises(ValueError, match=f"COCO's split {split}, the data of split {other}"):
            EpisodeSampler(index, coco_20i(0, other), protocol, shots=1)
