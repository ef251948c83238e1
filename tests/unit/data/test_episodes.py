from collections import Counter
from dataclasses import replace

import pytest

from fewseg.data.episodes import EpisodeSampler, EpisodeSpec, Way
from fewseg.data.protocols import Protocol
from fewseg.types import DataError

LIST = Protocol(name="list", episodes=40, min_area=10)
CLASS_FIRST = replace(LIST, name="class_first", query_order="class_first")
BOTH = pytest.mark.parametrize("protocol", [LIST, CLASS_FIRST], ids=["list", "class_first"])


@pytest.fixture
def index(make_index):
    """Class 4 in ten images (two of them with class 5), class 5 in six, small specks elsewhere."""
    images = {f"a{k}": {4: 10 + k} for k in range(8)}
    images |= {f"b{k}": {4: 50, 5: 30} for k in range(2)}
    images |= {f"c{k}": {5: 10, 4: 9} for k in range(4)}
    images |= {f"d{k}": {1: 500, 4: 9, 5: 9} for k in range(5)}
    return make_index(images)


@BOTH
def test_an_episodes_images_all_show_its_class_and_are_all_different(index, split, protocol):
    for spec in EpisodeSampler(index, split, protocol, shots=5).episodes(0):
        used = (spec.query, *spec.supports)
        assert len(set(used)) == 6
        assert spec.class_id in (4, 5)
        assert all(index.images[id].areas[spec.class_id] >= 10 for id in used)


@BOTH
def test_an_episode_depends_on_seed_and_number_and_not_on_the_order_of_asking(index, split, protocol):
    sampler = EpisodeSampler(index, split, protocol, shots=2)
    forward = [sampler.episode(3, i) for i in range(30)]
    assert [s.index for s in forward] == list(range(30))
    again = EpisodeSampler(index, split, protocol, shots=2)
    assert [again.episode(3, i) for i in reversed(range(30))] == forward[::-1]
    assert list(sampler.episodes(3))[:30] == forward
    assert len(list(sampler.episodes(3))) == 40
    assert list(sampler.episodes(4))[:30] != forward
    assert list(EpisodeSampler(index, replace(split, fold=0), protocol, 2).episodes(3))[:30] != forward


@BOTH
def test_fewer_shots_are_a_prefix_of_more(index, split, protocol):
    five = list(EpisodeSampler(index, split, protocol, shots=5).episodes(1))
    for shots in (1, 3):
        fewer = list(EpisodeSampler(index, split, protocol, shots=shots).episodes(1))
        assert fewer == [replace(s, supports=s.supports[:shots]) for s in five]


@BOTH
def test_the_order_of_the_list_and_the_scoring_rules_do_not_change_the_episodes(index, split, protocol):
    reordered = index.only(reversed(index.ids))
    other = replace(protocol, name="other", episodes=7, seeds=(9,), label_size="network")
    specs = list(EpisodeSampler(reordered, split, other, shots=1).episodes(0))
    assert specs == list(EpisodeSampler(index, split, protocol, shots=1).episodes(0))[:7]


@pytest.mark.parametrize(
    "change", [{"min_area": 9}, {"distinct_supports": False}, {"query_order": "class_first"}], ids=str
)
def test_a_rule_of_drawing_changes_the_episodes(index, split, change):
    first = [s.query for s in EpisodeSampler(index, split, LIST, shots=1).episodes(0)]
    assert [
        s.query for s in EpisodeSampler(index, split, replace(LIST, **change), shots=1).episodes(0)
    ] != first


def test_the_list_order_makes_every_image_a_query_once_before_any_is_one_twice(index, split):
    sampler = EpisodeSampler(index, split, LIST, shots=1)
    queries = [sampler.episode(0, i).query for i in range(28)]
    shown = sorted(index.images_with_any((4, 5), 10))
    assert len(shown) == 14
    assert sorted(queries[:14]) == shown
    assert sorted(queries[14:]) == shown
    assert queries[:14] != queries[14:]
    assert queries[:14] != shown


def test_class_first_draws_classes_evenly_whatever_their_frequency(index, split):
    sampler = EpisodeSampler(index, split, replace(CLASS_FIRST, episodes=1000), shots=1)
    drawn = Counter(s.class_id for s in sampler.episodes(0))
    assert 440 < drawn[4] < 560
    assert drawn[4] + drawn[5] == 1000
    queries = Counter(s.query for s in sampler.episodes(0) if s.class_id == 5)
    assert set(queries) == {"b0", "b1", "c0", "c1", "c2", "c3"}


def test_episodes_never_change(index, split):
    assert EpisodeSampler(index, split, LIST, shots=2).episode(0, 0) == EpisodeSpec(0, 4, "a1", ("a6", "a4"))
    assert EpisodeSampler(index, split, CLASS_FIRST, shots=2).episode(0, 5) == EpisodeSpec(
        5, 4, "b0", ("a0", "a3")
    )


def test_supports_may_repeat_only_where_the_protocol_allows_it(index, split):
    repeating = EpisodeSampler(index, split, replace(LIST, distinct_supports=False), shots=9)
    specs = list(repeating.episodes(0))
    assert any(len(set(s.supports)) < 9 for s in specs)
    assert all(s.query not in s.supports for s in specs)


def test_a_class_with_too_few_images_is_named_with_its_count_before_any_episode(index, split):
    EpisodeSampler(index, split, LIST, shots=5)
    with pytest.raises(
        DataError, match=r"too few images for 6-shot .*\(5 class5: 6\); each needs 7 .* 10 pixels"
    ):
        EpisodeSampler(index, split, LIST, shots=6)
    with pytest.raises(DataError, match=r"4 class4: 10, 5 class5: 6"):
        EpisodeSampler(index, split, LIST, shots=10)


def test_nothing_to_draw_from_is_an_error(index, split, make_index):
    with pytest.raises(DataError, match="no classes"):
        EpisodeSampler(index, split, LIST, 1, classes=())
    with pytest.raises(ValueError, match="shots=0"):
        EpisodeSampler(index, split, LIST, 0)
    one_image = make_index({"x": {4: 99, 5: 99}, "y": {4: 99}})
    with pytest.raises(DataError, match="5 class5: 1"):  # even where supports may repeat
        EpisodeSampler(one_image, split, replace(LIST, distinct_supports=False), shots=3)
    with pytest.raises(DataError, match=r"7 \?: 0"):
        EpisodeSampler(one_image, split, LIST, 1, classes=[7])


def test_two_images_are_enough_where_supports_may_repeat(make_index, split):
    index = make_index({"x": {4: 99}, "y": {4: 99}})
    sampler = EpisodeSampler(index, split, replace(LIST, distinct_supports=False), 3, classes=[4])
    assert {(s.query, s.supports) for s in sampler.episodes(0)} == {("x", ("y",) * 3), ("y", ("x",) * 3)}


@BOTH
def test_the_order_of_the_classes_does_not_matter(index, split, protocol):
    first = list(EpisodeSampler(index, split, protocol, 1, classes=[5, 4]).episodes(0))
    assert first == list(EpisodeSampler(index, split, protocol, 1).episodes(0))


def test_base_classes_and_chosen_classes_can_be_tested_as_well(index, split, make_index):
    base = make_index({f"i{k}": dict.fromkeys((1, 2, 3), 99) for k in range(3)})
    assert EpisodeSampler(base, split, LIST, 1, classes=split.base).classes == (1, 2, 3)
    chosen = EpisodeSampler(index, split, LIST, 1, classes=[4])
    assert {s.class_id for s in chosen.episodes(0)} == {4}


REPEATING = replace(LIST, name="repeating", distinct_supports=False)
ALL = pytest.mark.parametrize("protocol", [LIST, CLASS_FIRST, REPEATING], ids=lambda p: p.name)


@pytest.fixture
def wide(make_index):
    """Classes 1 .. 5 in ten images each of their own, and twelve that show three of them at once."""
    images = {f"{c}-{k}": {c: 20} for c in range(1, 6) for k in range(10)}
    images |= {f"m{k:02d}": {1 + (k + j) % 5: 20 for j in range(3)} for k in range(12)}
    return make_index(images)


@pytest.fixture
def of_ways(wide, split):
    """(protocol, ways, shots) -> the sampler of all five classes."""

    def make(protocol, ways, shots=1):
        return EpisodeSampler(wide, split, protocol, shots, classes=(1, 2, 3, 4, 5), ways=ways)

    return make


def test_an_episode_names_its_ways_classes_and_images_in_order():
    spec = EpisodeSpec(0, 4, "q", ("a", "b"), (Way(2, ("c", "a")), Way(9, ("d", "e"))))
    assert spec.ways == (Way(4, ("a", "b")), Way(2, ("c", "a")), Way(9, ("d", "e")))
    assert spec.classes == (4, 2, 9)
    assert spec.all_supports == ("a", "b", "c", "a", "d", "e")
    assert spec.way_of == (1, 1, 2, 2, 3, 3)
    assert spec.images == ("a", "b", "c", "d", "e", "q")
    assert EpisodeSpec(0, 4, "q", ("a",)).ways == (Way(4, ("a",)),)


@ALL
def test_the_one_way_episode_is_the_first_way_of_those_of_more_ways_of_the_same_number(of_ways, protocol):
    four = list(of_ways(protocol, 4, 2).episodes(0))
    assert four == [of_ways(protocol, 4, 2).episode(0, i) for i in range(40)]
    for ways in (1, 2, 3):
        fewer = list(of_ways(protocol, ways, 2).episodes(0))
        assert fewer == [replace(s, others=s.others[: ways - 1]) for s in four]
    assert [s.others for s in of_ways(protocol, 4, 2).episodes(1)] != [s.others for s in four]


@ALL
def test_the_ways_are_different_classes_each_with_images_that_show_it_and_never_the_query(
    of_ways, wide, protocol
):
    specs = list(of_ways(protocol, 3, 4).episodes(0))
    for spec in specs:
        assert len(set(spec.classes)) == 3
        assert spec.query not in spec.all_supports
        for way in spec.ways:
            assert len(way.supports) == 4
            assert all(wide.images[id].areas[way.class_id] >= 10 for id in way.supports)
    repeats = [len(s.images) < 13 for s in specs]
    assert any(repeats) if protocol is REPEATING else not any(repeats)


def test_the_further_classes_are_drawn_evenly_from_the_rest_whatever_the_query_shows(of_ways):
    specs = list(of_ways(replace(CLASS_FIRST, episodes=2000), 3).episodes(0))
    for way in (0, 1):
        drawn = Counter((s.class_id, s.others[way].class_id) for s in specs)
        assert len(drawn) == 20
        assert all(60 < n < 145 for n in drawn.values())


def test_more_shots_keep_a_ways_supports_in_order_but_for_those_that_an_earlier_way_now_takes(of_ways):
    taken = 0
    for shots in (1, 2, 3, 4):
        fewer, more = (list(of_ways(LIST, 3, k).episodes(0)) for k in (shots, shots + 1))
        for few, many in zip(fewer, more, strict=True):
            for way in range(3):
                earlier = {id for w in many.ways[:way] for id in w.supports}
                kept = [id for id in few.ways[way].supports if id not in earlier]
                assert list(many.ways[way].supports[: len(kept)]) == kept
                taken += len(kept) < shots
    assert taken > 0


def test_episodes_of_several_ways_never_change(of_ways):
    assert of_ways(LIST, 3, 2).episode(0, 7) == EpisodeSpec(
        7, 5, "m04", ("m02", "5-4"), (Way(4, ("m03", "4-1")), Way(1, ("m05", "m00")))
    )
    assert of_ways(REPEATING, 2, 2).episode(3, 1) == EpisodeSpec(
        1, 2, "m10", ("m06", "m00"), (Way(3, ("3-9", "3-0")),)
    )


def test_images_that_already_serve_are_missing_to_a_further_way_and_the_error_counts_them(make_index, split):
    index = make_index({f"x{k}": {4: 20, 5: 20} for k in range(4)})
    sampler = EpisodeSampler(index, split, LIST, 2, ways=2)
    with pytest.raises(
        DataError, match=r"episode 0 needs 2 .* as way 2 of 2; 4 images show it on 10 pixels and 3 of them"
    ):
        sampler.episode(0, 0)
    one = EpisodeSampler(index, split, LIST, 1, ways=2).episode(0, 0)
    assert len(one.images) == 3


@pytest.mark.parametrize("ways", [0, -1, 3])
def test_more_ways_than_classes_or_none_are_refused(make_index, split, ways):
    index = make_index({f"x{k}": {4: 20, 5: 20} for k in range(4)})
    with pytest.raises(ValueError, match=rf"ways={ways}; 2 classes \[4, 5\].*give 1 to 2 ways"):
        EpisodeSampler(index, split, LIST, 1, ways=ways)
