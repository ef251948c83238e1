"""Shares hold every question and pair once, whole targets or sets, in about equal parts."""

import pytest

from fewseg.data.episodes import Way
from fewseg.engine.evaluate import judged_pairs
from fewseg.engine.executors import Question, Share, by_support_set, by_target
from fewseg.methods.fusion import CrossGuided, MeanVector


def question(target, *supports, class_id=1):
    return Question((Way(class_id, supports),), target)


ASKED = [question(f"t{i % 7}", f"s{i}", f"s{i + 1}") for i in range(20)] + [question("t0", "s0")]
JUDGED = judged_pairs([(1, q.ways[0].supports, q.target) for q in ASKED], CrossGuided())


def test_the_pairs_that_cross_guided_judges_are_those_within_the_sets_of_several():
    asked = [(1, ("a", "b"), "t"), (1, ("a", "b"), "u"), (2, ("c",), "t")]
    assert judged_pairs(asked, CrossGuided()) == {(1, k, i) for k in "ab" for i in "ab"}
    assert judged_pairs(asked, MeanVector()) == set()


@pytest.mark.parametrize("parts", [1, 2, 3, 50])
def test_every_question_and_pair_is_in_one_share_with_all_of_its_target(parts):
    shares = by_target(ASKED, JUDGED, parts)
    assert len(shares) == parts
    assert sorted(q.target for s in shares for q in s.questions) == sorted(q.target for q in ASKED)
    assert sorted(pair for s in shares for pair in s.judged) == sorted(JUDGED)
    targets = [{q.target for q in s.questions} | {pair[2] for pair in s.judged} for s in shares]
    assert sum(len(own) for own in targets) == len(set().union(*targets))
    for share in shares:  # in the order of the questions
        assert list(share.questions) == [q for q in ASKED if q in share.questions]


def test_shares_are_about_equal_in_pairs():
    costs = [
        sum(len(q.ways[0].supports) for q in share.questions) + len(share.judged)
        for share in by_target(ASKED, JUDGED, 3)
    ]
    assert max(costs) - min(costs) <= 3


def test_the_order_of_the_judged_pairs_changes_nothing():
    assert by_target(ASKED, sorted(JUDGED), 3) == by_target(ASKED, sorted(JUDGED, reverse=True), 3)


def test_sets_stay_whole():
    asked = [question(f"t{i}", f"s{i % 5}") for i in range(23)]
    shares = by_support_set(asked, 2)
    sets = [{q.ways for q in share.questions} for share in shares]
    assert not sets[0] & sets[1]
    assert sorted(len(share.questions) for share in shares) == [10, 13]


def test_a_share_names_every_image_that_it_needs_once():
    share = Share((question("t", "a", "b"), question("u", "a")), ((1, "c", "a"), (1, "a", "d")))
    assert share.images == ["a", "b", "c", "d", "t", "u"]
