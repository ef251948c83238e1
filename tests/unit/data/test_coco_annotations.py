"""Invalid entries of an annotation file: each is named, none is guessed and none is a traceback."""

from __future__ import annotations

import json

import pytest

from fewseg.data.coco import read_annotations
from fewseg.types import DataError

IMAGE = {"id": 4, "file_name": "a.jpg", "height": 12, "width": 16}
BOX = [[0, 0, 3, 0, 3, 3, 0, 3]]
THING = {"id": 7, "image_id": 4, "category_id": 1, "segmentation": BOX, "iscrowd": 0}
PERSON = {"id": 1, "name": "person"}


@pytest.fixture
def read(tmp_path):
    """(images, categories, annotations) -> what is read of a file of them."""
    path = tmp_path / "instances.json"

    def write_and_read(images=(IMAGE,), categories=(PERSON,), annotations=(THING,)):
        parts = {"images": images, "categories": categories, "annotations": annotations}
        path.write_text(json.dumps(parts))
        return read_annotations(path)

    return write_and_read


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"categories": [{"id": [1], "name": "person"}]},
            r"categories, entry 0: 'id' is \[1\]; expected a whole",
        ),
        ({"categories": [{"id": {}}, PERSON]}, r"categories, entry 0: 'id' is \{\}"),
        ({"categories": [3, PERSON]}, "categories, entry 0 is 3"),
        (
            {"annotations": [THING | {"id": "abc"}]},
            "annotation abc has the id 'abc'; expected a whole number",
        ),
        ({"annotations": [THING | {"id": None}]}, "has the id None"),
        ({"annotations": [THING | {"iscrowd": "0"}]}, "annotation 7 has iscrowd '0'; expected 0 or 1"),
        ({"annotations": [THING | {"iscrowd": 2}]}, "annotation 7 has iscrowd 2"),
        ({"images": [IMAGE | {"height": 10**9}]}, "image 4, a.jpg, is 16 x 1000000000 pixels; expected 1 to"),
        ({"images": [IMAGE | {"height": 0}]}, "image 4: 'height' is 0"),
        ({"images": [IMAGE | {"width": float("inf")}]}, "image 4: 'width' is inf"),
        ({"images": [{"id": 4, "file_name": "a.jpg", "height": 3}]}, "image 4 has no 'width'"),
        ({"images": [IMAGE, IMAGE]}, "two images have one id, 4"),
        ({"images": [IMAGE, IMAGE | {"id": 5}]}, "image 5, a.jpg, is listed twice"),
        ({"annotations": [THING | {"image_id": 77}]}, "entry 0 is of image 77, which the file does"),
        ({"annotations": [THING | {"category_id": 12}]}, "annotation 7 is of category 12"),
        (
            {"annotations": [THING | {"segmentation": {"size": [16, 12], "counts": [192]}}]},
            "7: the RLE is of size",
        ),
        ({"annotations": [THING | {"segmentation": None}]}, "7 has the segmentation None"),
        ({"annotations": [3]}, "annotations, entry 0 is 3"),
        ({"annotations": []}, "has no annotations; expected an instances file"),
        ({"images": {}}, "has no images"),
        ({"categories": [{"id": 1, "name": "cat"}]}, "category 1 'cat' is not one of COCO's 80"),
        ({"categories": [PERSON, {"id": 91, "name": "x"}]}, "category 91 'x'"),
    ],
)
def test_an_invalid_entry_is_named_with_its_file(read, changes, message):
    with pytest.raises(DataError, match=rf"instances\.json.*(.|\n)*{message}"):
        read(**changes)


@pytest.mark.parametrize("text", ["", '{"images": [', "[1, 2]", "\x00"])
def test_a_truncated_or_foreign_file_is_reported(tmp_path, text):
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(DataError, match=r"instances\.json (cannot be read|has no images)"):
        read_annotations(tmp_path / "instances.json")


@pytest.mark.parametrize("crowd", [0, 1, False, True])
def test_a_region_is_a_crowd_where_the_file_says_so(read, crowd):
    found = read(annotations=[THING | {"iscrowd": crowd}])
    assert [instance.crowd for instance in found.instances[0]] == [bool(crowd)]


def test_a_clean_file_has_nothing_that_was_tolerated(read):
    assert read().tolerated == {}
    outside = THING | {"segmentation": [[0, 0, 20, 0, 20, 3, 0, 3]]}
    assert read(annotations=[THING, outside]).tolerated == {"polygons outside their image, clipped": 1}
