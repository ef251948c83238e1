"""Manifests of episodes, and recordings built from them, which stand wherever drawn episodes stand."""

import json

import pytest

from fewseg.data.episodes import (
    EpisodeSampler,
    EpisodeSpec,
    RecordedEpisodes,
    Way,
    read_manifest,
    record,
    write_manifest,
)
from fewseg.data.protocols import Protocol
from fewseg.types import DataError

SPECS = (EpisodeSpec(0, 4, "q", ("s", "t")), EpisodeSpec(1, 5, "s", ("q", "t")))


@pytest.fixture
def path(tmp_path):
    write_manifest(tmp_path / "m.jsonl", SPECS, {"protocol": "p", "fold": 2})
    return tmp_path / "m.jsonl"


@pytest.fixture
def index(make_index):
    return make_index({"q": {4: 1, 5: 1}, "s": {4: 1, 5: 1}, "t": {4: 1, 5: 1}})


def test_a_manifest_gives_back_what_was_written(path, index):
    header, specs = read_manifest(path, index)
    assert specs == SPECS
    assert header == {"protocol": "p", "fold": 2, "schema": "fewseg-manifest-1", "episodes": 2}
    assert read_manifest(path) == (header, specs)


def test_a_failed_write_leaves_the_older_manifest(path):
    before = path.read_bytes()

    def failing():
        yield SPECS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_manifest(path, failing(), {})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["m.jsonl"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"q": {4: 1, 5: 1}, "s": {4: 1, 5: 1}}, r"names 1 images that made does not hold, like \['t'\]"),
        ({"q": {4: 1}, "s": {4: 1, 5: 1}, "t": {4: 1, 5: 1}}, "1 images do not show .* class 5 in 'q'"),
    ],
)
def test_a_manifest_of_other_images_is_reported(path, make_index, images, message):
    with pytest.raises(DataError, match=message):
        read_manifest(path, make_index(images))


HEADER = '{"protocol":"p","fold":2,"schema":"fewseg-manifest-1","episodes":2}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *(
            (text, r"m\.jsonl cannot be read")
            for text in ("", "no json", "[]", '{"schema": "fewseg-manifest-1"}')
        ),
        ('{"schema": "other", "episodes": 0}\n', "schema 'fewseg-manifest-1', got 'other'"),
        (HEADER + '{"index":0,"class_id":4,"query":"q","supports":["s"]}', "announces 2 episodes and holds"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_complete_manifest_is_reported(path, content, message):
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_manifest(path)


TWO_WAYS = (
    EpisodeSpec(0, 4, "q", ("s", "t"), (Way(5, ("s", "u")),)),
    EpisodeSpec(1, 5, "s", ("q", "u"), (Way(4, ("t", "q")),)),
)


@pytest.fixture
def two_ways(tmp_path):
    write_manifest(tmp_path / "two.jsonl", TWO_WAYS, {"ways": 2})
    return tmp_path / "two.jsonl"


def test_episodes_of_several_ways_are_given_back_as_written(two_ways, make_index):
    index = make_index({"q": {4: 1, 5: 1}, "s": {4: 1, 5: 1}, "t": {4: 1}, "u": {5: 1}})
    assert read_manifest(two_ways, index)[1] == TWO_WAYS
    row = json.loads(two_ways.read_text().splitlines()[1])
    assert list(row) == ["index", "class_id", "query", "supports", "others"]
    assert row["others"] == [{"class_id": 5, "supports": ["s", "u"]}]


def test_the_file_of_one_way_is_that_of_before_there_were_several(path):
    assert path.read_text() == (
        HEADER + '{"index":0,"class_id":4,"query":"q","supports":["s","t"]}\n'
        '{"index":1,"class_id":5,"query":"s","supports":["q","t"]}\n'
    )


def test_the_images_of_every_way_are_checked(two_ways, make_index):
    images = {"q": {4: 1, 5: 1}, "s": {4: 1, 5: 1}, "t": {4: 1}, "u": {5: 1}}
    with pytest.raises(DataError, match=r"made does not hold, like \['u'\]"):
        read_manifest(two_ways, make_index({id: a for id, a in images.items() if id != "u"}))
    with pytest.raises(DataError, match=r"1 images do not show .* class 5 in 'u'"):
        read_manifest(two_ways, make_index(images | {"u": {4: 1}}))


LINE = {"index": 1, "class_id": 5, "query": "s", "supports": ["q", "u"]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not an episode"),
        ({"index": 1, "class_id": 5, "query": "s"}, "is not an episode"),
        (LINE | {"class_id": "x"}, "is not an episode"),
        (LINE | {"class_id": float("inf")}, "is not an episode"),
        (LINE | {"index": float("inf")}, "is not an episode"),
        (LINE | {"supports": []}, "one support"),
        (LINE | {"supports": ["q", "s"]}, "never its own query"),
        (LINE | {"others": [{"class_id": 4, "supports": ["q", "s"]}]}, "never its own query"),
        (LINE | {"others": [{"class_id": 4, "supports": []}]}, "one support"),
        (LINE | {"others": [{"class_id": 5, "supports": ["t", "u"]}]}, r"ways of the classes \[5, 5\]"),
        (LINE | {"others": [{"class_id": 4, "supports": ["t"]}]}, r"with \[2, 1\] supports"),
        (LINE | {"others": [{"supports": ["t", "u"]}]}, "is not an episode"),
        (LINE | {"others": {"class_id": 4, "supports": ["t", "u"]}}, "is not an episode"),
        (LINE | {"others": 7}, "is not an episode"),
    ],
)
def test_a_broken_line_is_reported_by_number(two_ways, line, message):
    lines = two_ways.read_text().splitlines()
    two_ways.write_text("\n".join([*lines[:2], line if isinstance(line, str) else json.dumps(line)]))
    with pytest.raises(DataError, match=f"line 3: .*{message}"):
        read_manifest(two_ways)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([TWO_WAYS[0], SPECS[1]], "has 1-way 2-shot, 2-way 2-shot episodes"),
        ([SPECS[0], EpisodeSpec(1, 5, "s", ("q",))], "has 1-way 1-shot, 1-way 2-shot episodes"),
    ],
)
def test_episodes_of_different_kinds_do_not_go_into_one_file(tmp_path, specs, message):
    write_manifest(tmp_path / "m.jsonl", specs, {})
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path / "m.jsonl")


PROTOCOL = Protocol(name="p", episodes=6, seeds=(0, 3), min_area=10)


@pytest.fixture
def eight(make_index):
    return make_index({f"{c}-{k}": {c: 20} for c in (4, 5) for k in range(8)})


@pytest.fixture
def recorded(eight, split, tmp_path):
    """(ways, shots) -> the sampler and the paths of its recording."""

    def make(ways, shots=2):
        sampler = EpisodeSampler(eight, split, PROTOCOL, shots, ways=ways)
        return sampler, record(sampler, tmp_path / str(ways))

    return make


@pytest.mark.parametrize("ways", [1, 2])
def test_a_recording_gives_back_the_episodes_drawn(eight, recorded, ways):
    sampler, paths = recorded(ways)
    found = RecordedEpisodes(paths, eight)
    assert (found.protocol, found.fold, found.shots, found.ways) == (PROTOCOL, 1, 2, ways)
    for seed in PROTOCOL.seeds:
        assert list(found.episodes(seed)) == list(sampler.episodes(seed))
    name = "p-fold1-2way-2shot" if ways == 2 else "p-fold1-2shot"
    assert [p.name for p in paths] == [f"{name}-seed0.jsonl", f"{name}-seed3.jsonl"]
    header = json.loads(paths[0].read_text().splitlines()[0])
    named = {"ways"} if ways == 2 else set()
    assert set(header) == {"protocol", "fold", "shots", "seed", "schema", "episodes"} | named


def test_recordings_of_different_ways_do_not_belong_together(eight, recorded):
    (_, one), (_, two) = recorded(1), recorded(2)
    with pytest.raises(DataError, match="different protocols, folds, ways or shots"):
        RecordedEpisodes([one[0], two[1]], eight)


def test_a_missing_seed_and_a_file_that_is_no_recording_are_reported(eight, recorded):
    _, paths = recorded(1)
    with pytest.raises(DataError, match=r"manifests of \[3\] are missing"):
        RecordedEpisodes(paths[:1], eight)
    paths[0].write_text(paths[0].read_text().replace('"fold":1,', ""))
    with pytest.raises(DataError, match="lacks protocol, fold, shots or seed"):
        RecordedEpisodes(paths, eight)


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
        (1, {}, lambda rows: [*rows[:-1], rows[-1] | {"index": 6}], r"has episodes \[6\], those .* 0 .. 5"),
        (1, {}, lambda rows: [*rows[:-1], rows[0]], r"has 1 episodes more than once, like \[0\]"),
        (1, {"shots": 5}, lambda rows: rows, "announces 5 shots and has 2"),
        (1, {"shots": 1}, lambda rows: rows, "announces 1 shots and has 2"),
        (2, {"ways": 3}, lambda rows: rows, "announces 3 ways and has 2"),
    ],
)
def test_an_edited_manifest_is_reported(eight, recorded, ways, header, rows, message):
    _, paths = recorded(ways)
    edited(paths[1], header, rows)
    with pytest.raises(DataError, match=message):
        RecordedEpisodes(paths, eight)
