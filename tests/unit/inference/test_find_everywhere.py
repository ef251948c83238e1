"""Images to label wherever fsspec finds them: folders, archives, lists."""

import zipfile

import pytest

from fewseg.inference.find import find_everywhere, find_images
from fewseg.ops.places import as_url, is_remote, read_bytes
from fewseg.types import DataError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def photos(tmp_path):
    for name in ("a.png", "b c é.JPG", "one/same.png", "two/same.png", ".hidden/x.png", "notes.txt"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(name.encode())
    return tmp_path / "photos"


NAMES = ["a.png", "b c é.JPG", "one/same.png", "two/same.png"]


def contents(found):
    return {name: read_bytes(*place, 100).decode() for name, place in found.items()}


def test_a_folder_has_the_names_that_it_has_on_one_machine(photos):
    assert list(find_everywhere([str(photos)])) == list(find_images([photos])) == NAMES
    assert contents(find_everywhere([str(photos)])) == {name: name for name in NAMES}


def test_an_archive_has_the_names_of_its_files(photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as out:
        for file in photos.rglob("*"):
            out.write(file, file.relative_to(photos))
    assert contents(find_everywhere([str(tmp_path / "photos.zip")])) == {name: name for name in NAMES}


def test_an_object_store_is_listed_whole_by_pattern_and_by_file(photos):
    store = fsspec.filesystem("memory")
    store.put(f"{photos}/", "/bucket/photos", recursive=True)
    for place, names in (
        ("memory://bucket/photos", NAMES),
        ("memory://bucket/photos/*/same.png", NAMES[2:]),
        ("memory://bucket/photos/a.png", NAMES[:1]),
    ):
        assert contents(find_everywhere([place])) == {name: name for name in names}
    both = find_everywhere(["memory://bucket/photos/one", "memory://bucket/photos/two"])
    assert list(both) == NAMES[2:]


def test_a_list_names_files_and_urls(photos, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    fsspec.filesystem("memory").pipe_file("/bucket/x.png", b"x")
    paths = ["photos/a.png", str(photos / "one/same.png"), "memory://bucket/x.png"]
    parquet.write_table(pyarrow.table({"path": paths, "name": ["1", "2", "3"]}), tmp_path / "list.parquet")
    found = contents(find_everywhere([str(tmp_path / "list.parquet")]))
    assert found == {"1": "a.png", "2": "one/same.png", "3": "x"}
    parquet.write_table(pyarrow.table({"path": paths[:2]}), tmp_path / "list.parquet")
    assert list(find_everywhere([str(tmp_path / "list.parquet")])) == ["a.png", "one/same.png"]
    for wrong, words in (
        ({"url": paths}, "not a list of images .*column 'path'"),
        ({"path": paths, "name": ["1", "1", "2"]}, "one name for two images"),
        ({"path": ["zip://a::b.zip"]}, "plain files and URLs"),
    ):
        parquet.write_table(pyarrow.table(wrong), tmp_path / "list.parquet")
        with pytest.raises(DataError, match=words):
            find_everywhere([str(tmp_path / "list.parquet")])
    (tmp_path / "list.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"list.parquet is not a list of images"):
        find_everywhere([str(tmp_path / "list.parquet")])


def test_places_without_images_or_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match="memory://nothing: found no images there"):
        find_everywhere(["memory://nothing"])
    with pytest.raises(OSError, match=r"unknown://x cannot be reached .*Protocol not known"):
        find_everywhere(["unknown://x"])
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with pytest.raises(OSError, match=r"a.zip cannot be reached .*not a zip"):
        find_everywhere([str(tmp_path / "a.zip")])
    with pytest.raises(FileNotFoundError):
        find_everywhere([str(tmp_path / "gone.zip")])


def test_a_url_that_was_a_path_gets_its_slash_again(tmp_path):
    from pathlib import Path

    assert as_url(Path("s3://bucket/out")) == "s3://bucket/out"
    assert as_url(Path("/tmp/out")) == "/tmp/out"
    assert not is_remote(tmp_path)
