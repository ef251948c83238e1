"""Images to label wherever fsspec finds them: folders, archives, lists."""

import errno
import zipfile
from unittest.mock import Mock

import pytest

from fewseg.inference.cluster import _bytes_of, _content
from fewseg.inference.find import find_everywhere, find_images
from fewseg.ops.places import as_url, is_remote, read_bytes
from fewseg.types import DataError

fsspec = pytest.importorskip("fsspec")
from fsspec.implementations.local import LocalFileSystem  # noqa: E402 - after what may be absent


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


@pytest.mark.parametrize(
    "kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_of_an_archive_only_the_broken_files_are_bad(tmp_path, kind):
    """A bad image is counted and listed; with any other error the run would end, whenever it goes on."""
    good, names = bytes(range(256)) * 4, ["../x.png", "/y.png", "broken.png", "good.png", "secret.png"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w", kind) as out:
        for name in names:
            out.writestr(name, good)
        start = out.getinfo("broken.png").header_offset + 30 + len("broken.png")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[start + 20 : start + 30] = bytes(255 - byte for byte in content[start + 20 : start + 30])
    content[content.rindex(b"PK\x03\x04") + 6] |= 1  # the last one is encrypted, say its two headers
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    found = find_everywhere([str(tmp_path / "a.zip")])
    bad = {}
    for name, place in found.items():
        try:
            assert _content(name, *place) == good
        except DataError as error:
            bad[name] = str(error)
            assert _bytes_of(*place) in (None, good)
    assert list(found) == ["../x.png", "broken.png", "good.png", "secret.png", "y.png"]
    assert list(bad) == ["../x.png", "broken.png", "secret.png", "y.png"]
    assert "image name '../x.png' is invalid" in bad["../x.png"]
    assert "broken.png of " in bad["broken.png"]
    assert "encrypted" in bad["secret.png"]
    assert "there is no /y.png in " in bad["y.png"]


def test_of_a_disk_only_what_is_no_file_is_bad(photos, monkeypatch):
    for path in (photos / "one", photos / "a.png/b.png", photos / ("x" * 300)):
        with pytest.raises(DataError, match=r"cannot be read|there is no"):
            _content("a.png", "file://", str(path))
    monkeypatch.setattr(LocalFileSystem, "cat_file", fails := Mock(side_effect=OSError(errno.EIO, "disk")))
    with pytest.raises(OSError, match=r"cannot be reached .*disk"):
        _content("a.png", "file://", str(photos / "a.png"))
    assert fails.called


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
