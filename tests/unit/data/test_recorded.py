"""Recorded episodes stand wherever drawn ones stand, and files that do not belong together are told."""

import json

import pytest

from fewseg.data.episodes import EpisodeSampler, RecordedEpisodes, record
from fewseg.data.protocols import Protocol
from fewseg.types import DataError

PROTOCOL = Protocol(name="p", episodes=6, seeds=(0, 3), min_area=10)


@pytest.fixture
def index(make_index):
    return make_index({f"{c}-{k}": {c: 20} for c in (4, 5) for k in range(8)})


@pytest.fixture
def recorded(index, split, tmp_path):
    """(ways, shots) -> the sampler and the paths of its recording."""

    def make(ways, shots=2):
        sampler = EpisodeSampler(index, split, PROTOCOL, shots, ways=ways)
        return sampler, record(sampler, tmp_path / str(ways))

    return make


@pytest.mark.parametrize("ways", [1, 2])
def test_a_recording_gives_back_the_episodes_drawn(index, recorded, ways):
    sampler, paths = recorded(ways)
    found = RecordedEpisodes(paths, index)
    assert (found.protocol, found.fold, found.shots, found.ways) == (PROTOCOL, 1, 2, ways)
    for seed in PROTOCOL.seeds:
        assert list(found.episodes(seed)) == list(sampler.episodes(seed))


def test_the_names_say_the_ways_where_there_are_several(recorded):
    assert [p.name for p in recorded(1)[1]] == ["p-fold1-2shot-seed0.jsonl", "p-fold1-2shot-seed3.jsonl"]
    assert [p.name for p in recorded(2)[1]] == [
        "p-fold1-2way-2shot-seed0.jsonl",
        "p-fold1-2way-2shot-seed3.jsonl",
    ]


def test_the_header_says_the_ways_where_there_are_several(recorded):
    one, two = (json.loads(recorded(n)[1][0].read_text().splitlines()[0]) for n in (1, 2))
    assert list(one) == ["protocol", "fold", "shots", "seed", "schema", "episodes"]
    assert two == one | {"ways": 2}


def test_recordings_of_different_ways_do_not_belong_together(index, recorded):
    (_, one), (_, two) = recorded(1), recorded(2)
    with pytest.raises(DataError, match="different protocols, folds, ways or shots"):
        RecordedEpisodes([one[0], two[1]], index)


def test_a_header_that_announces_other_ways_than_the_rows_have_is_told(index, recorded):
    _, paths = recorded(2)
    paths[0].write_text(paths[0].read_text().replace('"ways":2', '"ways":3'))
    with pytest.raises(DataError, match="announces 3 ways and has 2"):
        RecordedEpisodes(paths, index)


def test_a_missing_seed_and_a_file_that_is_no_recording_are_told(index, recorded):
    _, paths = recorded(1)
    with pytest.raises(DataError, match=r"manifests of \[3\] are missing"):
        RecordedEpisodes(paths[:1], index)
    paths[0].write_text(paths[0].read_text().replace('"fold":1,', ""))
    with pytest.raises(DataError, match="lacks protocol, fold, shots and seed"):
        RecordedEpisodes(paths, index)


def edited(path, header=None, rows=lambda rows: rows):
    """A manifest with other rows, whose header says how many there are."""
    first, *lines = map(json.loads, path.read_text().splitlines())
    lines = rows(lines)
    first |= {"episodes": len(lines), **(header or {})}
    path.write_text("\n".join(map(json.dumps, [first, *lines])) + "\n")


def test_a_shortened_manifest_is_not_the_protocol_that_it_names(index, recorded):
    _, paths = recorded(1)
    edited(paths[1], rows=lambda rows: rows[:-1])
    with pytest.raises(DataError, match=r"seed3.jsonl announces 6 episodes and has 5: it is edited"):
        RecordedEpisodes(paths, index)


def test_episodes_of_another_number_are_none_of_the_protocol(index, recorded):
    _, paths = recorded(1)
    edited(paths[0], rows=lambda rows: [*rows[:-1], rows[-1] | {"index": 6}])
    with pytest.raises(DataError, match=r"has episodes \[6\], those of its protocol are 0 .. 5"):
        RecordedEpisodes(paths, index)


def test_an_episode_that_comes_twice_is_told(index, recorded):
    _, paths = recorded(1)
    edited(paths[0], rows=lambda rows: [*rows[:-1], rows[0]])
    with pytest.raises(DataError, match=r"has 1 episodes more than once, like \[0\]"):
        RecordedEpisodes(paths, index)


def test_a_header_that_announces_other_shots_than_the_rows_have_is_told(index, recorded):
    _, paths = recorded(1)
    edited(paths[0], header={"shots": 5})
    with pytest.raises(DataError, match="announces 5 shots and has 2"):
        RecordedEpisodes(paths, index)
