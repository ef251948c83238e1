"""Annotation files of COCO: regions drawn against other code than the reader's, and invalid entries."""

import json
from collections import Counter

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from fewseg.annotations.coco import compact
from fewseg.data.coco import draw_labels, instance_of, read_annotations
from fewseg.types import DataError

SIZE = (20, 30)


def box(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


def region(id, class_id, *polygons, crowd=False):
    return checked(list(polygons), id=id, category_id=class_id, iscrowd=int(crowd))


def checked(segmentation, counted=None, **entry):
    raw = compact({"id": 1, "image_id": 1, "category_id": 1, "segmentation": segmentation, **entry})
    counted = Counter() if counted is None else counted
    return instance_of(raw, {i: f"class {i}" for i in range(1, 10)}, SIZE, "here", counted)


def test_polygons_of_a_region_are_united():
    found = region(1, 1, box(0, 0, 6, 6), box(3, 3, 10, 10)).shape.draw(SIZE)
    wanted = np.zeros(SIZE, dtype=bool)
    wanted[0:6, 0:6] = wanted[3:10, 3:10] = True
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    ("edges", "rows", "columns"),
    [
        ((-7, 4, 9, 12), (4, 12), (0, 9)),
        ((20, 4, 45, 12), (4, 12), (20, 30)),
        ((5, -9, 9, 12), (0, 12), (5, 9)),
        ((5, 4, 60, 12), (4, 12), (5, 30)),
        ((5, 14, 9, 33), (14, 20), (5, 9)),
        ((-5, -5, 40, 30), (0, 20), (0, 30)),
        ((-9, -9, -2, -2), (0, 0), (0, 0)),
    ],
)
def test_what_lies_outside_the_image_is_cut_off(edges, rows, columns):
    counted = Counter()
    found = checked([box(*edges)], counted).shape.draw(SIZE)
    wanted = np.zeros(SIZE, dtype=bool)
    wanted[slice(*rows), slice(*columns)] = True
    assert np.array_equal(found, wanted)
    assert counted["polygons outside their image, clipped"] == 1


def test_a_slanted_polygon_is_clipped_as_if_drawn_on_a_larger_image():
    rng = np.random.default_rng(3)
    for _ in range(60):
        points = rng.uniform((-25, -18), (50, 36), (5, 2))
        found = region(1, 1, points.flatten().tolist()).shape.draw(SIZE)
        large = coco_mask.decode(coco_mask.frPyObjects([(points + 40).flatten().tolist()], 120, 140))[:, :, 0]
        assert np.array_equal(found, large[40:60, 40:70].astype(bool))


def test_a_pixel_belongs_to_the_smallest_thing_over_it_whatever_the_order():
    large, middle, small = (
        region(1, 5, box(0, 0, 20, 20)),
        region(2, 6, box(2, 2, 12, 12)),
        region(3, 7, box(4, 4, 8, 8)),
    )
    wanted = np.zeros(SIZE, dtype=np.uint8)
    wanted[0:20, 0:20], wanted[2:12, 2:12], wanted[4:8, 4:8] = 5, 6, 7
    for order in ([large, middle, small], [small, middle, large], [middle, small, large]):
        assert np.array_equal(draw_labels(order, SIZE), wanted)


def test_of_two_things_of_one_size_the_lower_annotation_id_is_on_top():
    one, two = region(8, 5, box(0, 0, 10, 10)), region(9, 6, box(5, 0, 15, 10))
    for order in ([one, two], [two, one]):
        labels = draw_labels(order, SIZE)
        assert (labels[0, 7], labels[0, 12]) == (5, 6)


def test_a_crowd_is_ignored_and_a_thing_over_it_is_not():
    crowd = region(1, 5, box(0, 0, 4, 4), crowd=True)
    thing = region(2, 6, box(2, 0, 12, 10))
    for order in ([crowd, thing], [thing, crowd]):
        labels = draw_labels(order, SIZE)
        assert (labels[1, 0], labels[1, 3], labels[1, 11], labels[15, 15]) == (255, 6, 6, 0)
        assert 5 not in labels


def test_polygons_of_two_points_are_left_out_and_counted():
    counted = Counter()
    assert len(checked([[1, 1, 5, 5], box(2, 2, 6, 6)], counted).shape.polygons) == 1
    assert checked([[1, 1, 5, 5]], counted) is None
    assert counted["polygons of fewer than 3 points, left out"] == 2
    assert counted["annotations without a polygon of 3 points, left out"] == 1


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 1, 5, 5, 9]], "must be x, y, x, y"),
        ([["a", 1, 5, 5, 9, 9]], "must be x, y, x, y"),
        ([[1, 1, 5, float("nan"), 9, 9]], "finite"),
        ([box(0, 0, 61, 10)], "31 pixels outside its image of 30 x 20"),
        ("text", "must be polygons, an RLE"),
        ({"size": [20, 31], "counts": [620]}, r"size \[20, 31\] .*its image of \[20, 30\]"),
    ],
)
def test_an_invalid_segmentation_is_refused_before_anything_is_drawn(segmentation, message):
    with pytest.raises(DataError, match=message):
        checked(segmentation)


IMAGE = {"id": 4, "file_name": "a.jpg", "height": 12, "width": 16}
SQUARE = [[0, 0, 3, 0, 3, 3, 0, 3]]
THING = {"id": 7, "image_id": 4, "category_id": 1, "segmentation": SQUARE, "iscrowd": 0}
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
            r"categories, entry 0: 'id' must be a whole number, got \[1\]",
        ),
        ({"categories": [3, PERSON]}, "categories, entry 0 must be an object, got 3"),
        (
            {"annotations": [THING | {"id": "abc"}]},
            "annotation abc: the id must be a whole number, got 'abc'",
        ),
        ({"annotations": [THING | {"iscrowd": "0"}]}, "annotation 7: iscrowd must be 0 or 1, got '0'"),
        (
            {"images": [IMAGE | {"height": 10**9}]},
            "image 4, a.jpg, must have up to .* pixels, got 16 x 1000000000",
        ),
        ({"images": [IMAGE | {"width": float("inf")}]}, "image 4: 'width' must be a finite number, got inf"),
        ({"images": [{"id": 4, "file_name": "a.jpg", "height": 3}]}, "image 4 must have 'width'"),
        ({"images": [IMAGE, IMAGE]}, "two images have one id, 4"),
        ({"images": [IMAGE, IMAGE | {"id": 5}]}, "image 5, a.jpg, is listed twice"),
        ({"annotations": [THING | {"image_id": 77}]}, "entry 0 is of image 77, which the file does"),
        (
            {"annotations": [THING | {"category_id": 12}]},
            r"7: the category must be one of \[1\], got 12",
        ),
        (
            {"annotations": [THING | {"segmentation": None}]},
            "or an RLE, got none",
        ),
        ({"annotations": [3]}, "annotations, entry 0 must be an object, got 3"),
        ({"annotations": []}, "has no annotations; expected an instances file"),
        ({"images": {}}, "has no images"),
        ({"categories": [{"id": 1, "name": "cat"}]}, "category 1 'cat' is not one of COCO's 80"),
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


def test_a_clean_file_has_nothing_that_was_tolerated(read):
    assert read().tolerated == {}
    outside = THING | {"segmentation": [[0, 0, 20, 0, 20, 3, 0, 3]]}
    assert read(annotations=[THING, outside]).tolerated == {"polygons outside their image, clipped": 1}
