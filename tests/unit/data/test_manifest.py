from __future__ import annotations

import json

import pytest

from fewseg.data.episodes import EpisodeSpec, Way, read_manifest, write_manifest
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
def test_a_manifest_of_other_images_is_told(path, make_index, images, message):
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
        ('{"schema": "other", "episodes": 0}\n', "schema 'other'; expected 'fewseg-manifest-1'"),
        (
            HEADER + '{"index":0,"class_id":4,"query":"q","supports":["s"]}',
            "announces 2 episodes and holds",
        ),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_complete_manifest_is_told(path, content, message):
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_manifest(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not an episode"),
        ('{"index": 1, "class_id": 5, "query": "s"}', "is not an episode"),
        ('{"index": 1, "class_id": "x", "query": "s", "supports": ["q"]}', "is not an episode"),
        ('{"index": 1, "class_id": 5, "query": "s", "supports": []}', "one support"),
        ('{"index": 1, "class_id": 5, "query": "s", "supports": ["q", "s"]}', "never its own query"),
    ],
)
def test_a_broken_line_is_told_by_number(path, line, message):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], line]))
    with pytest.raises(DataError, match=f"line 3: .*{message}"):
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


def test_the_query_need_not_show_the_further_classes(tmp_path, make_index):
    specs = (EpisodeSpec(0, 4, "q", ("s",), (Way(5, ("u",)),)),)
    write_manifest(tmp_path / "m.jsonl", specs, {})
    index = make_index({"q": {4: 1}, "s": {4: 1}, "u": {5: 1}})
    assert read_manifest(tmp_path / "m.jsonl", index)[1] == specs


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ('[{"class_id": 4, "supports": ["q", "s"]}]', "never its own query"),
        ('[{"class_id": 4, "supports": []}]', "one support"),
        ('[{"class_id": 5, "supports": ["t", "u"]}]', r"ways of the classes \[5, 5\]"),
        ('[{"class_id": 4, "supports": ["t"]}]', r"with \[2, 1\] supports"),
        ('[{"supports": ["t", "u"]}]', "is not an episode"),
        ('{"class_id": 4, "supports": ["t", "u"]}', "is not an episode"),
        ("7", "is not an episode"),
    ],
)
def test_a_broken_further_way_is_told_by_number(two_ways, others, message):
    lines = two_ways.read_text().splitlines()
    line = f'{{"index": 1, "class_id": 5, "query": "s", "supports": ["q", "u"], "others": {others}}}'
    two_ways.write_text("\n".join([*lines[:2], line]))
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
