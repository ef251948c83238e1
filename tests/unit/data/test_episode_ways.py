"""Episodes of several classes at once."""

from collections import Counter
from dataclasses import replace

import pytest

from fewseg.data.episodes import EpisodeSampler, EpisodeSpec, Way
from fewseg.data.protocols import Protocol
from fewseg.types import DataError

LIST = Protocol(name="list", episodes=40, min_area=10)
CLASS_FIRST = replace(LIST, name="class_first", query_order="class_first")
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
