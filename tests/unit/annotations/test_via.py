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
    assert (found.image, found.size) == (tmp_path / "images" / "a é.png", SIZE)
    assert set(found.masks) == {"rust", "crack"}
    for mask in found.masks.values():
        assert np.array_equal(mask, FILLED)
    (message,) = caplog.messages
    assert "1 image left out (no region), the first is b.png123" in message


@pytest.mark.parametrize(
    ("shape", "drawn", "kind"),
    [
        ({"name": "rect", "x": 5, "y": 6, "width": 20, "height": 11}, rectangle(5, 6, 20, 11, SIZE), "exact"),
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
        (region(TRIANGLE), "must have a class, got no 'kind'"),
        (region({"name": "cube"}, kind="a"), "polyline, point, got 'cube'"),
        (region({**TRIANGLE, "all_points_x": [1, 2]}, kind="a"), "2 x and 3 y"),
        (
            region({**TRIANGLE, "all_points_x": [1, 2, None]}, kind="a"),
            "all_points_x must be a finite number, got None",
        ),
        (region({"name": "polygon"}, kind="a"), "must have 'all_points_x'"),
        (region({"name": "circle", "cx": 1, "cy": 2}, kind="a"), "'r' must be a finite number, got None"),
        (region({"name": "rect", "x": 50, "y": 6, "width": 20, "height": 11}, kind="a"), "covers no pixel"),
        (3, "region 1 must be an object, got 3"),
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
    with pytest.raises(DataError, match=r"regions must have one attribute.*rename the one that is the class"):
        read_supports(write_json(tmp_path / "via.json", value))


def project3(*metadata, **attributes):
    """A project of VIA 3; an item of metadata is (view, coordinates, values of attributes)."""
    return {
        "project": {"pid": "x", "data_format_version": "3.1.1", "vid_list": ["1", "2"]},
        "config": {},
        "attribute": {k[1:]: {"anchor_id": "FILE1_Z0_XY1", **own} for k, own in attributes.items()},
        "file": {
            "1": {"fid": "1", "fname": "a é.png", "type": 2, "loc": 1, "src": ""},
            "2": {"fid": 2, "fname": "b.png", "type": 2, "loc": 1, "src": ""},
        },
        "metadata": {
            f"m{k}": {"vid": vid, "flg": 0, "z": [], "xy": xy, "av": av}
            for k, (vid, xy, av) in enumerate(metadata)
        },
        "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": [2]}},
    }


RADIO = {"aname": "class", "type": 3, "options": {"0": "rust", "1": "crack"}}


@pytest.mark.parametrize(
    ("xy", "drawn"),
    [
        ([7, 3, 2, 35.5, 8, 12, 28], FILLED),
        ([2, 5, 6, 20, 11], rectangle(5, 6, 20, 11, SIZE)),
        ([8, 5, 9, 12, 6, 25, 10, 13, 17], rectangle(5, 6, 20, 11, SIZE)),
        ([3, 20, 15, 8], ellipse(20, 15, 8, 8, SIZE)),
        ([4, 20, 15, 12, 6], ellipse(20, 15, 12, 6, SIZE)),
        ([1, 20, 15], stroke([(20, 15)], 10, SIZE)),
        ([5, 4, 5, 30, 20], stroke([(4, 5), (30, 20)], 10, SIZE)),
        ([6, 4, 5, 30, 20, 10, 25], stroke([(4, 5), (30, 20), (10, 25)], 10, SIZE)),
    ],
)
def test_each_shape_of_a_project_of_via_3(tmp_path, write_json, xy, drawn):
    value = project3(("1", xy, {"1": "1"}), ("1", [], {"2": "a caption"}), _1=RADIO)
    (found,) = read_supports(write_json(tmp_path / "via.json", value))
    assert found.image.name == "a é.png"
    assert set(found.masks) == {"crack"}
    assert np.array_equal(found.masks["crack"] == 1, drawn == 1)


@pytest.mark.parametrize(
    ("attribute", "value", "classes"),
    [
        ({"aname": "class", "type": 1, "options": {}}, "rust", {"rust"}),
        ({**RADIO, "type": 4}, "0", {"rust"}),
        ({**RADIO, "type": 2}, "0,1", {"rust", "crack"}),
        (RADIO, "1", {"crack"}),
    ],
)
def test_the_class_of_via_3_is_a_text_or_the_name_of_an_option(
    tmp_path, write_json, attribute, value, classes
):
    shape = ("2", [2, 1, 1, 9, 9], {"1": value, "2": "sharp"})
    given = project3(shape, _1=attribute, _2={"aname": "state", "type": 1, "options": {}})
    (found,) = read_supports(write_json(tmp_path / "via.json", given))
    assert found.image.name == "b.png"
    assert set(found.masks) == classes


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (("1", [9, 1, 1, 2, 2, 3, 3], {"1": "0"}), "must be the number of a shape, 1 .. 8"),
        (("1", [2, 1, 1, 2], {"1": "0"}), "and its coordinates"),
        (("1", [7, 1, 1, 2], {"1": "0"}), "and its coordinates"),
        (("1", ["7", 1, 1], {"1": "0"}), "the number of a shape"),
        (("1", [7, 1, 1, 2, 2], {"1": "0"}), "3 points or more"),
        (("3", [2, 1, 1, 9, 9], {"1": "0"}), "must have '3'"),
        (("1", [2, 1, 1, 9, 9], {"1": "7"}), "got no 'class'|no region has"),
        (("1", [2, 1, 1, 9, "x"], {"1": "0"}), "finite number"),
    ],
)
def test_a_wrong_region_of_via_3_is_reported(tmp_path, write_json, metadata, message):
    good = ("2", [2, 1, 1, 9, 9], {"1": "0"})
    with pytest.raises(DataError, match=message) as caught:
        read_supports(write_json(tmp_path / "via.json", project3(metadata, good, _1=RADIO)))
    assert "via.json" in str(caught.value)


def test_a_video_of_via_3_is_reported(tmp_path, write_json):
    value = project3(("1", [2, 1, 1, 9, 9], {"1": "0"}), _1=RADIO)
    value["metadata"]["m0"]["z"] = [1.5]
    with pytest.raises(DataError, match="must be of one image"):
        read_supports(write_json(tmp_path / "via.json", value))


def test_rectangles_are_counted_as_boxes(tmp_path, write_json, write_image, caplog):
    write_image(tmp_path / "a.png", SIZE)
    shape = {"name": "rect", "x": 5, "y": 6, "width": 20, "height": 11}
    value = {
        "a": {
            "filename": "a.png",
            "regions": [{"shape_attributes": shape, "region_attributes": {"class": "x"}}],
        }
    }
    read_supports(write_json(tmp_path / "via.json", value))
    (message,) = caplog.messages
    assert "1 box without an outline, filled whole" in message
