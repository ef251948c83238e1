import math

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from fewseg.annotations.formats import iter_supports, read_supports
from fewseg.annotations.options import ReadOptions
from fewseg.annotations.shapes import ellipse, rectangle, stroke
from fewseg.types import DataError

SIZE = (30, 40)
X, Y = [3, 35.5, 12], [2, 8, 28]
TRIANGLE = {"name": "polygon", "all_points_x": X, "all_points_y": Y}
FILLED = coco_mask.decode(coco_mask.frPyObjects([[3, 2, 35.5, 8, 12, 28]], *SIZE))[..., 0]


@pytest.fixture(autouse=True)
def photos(tmp_path, write_image):
    for name in ("a é.png", "b.png"):
        write_image(tmp_path / "images" / name, SIZE)


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


def annotations(**regions):
    names = {"a": "a é.png", "b": "b.png"}
    return {
        f"{names[k]}123": {"filename": names[k], "size": 123, "regions": found, "file_attributes": {}}
        for k, found in regions.items()
    }


@pytest.mark.parametrize("form", ["annotations", "project", "numbered"])
def test_polygons_are_read_from_each_form_of_the_file(tmp_path, write_json, caplog, form):
    regions = [
        region(TRIANGLE, kind="rust"),
        region(TRIANGLE, kind={"rust": True, "crack": True, "x": False}),
    ]
    value = annotations(a=dict(enumerate(regions)) if form == "numbered" else regions, b=[])
    value = (
        {"_via_settings": {}, "_via_img_metadata": value, "_via_attributes": {}}
        if form == "project"
        else value
    )
    (found,) = read_supports(write_json(tmp_path / "via.json", value))
    assert (found.image, found.size, found.weak) == (tmp_path / "images" / "a é.png", SIZE, frozenset())
    assert set(found.masks) == {"rust", "crack"}
    for mask in found.masks.values():
        assert np.array_equal(mask, FILLED)
    (message,) = caplog.messages
    assert "1 images have no region and are left out, the first is b.png123" in message


@pytest.mark.parametrize(
    ("shape", "drawn", "kind"),
    [
        ({"name": "rect", "x": 5, "y": 6, "width": 20, "height": 11}, rectangle(5, 6, 20, 11, SIZE), "weak"),
        ({"name": "circle", "cx": 20, "cy": 15, "r": 7.5}, ellipse(20, 15, 7.5, 7.5, SIZE), "exact"),
        ({"name": "ellipse", "cx": 20, "cy": 15, "rx": 12, "ry": 4}, ellipse(20, 15, 12, 4, SIZE), "exact"),
        (
            {"name": "ellipse", "cx": 20, "cy": 15, "rx": 12, "ry": 4, "theta": math.pi / 6},
            ellipse(20, 15, 12, 4, SIZE, 30),
            "exact",
        ),
        ({**TRIANGLE, "name": "polyline"}, stroke([(3, 2), (35.5, 8), (12, 28)], 6, SIZE), "scribble"),
        ({"name": "point", "cx": 20, "cy": 15}, stroke([(20, 15)], 6, SIZE), "scribble"),
    ],
)
def test_each_shape(tmp_path, write_json, shape, drawn, kind):
    value = annotations(a=[region(shape, label="rust", occluded="no")])
    (found,) = read_supports(write_json(tmp_path / "via.json", value), ReadOptions(stroke=6))
    assert np.array_equal(found.masks["rust"], np.where(drawn, 1, 255 if kind == "scribble" else 0))
    assert found.weak == (frozenset() if kind == "exact" else {"rust"})


def test_regions_without_attributes_are_of_the_class_of_the_options_with_a_warning(
    tmp_path, write_json, caplog
):
    value = annotations(a=[region(TRIANGLE), region(TRIANGLE, kind=" ")])
    (found,) = read_supports(write_json(tmp_path / "via.json", value), ReadOptions(class_name="balloon"))
    assert np.array_equal(found.masks["balloon"], FILLED)
    (message,) = caplog.messages
    assert "no region has an attribute: all are of the class 'balloon'" in message


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (region(TRIANGLE), "has no 'kind'; expected the name of a class"),
        (region({"name": "cube"}, kind="a"), "is a 'cube'; expected polygon, rect"),
        (region({**TRIANGLE, "all_points_x": [1, 2]}, kind="a"), "2 x and 3 y"),
        (region({**TRIANGLE, "all_points_x": [1, 2, None]}, kind="a"), "all_points_x is None"),
        (region({"name": "polygon"}, kind="a"), "no 'all_points_x'"),
        (region({"name": "circle", "cx": 1, "cy": 2}, kind="a"), "'r' is None; expected a finite number"),
        (region({"name": "rect", "x": 50, "y": 6, "width": 20, "height": 11}, kind="a"), "covers no pixel"),
        (3, "region 1 is 3"),
    ],
)
def test_a_wrong_region_is_reported_and_the_other_images_are_kept(tmp_path, write_json, wrong, message):
    good = region(TRIANGLE, kind="a")
    bad, kept = iter_supports(write_json(tmp_path / "via.json", annotations(a=[good, wrong], b=[good])))
    assert kept.image.name == "b.png"
    assert "a é.png123', region 1" in str(bad.error)
    assert message in str(bad.error)


@pytest.mark.parametrize("names", [("kind", "size"), ("label", "name")])
def test_several_attributes_that_may_be_the_class_are_reported(tmp_path, write_json, names):
    value = annotations(a=[region(TRIANGLE, **dict.fromkeys(names, "a"))])
    with pytest.raises(DataError, match=r"regions have the attributes .*rename the one that is the class"):
        read_supports(write_json(tmp_path / "via.json", value))
