from __future__ import annotations

import json

import pytest

from fewseg.data.episodes import EpisodeSpec, read_manifest, write_manifest
from fewseg.data.errors import DataError

SPECS = (EpisodeSpec(0, 4, "q", ("s", "t")), EpisodeSpec(1, 5, "s", ("q",)))


@pytest.fixture
def path(tmp_path):
    write_manifest(tmp_path / "m.jsonl", SPECS, {"protocol": "p", "fold": 2})
    return tmp_path / "m.jsonl"


@pytest.fixture
def index(make_index):
    return make_index({"q": {4: 1, 5: 1}, "s": {4: 1, 5: 1}, "t": {4: 1}})


def test_a_manifest_gives_back_what_was_written(path, index):
    header, specs = read_manifest(path, index)
    assert specs == SPECS
    assert header == {"protocol": "p", "fold": 2, "schema": "fewseg-manifest-1", "episodes": 2}
    assert read_manifest(path) == (header, specs)


def test_a_manifest_is_one_json_object_a_line(path):
    lines = path.read_text().splitlines()
    assert json.loads(lines[1]) == {"index": 0, "class_id": 4, "query": "q", "supports": ["s", "t"]}
    assert len(lines) == 3


def test_a_failed_write_leaves_the_older_manifest(path):
    before = path.read_bytes()

    def failing():
        yield SPECS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_manifest(path, failing(), {})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["m.jsonl"]


def test_images_that_the_data_does_not_hold_are_told(path, make_index):
    with pytest.raises(DataError, match=r"names 1 images that made does not hold, like \['t'\]"):
        read_manifest(path, make_index({"q": {4: 1, 5: 1}, "s": {4: 1, 5: 1}}))


def test_an_image_without_the_class_of_its_episode_is_told(path, make_index):
    with pytest.raises(DataError, match=r"1 images do not show .* class 5 in 'q'"):
        read_manifest(path, make_index({"q": {4: 1}, "s": {4: 1, 5: 1}, "t": {4: 1}}))


def test_a_truncated_manifest_is_told(path):
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    with pytest.raises(DataError, match="announces 2 episodes and holds 1"):
        read_manifest(path)


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"schema": "fewseg-manifest-1"}'])
def test_a_file_that_is_no_manifest_is_told(path, content):
    path.write_text(content)
    with pytest.raises(DataError, match=r"m\.jsonl cannot be read"):
        read_manifest(path)


def test_a_missing_file_and_another_schema_are_told(path):
    with pytest.raises(DataError, match="cannot be read"):
        read_manifest(path.with_name("none"))
    path.write_text('{"schema": "other", "episodes": 0}\n')
    with pytest.raises(DataError, match=r"schema 'other'; accepted is 'fewseg-manifest-1'"):
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
