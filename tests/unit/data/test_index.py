import json

import numpy as np
import pytest
import torch

from fewseg import data
from fewseg.data import index as index_module
from fewseg.data.folder import ListFileSource
from fewseg.data.index import ImageFacts, build_index, measure
from fewseg.types import DataError

A = np.array([[0, 1, 1], [2, 255, 0]])
B = np.array([[3, 3], [0, 0], [0, 3]])
NAMES = ["cat", "dog", "cow"]


@pytest.fixture
def source(tmp_path, write_list):
    return ListFileSource(tmp_path, write_list({"b": B, "a": A}), NAMES)


def test_the_index_counts_pixels_of_classes_without_background_and_ignore(source, capfd):
    index = build_index(source, progress=True)
    assert index.images == {
        "b": ImageFacts(height=3, width=2, areas={3: 3}),
        "a": ImageFacts(height=2, width=3, areas={1: 2, 2: 1}),
    }
    assert (index.ids, index.name, len(index)) == (("b", "a"), "list", 2)
    assert index.class_names == {1: "cat", 2: "dog", 3: "cow"}
    assert capfd.readouterr() == ("", "")  # no progress bar where there is no terminal
    assert "a" in index
    assert "z" not in index


def test_questions_to_the_index_respect_the_area_and_the_order(make_index):
    index = make_index({"z": {1: 5, 2: 1}, "a": {2: 9, 1: 4}, "m": {3: 2}})
    assert index.ids == ("z", "a", "m")
    assert index.images_of(1) == ("a", "z")
    assert index.images_of(1, 5) == ("z",)
    assert index.images_of(1, 6) == ()
    assert index.images_of(9) == ()
    assert index.classes_in("a", 4) == (1, 2)
    assert index.classes_in("a", 5) == (2,)
    assert index.images_with_any([1, 3]) == ("a", "m", "z")
    assert index.images_with_any([1, 3], 5) == ("z",)


def test_an_index_can_be_narrowed(make_index):
    index = make_index({"z": {1: 5, 2: 1}, "a": {2: 9}, "m": {3: 2}})
    assert index.images_of(2) == ("a", "z")
    assert index.without([1, 3]).ids == ("a",)
    assert index.without([2], min_area=2).ids == ("z", "m")
    assert index.without([1]).images_of(2) == ("a",)
    assert index.only(["m", "z"]).ids == ("m", "z")


def test_the_content_digest_follows_areas_and_not_the_list_order(make_index):
    one = make_index({"z": {1: 5, 2: 1}, "a": {2: 9}})
    same = make_index({"a": {2: 9}, "z": {2: 1, 1: 5}}, name="other")
    assert one.content_digest() == same.content_digest()
    assert one.content_digest() != make_index({"z": {1: 5, 2: 1}, "a": {2: 8}}).content_digest()
    assert one.content_digest() != make_index({"z": {1: 5, 2: 1}, "b": {2: 9}}).content_digest()


def test_the_second_time_the_index_comes_from_the_cache(source, tmp_path, monkeypatch):
    first = build_index(source, cache_dir=tmp_path / "c", progress=False)
    monkeypatch.setattr(index_module, "measure", lambda *_: pytest.fail("read again"))
    again = build_index(source, cache_dir=tmp_path / "c", progress=False)
    assert again == first
    assert again.ids == first.ids


def test_a_changed_file_is_read_again(source, tmp_path, write_mask):
    build_index(source, cache_dir=tmp_path / "c", progress=False)
    write_mask(tmp_path / "lab" / "a.png", np.array([[3, 3, 3], [0, 0, 0]]))
    assert build_index(source, cache_dir=tmp_path / "c", progress=False).images["a"].areas == {3: 3}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"schema":"fewseg-index-0","images":[]}', b'{"a":1}', None]
)
def test_a_broken_or_foreign_cache_file_is_built_again(source, tmp_path, content):
    first = build_index(source, cache_dir=tmp_path / "c", progress=False)
    (file,) = (tmp_path / "c").iterdir()
    stored = json.loads(file.read_bytes())
    stored["images"].pop()  # None: a valid file, of other images
    file.write_bytes(json.dumps(stored).encode() if content is None else content)
    assert build_index(source, cache_dir=tmp_path / "c", progress=False) == first
    assert json.loads(file.read_bytes())["schema"] == "fewseg-index-1"


def test_a_cache_that_cannot_be_written_costs_a_warning_and_nothing_else(source, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    index = build_index(source, cache_dir=tmp_path / "file" / "below", progress=False)
    assert len(index) == 2
    assert "not cached" in caplog.text


def test_all_bad_images_are_reported_together(tmp_path, write_list, write_image):
    source = ListFileSource(tmp_path, write_list({f"i{k}": A for k in range(9)}), NAMES)
    for k in range(1, 7):
        write_image(tmp_path / "img" / f"i{k}.png", (5, 3))
    (tmp_path / "img" / "i7.png").write_bytes((tmp_path / "img" / "i0.png").read_bytes()[:40])
    with pytest.raises(DataError) as caught:
        build_index(source, progress=False, workers=3)
    message = str(caught.value)
    assert "7 of 9 images cannot be used" in message
    assert [f"image i{k}:" in message for k in range(9)] == [False] + [True] * 5 + [False] * 3
    assert "and 2 more" in message


def test_an_image_and_its_labels_are_of_one_size():
    class Drawn:
        name = "drawn"

        def image_size(self, id):
            return 4, int(id)

        def read_labels(self, id):
            return torch.ones(4, 5, dtype=torch.uint8)

    assert measure(Drawn(), "5") == ImageFacts(height=4, width=5, areas={1: 20})
    with pytest.raises(DataError, match="image 6: the image is 6 x 4"):
        measure(Drawn(), "6")


def test_every_public_name_of_the_package_can_be_imported_and_no_other():
    for name in data.__all__:
        assert getattr(data, name).__class__ is not type(data)
    with pytest.raises(AttributeError, match="no attribute 'coco_21i'"):
        _ = data.coco_21i
