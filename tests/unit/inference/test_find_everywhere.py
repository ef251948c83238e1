"""Images to label wherever fsspec finds them: folders, archives, lists."""

import errno
import zipfile
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import numpy as np
import pytest

from fewseg.inference import cluster
from fewseg.inference.cluster import _content, _some
from fewseg.inference.find import find_everywhere, find_images
from fewseg.inference.outputs import wrong_names
from fewseg.ops.places import as_url, is_remote, opened, read_bytes
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
    assert list(_some(found)) == [good, good]
    assert list(wrong_names(found, (), ("a",))) == ["../x.png"]
    assert list(found) == ["../x.png", "broken.png", "good.png", "secret.png", "y.png"]
    assert list(bad) == ["broken.png", "secret.png", "y.png"]
    assert "broken.png of " in bad["broken.png"]
    assert "encrypted" in bad["secret.png"]
    assert "there is no /y.png in " in bad["y.png"]


def test_of_a_disk_only_what_is_no_file_is_bad(photos, monkeypatch):
    for path in (photos / "one", photos / "a.png/b.png", photos / ("x" * 300)):
        with pytest.raises(DataError, match=r"cannot be read|there is no"):
            _content("a.png", "file://", str(path))
    monkeypatch.setattr(LocalFileSystem, "cat_file", fails := Mock(side_effect=OSError(errno.EIO, "disk")))
    with pytest.raises(OSError, match=r"a.png cannot be reached .*disk\): check the path, its rights"):
        _content("a.png", "file://", str(photos / "a.png"))
    assert fails.called


def test_a_file_that_is_refused_is_told_from_a_place_that_is_gone(photos, monkeypatch):
    monkeypatch.setattr(
        LocalFileSystem, "cat_file", Mock(side_effect=PermissionError(errno.EACCES, "secret"))
    )
    with pytest.raises(
        PermissionError, match=r"a.png of file:// cannot be read .*secret\): check its rights"
    ):
        read_bytes("file://", str(photos / "a.png"), 9)
    with pytest.raises(
        DataError, match=r"^a: .*a.png of file:// cannot be read .*secret\): check its rights"
    ):
        _content("a", "file://", str(photos / "a.png"))
    assert list(_some(find_everywhere([str(photos)]))) == []


def test_a_file_above_the_limit_is_no_image_and_no_sample(photos, monkeypatch):
    found = find_everywhere([str(photos)])
    monkeypatch.setattr(cluster, "_MOST_BYTES", 10)
    with pytest.raises(DataError, match=r"^one/same.png has more than 10 bytes: shrink it"):
        _content("one/same.png", *found["one/same.png"])
    assert _content("x", *found["b c é.JPG"]) == b"b c \xc3\xa9.JPG"
    assert list(_some(found)) == [b"a.png", b"b c \xc3\xa9.JPG"]


def test_samples_are_read_one_by_one(photos, monkeypatch):
    monkeypatch.setattr(cluster, "read_bytes", reads := Mock(return_value=b"x"))
    samples = _some(find_everywhere([str(photos)]))
    assert reads.call_count == 0
    assert next(samples) == b"x"
    assert reads.call_count == 1


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


def listed(tmp_path, called="list.parquet", **columns):
    """Writes a list of images."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), tmp_path / called)
    return str(tmp_path / called)


def test_a_list_names_files_and_urls(photos, tmp_path):
    fsspec.filesystem("memory").pipe_file("/bucket/x.png", b"x")
    paths = ["photos/a.png", str(photos / "one/same.png"), "memory://bucket/x.png"]
    found = contents(find_everywhere([listed(tmp_path, path=paths, name=["1", "2", "3"])]))
    assert found == {"1": "a.png", "2": "one/same.png", "3": "x"}
    assert list(find_everywhere([listed(tmp_path, path=paths[:2])])) == ["a.png", "one/same.png"]
    assert list(find_everywhere([listed(tmp_path, path=paths)]))[-1] == "memory/bucket/x.png"
    twice = find_everywhere([listed(tmp_path, path=[*paths[:2], "photos/../photos/a.png"])])
    assert list(twice) == ["a.png", "one/same.png"]


def test_a_list_in_a_store_names_files_beside_it(photos, tmp_path):
    store = fsspec.filesystem("memory")
    store.put(f"{photos}/", "/lists/photos", recursive=True)
    store.put(listed(tmp_path, path=["photos/a.png", "photos/two/same.png"]), "/lists/list.parquet")
    found = find_everywhere(["memory://lists/list.parquet"])
    assert contents(found) == {"a.png": "a.png", "two/same.png": "two/same.png"}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"url": ["a.png"]}, "is not a list of images .*path.*: give a Parquet file with a column 'path'"),
        ({"path": ["a.png", "b.png"], "name": ["1", "1"]}, "list.parquet: two images have the name 1: lab"),
        (
            {"path": ["a.png", "a.png"], "name": ["1", "2"]},
            "row 2 gives a.png, 2, which is 1 too: give each image once",
        ),
        ({"path": ["a.png", "b.png", "a.png"], "name": ["1", "1", "1"]}, "two images have the name 1"),
        ({"path": ["a.png", "zip://a::b.zip"]}, "list.parquet, row 2 must have .*, got zip://a::b.zip: corr"),
        ({"path": ["a.png", None]}, "list.parquet, row 2 must have .*, got None: correct it or remove"),
        ({"path": ["a.png", ""]}, "list.parquet, row 2 must have "),
        (
            {"path": ["a.png", "eemory://b"]},
            "list.parquet, row 2: eemory://b cannot .*Protocol not known: ee",
        ),
        (
            {"path": ["a.png", "b.png"], "name": ["1", None]},
            "list.parquet, row 2 must have .*, got b.png, None",
        ),
        ({"path": [b"a.png"]}, "is not a list of images .*must hold texts"),
        ({"path": [1]}, "is not a list of images .*must hold texts"),
        ({"path": [["a.png"]]}, "is not a list of images"),
        ({"path": ["a.png"], "name": [1]}, "is not a list of images .*must hold texts"),
    ],
)
def test_a_list_of_other_values_is_named_with_its_row(tmp_path, columns, words):
    with pytest.raises(DataError, match=words):
        find_everywhere([listed(tmp_path, **columns)])


def test_a_list_that_was_damaged_is_named(tmp_path):
    place = listed(tmp_path, path=[f"{k}.png" for k in range(50)])
    content = (tmp_path / "list.parquet").read_bytes()
    for end, start in ((7, 0), (60, 0), (60, 40), (len(content), 10), (len(content), len(content) - 60)):
        (tmp_path / "list.parquet").write_bytes(content[:start] + b"\xff" * (end - start) + content[end:])
        with pytest.raises(DataError, match=r"list.parquet is not a list of images \(.*\): give a Parquet"):
            find_everywhere([place])


def test_lists_that_would_fill_the_memory_are_read_by_rows(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    before = pyarrow.total_allocated_bytes()
    nulls = pyarrow.nulls(10**7, pyarrow.string())
    place = listed(tmp_path, path=pyarrow.chunked_array([nulls] * 10))
    del nulls
    with pytest.raises(DataError, match=r"row 1 must have"):
        find_everywhere([place])
    long = pyarrow.DictionaryArray.from_arrays(np.zeros(10_000, np.int32), ["x" * 10**6])
    with pytest.raises(DataError, match=r"row 1 must have .* of up to 8192 characters, got x{80}: correct"):
        find_everywhere([listed(tmp_path, path=long)])
    assert pyarrow.total_allocated_bytes() - before < 10**8


def test_places_of_several_kinds_go_together(photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as out:
        out.write(photos / "a.png", "in/a.png")
    fsspec.filesystem("memory").pipe_file("/others/x.png", b"x")
    given = [str(photos), str(tmp_path / "more.zip")]
    both = contents(find_everywhere(given))
    assert both == {"more.zip/in/a.png": "a.png"} | {f"photos/{name}": name for name in NAMES}
    fs = fsspec.filesystem("memory")
    assert fs.protocol == "memory"
    for protocol in ("memory", ("memory", "other")):
        type(fs).protocol = protocol
        try:
            found = contents(find_everywhere([*given, "memory://others"]))
        finally:
            type(fs).protocol = "memory"
        root = str(tmp_path).strip("/")
        assert found == {"memory/others/x.png": "x"} | {f"file/{root}/{k}": v for k, v in both.items()}


def test_a_file_that_several_places_lead_to_is_there_once(photos, tmp_path):
    place = listed(tmp_path, path=["photos/a.png", "photos/one/same.png"])
    assert contents(find_everywhere([str(photos), place])) == {name: name for name in NAMES}
    place = listed(tmp_path, path=["photos/a.png"], name=["first"])
    with pytest.raises(DataError, match=r"a.png is given twice, as a.png and as .*first: give it once"):
        find_everywhere([str(photos), place])
    store = fsspec.filesystem("memory")
    store.put(f"{photos}/", "/once/photos", recursive=True)
    assert list(find_everywhere(["memory://once", "memory://once/photos/one"])) == [
        f"photos/{k}" for k in NAMES
    ]


def test_the_outputs_are_left_out_everywhere(photos, tmp_path):
    place = listed(tmp_path, path=["photos/a.png", "photos/one/same.png"])
    assert list(find_everywhere([place], photos / "one")) == ["a.png"]
    opened.cache_clear()
    with ThreadPoolExecutor(1) as other:  # as an earlier run in this process does
        other.submit(opened, "file://").result()
    assert list(find_everywhere([place, str(photos / "a.png")], photos / "one")) == ["a.png"]
    store = fsspec.filesystem("memory")
    store.put(f"{photos}/", "/left/photos", recursive=True)
    found = find_everywhere(["memory://left/photos"], leave_out="memory://left/photos/one")
    assert list(found) == [name for name in NAMES if not name.startswith("one/")]


def test_a_folder_whose_name_is_like_a_pattern_is_that_folder(photos, tmp_path):
    photos.rename(tmp_path / "photos[1]")
    place = listed(tmp_path, "x[2].parquet", path=["photos[1]/a.png"])
    found = find_everywhere([str(tmp_path / "photos[1]"), place])
    assert contents(found) == {name: name for name in NAMES}
    for name in NAMES:
        fsspec.filesystem("memory").pipe_file(f"/like/photos[1]/{name}", name.encode())
    assert contents(find_everywhere(["memory://like/photos[1]"])) == {name: name for name in NAMES}
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "photos[1]").rename(tmp_path / "folder.zip/photos")
    assert list(find_everywhere([str(tmp_path / "folder.zip")])) == [f"photos/{name}" for name in NAMES]


def test_places_without_images_or_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match="memory://nothing: found no images there"):
        find_everywhere(["memory://nothing"])
    with pytest.raises(OSError, match=r"unknown://x cannot be reached .*not known.*: check the address"):
        find_everywhere(["unknown://x"])
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with pytest.raises(OSError, match=r"a.zip cannot be reached .*not a zip file\): check the path, "):
        find_everywhere([str(tmp_path / "a.zip")])
    for gone in ("gone.zip", "*.zip", "gone.parquet"):
        with pytest.raises(DataError, match=rf"{gone[1:]} does not exist: give folders, "):
            find_everywhere([str(tmp_path / gone)])
    with pytest.raises(DataError, match=r"zip://::a.zip must be one place, without '::': give folders, "):
        find_everywhere(["zip://::a.zip"])


def test_a_url_that_was_a_path_gets_its_slash_again(tmp_path):
    from pathlib import Path

    assert as_url(Path("s3://bucket/out")) == "s3://bucket/out"
    assert as_url(Path("/tmp/out")) == "/tmp/out"
    assert not is_remote(tmp_path)
