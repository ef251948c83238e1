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


def test_a_missing_seed_and_a_file_that_is_no_recording_are_told(index, recorded):
    _, paths = recorded(1)
    with pytest.raises(DataError, match=r"manifests of \[3\] are missing"):
        RecordedEpisodes(paths[:1], index)
    paths[0].write_text(paths[0].read_text().replace('"fold":1,', ""))
    with pytest.raises(DataError, match="lacks protocol, fold, shots or seed"):
        RecordedEpisodes(paths, index)


def edited(path, header=None, rows=lambda rows: rows):
    """A manifest with other rows, whose header says how many there are."""
    first, *lines = map(json.loads, path.read_text().splitlines())
    lines = rows(lines)
    first |= {"episodes": len(lines), **(header or {})}
    path.write_text("\n".join(map(json.dumps, [first, *lines])) + "\n")


@pytest.mark.parametrize(
    ("ways", "header", "rows", "message"),
    [
        (1, {}, lambda rows: rows[:-1], "seed3.jsonl announces 6 episodes and has 5: it is edited"),
        (
            1,
            {},
            lambda rows: [*rows[:-1], rows[-1] | {"index": 6}],
            r"has episodes \[6\], those .* 0 .. 5",
        ),
        (1, {}, lambda rows: [*rows[:-1], rows[0]], r"has 1 episodes more than once, like \[0\]"),
        (1, {"shots": 5}, lambda rows: rows, "announces 5 shots and has 2"),
        (2, {"ways": 3}, lambda rows: rows, "announces 3 ways and has 2"),
    ],
)
def test_an_edited_manifest_is_told(index, recorded, ways, header, rows, message):
    _, paths = recorded(ways)
    edited(paths[1], header, rows)
    with pytest.raises(DataError, match=message):
        RecordedEpisodes(paths, index)
