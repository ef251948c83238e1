from __future__ import annotations

import dataclasses

import pytest

from fewseg.data.protocols import PAPER_SCL, SYNTHETIC, VOC5I_MINI, Protocol


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
    ],
)
def test_a_protocol_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**{"name": "x", **fields})
