import base64
import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from fewseg.annotations.formats import iter_supports, read_supports
from fewseg.annotations.options import ReadOptions
from fewseg.annotations.rle import encode_brush, encode_coco
from fewseg.annotations.shapes import ellipse, polygon, rectangle, stroke
from fewseg.annotations.values import Problem
from fewseg.types import DataError

SIZE = (30, 40)
TRIANGLE = [[3.0, 2.0], [35.5, 8.0], [12.0, 28.0]]
MASK = rectangle(5, 6, 20, 11, SIZE, 20).astype(np.uint8)


@pytest.fixture(autouse=True)
def photo(tmp_path, write_image):
    return write_image(tmp_path / "x é.png", SIZE)


def coco(*annotations, **image):
    return {
        "images": [{"id": 7, "file_name": "x é.png", "height": 30, "width": 40, **image}],
        "categories": [{"id": 3, "name": "rust"}, {"id": 5, "name": "crack"}],
        "annotations": [{"id": k, "image_id": 7, "category_id": 3, **a} for k, a in enumerate(annotations)],
    }


CORNER = {"segmentation": [[0, 0, 3, 0, 3, 3]]}


def labelme(*shapes, **more):
    full = [{"label": "rust", "shape_type": "polygon", "points": TRIANGLE, **shape} for shape in shapes]
    return {"imagePath": "x é.png", "imageHeight": 30, "imageWidth": 40, "shapes": full, **more}


def region(value, kind="brushlabels", label="rust", **more):
    sizes = {"original_width": 40, "original_height": 30, "image_rotation": 0}
    return {"id": "r", "type": kind, **sizes, "value": {**value, kind: [label]}, **more}


def studio(*result, **more):
    task = {"id": 1, "data": {"image": "/data/upload/3/1a2b3c4d-x%20é.png"}}
    return [{**task, "annotations": [{"result": list(result)}], **more}]


def one(tmp_path, write_json, value, **options):
    (found,) = read_supports(write_json(tmp_path / "a.json", value), ReadOptions(**options))
    assert found.size == SIZE
    assert found.image == tmp_path / "x é.png"
    return found


def theirs(polygons):
    return coco_mask.decode(coco_mask.frPyObjects(polygons, *SIZE)).max(axis=2)


def uncompressed(mask):
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [2]])))
    return np.diff(np.concatenate([[0], edges])).tolist()


def test_coco_polygons_are_filled_as_pycocotools_does(tmp_path, write_json):
    polygons = [[x for point in TRIANGLE for x in point], [30, 20, 39, 20, 39, 29.5]]
    found = one(tmp_path, write_json, coco({"segmentation": polygons}))
    assert np.array_equal(found.masks["rust"], theirs(polygons))


@pytest.mark.parametrize("counts", [encode_coco(MASK)["counts"], uncompressed(MASK)], ids=["text", "list"])
def test_coco_reads_both_kinds_of_rle(tmp_path, write_json, counts):
    found = one(tmp_path, write_json, coco({"segmentation": {"size": [30, 40], "counts": counts}}))
    assert np.array_equal(found.masks["rust"], MASK)


POINTS = [x for point in TRIANGLE for x in point]


def test_a_flat_coco_polygon_is_one_polygon_with_a_warning(tmp_path, write_json, caplog):
    found = one(tmp_path, write_json, coco({"segmentation": POINTS}, {"segmentation": POINTS}))
    assert np.array_equal(found.masks["rust"], theirs([POINTS]))
    (message,) = caplog.messages
    assert "a.json: 2 segmentations of one list of numbers, read as one polygon" in message


def test_short_coco_rings_beside_good_ones_are_left_out_and_counted(tmp_path, write_json, caplog):
    rings = [[5, 5, 6, 6], POINTS, [1, 2], []]
    found = one(tmp_path, write_json, coco({"segmentation": rings}))
    assert np.array_equal(found.masks["rust"], theirs([POINTS]))
    (message,) = caplog.messages
    assert "3 polygons of fewer than 3 points, left out" in message
    for lone in ([[5, 5, 6, 6]], [5, 5, 6, 6], [[5, 5, 6, 6], [1, 2]]):
        (problem,) = iter_supports(write_json(tmp_path / "a.json", coco({"segmentation": lone})))
        assert "must have x, y of 3 points or more" in str(problem.error)


@pytest.mark.parametrize("image", ["7", "an image", "07", "1" * 5000], ids=["7", "words", "07", "long"])
@pytest.mark.parametrize("category", ["3", "a category"])
@pytest.mark.parametrize("everywhere", [True, False])
def test_coco_ids_may_be_texts(tmp_path, write_json, caplog, image, category, everywhere):
    value = coco({"segmentation": [POINTS], "image_id": image, "category_id": category})
    if everywhere or image != "7":
        value["images"][0]["id"] = image
    if everywhere or category != "3":
        value["categories"][0]["id"] = category
    found = one(tmp_path, write_json, value)
    assert set(found.masks) == {"rust"}  # and not the category that is unused
    assert np.array_equal(found.masks["rust"], theirs([POINTS]))
    (message,) = caplog.messages
    assert "ids as texts, read as numbers where they are numbers" in message


def test_a_coco_id_as_text_and_as_number_is_one_id(tmp_path, write_json):
    value = coco({"segmentation": [POINTS]})
    for name in ("images", "categories"):
        twice = {**value, name: [*value[name], {**value[name][0], "id": str(value[name][0]["id"])}]}
        with pytest.raises(DataError, match=r"have one id, [37]"):
            read_supports(write_json(tmp_path / "a.json", twice))
    value["annotations"][0]["image_id"] = "8"
    with pytest.raises(DataError, match="is of image 8, which the file does not list"):
        read_supports(write_json(tmp_path / "a.json", value))


def test_a_coco_box_is_filled_and_a_crowd_is_ignored(tmp_path, write_json):
    crowd = {"segmentation": {"size": [30, 40], "counts": [0, 60, 1140]}, "iscrowd": 1}
    box = {"segmentation": [], "bbox": [4, 5, 6, 7], "category_id": 5}
    found = one(tmp_path, write_json, coco({"segmentation": encode_coco(MASK)}, box, crowd))
    assert found.masks["crack"][:, 2:].tolist() == rectangle(4, 5, 6, 7, SIZE)[:, 2:].astype(int).tolist()
    assert (found.masks["crack"][:, :2] == 255).all()
    assert np.array_equal(found.masks["rust"][:, 2:], MASK[:, 2:])


def test_coco_images_without_an_annotation_are_left_out_with_a_warning(
    tmp_path, write_json, write_image, caplog
):
    value = coco({**CORNER, "image_id": 8}, {"segmentation": {"size": [30, 40], "counts": [1200]}})
    value["images"] += [{**value["images"][0], "id": id, "file_name": f"{id}.png"} for id in (8, 9)]
    write_image(tmp_path / "8.png", SIZE)
    path = write_json(tmp_path / "a.json", value)
    empty, found = read_supports(path)
    assert not empty.masks["rust"].any()
    assert found.masks["rust"].any()
    (message,) = caplog.messages
    assert "1 image left out (no annotation; one whose mask is empty makes a negative)" in message
    assert "9.png" in message


def test_cvats_coco_is_found_in_its_folder_of_annotations(tmp_path, write_json, write_image):
    image = write_image(tmp_path / "zip" / "images" / "x é.png", SIZE)
    write_json(tmp_path / "zip" / "annotations" / "instances_default.json", coco(CORNER))
    (found,) = read_supports(tmp_path / "zip")
    assert (found.image, set(found.masks)) == (image, {"rust"})


@pytest.mark.parametrize("blank", [[], [[]], [[], []], "", None])
def test_a_coco_annotation_without_a_point_is_its_box(tmp_path, write_json, caplog, blank):
    found = one(tmp_path, write_json, coco({"segmentation": blank, "bbox": [4, 5, 6, 7]}))
    assert np.array_equal(found.masks["rust"], rectangle(4, 5, 6, 7, SIZE))
    (message,) = caplog.messages
    assert "1 box without an outline, filled whole" in message


IGNORED = {
    "coco": coco({**CORNER, "iscrowd": 1}),
    "labelme": labelme({"label": "ignore"}),
    "label studio": studio(region({"rle": encode_brush(MASK)}, label="__ignore__")),
}


@pytest.mark.parametrize("form", IGNORED)
def test_an_image_of_ignored_regions_alone_is_no_negative(tmp_path, write_json, caplog, form):
    assert list(iter_supports(write_json(tmp_path / "a.json", IGNORED[form]))) == []
    (message,) = caplog.messages
    assert "1 image left out (ignored regions and no class)" in message


BOX = {"x": 25, "y": 10, "width": 50, "height": 30}
BOXES = {
    "coco": coco({"bbox": [4, 5, 6, 7]}, {"bbox": [4, 5, 6, 7]}, CORNER),
    "labelme": labelme(*[{"shape_type": "rectangle", "points": TRIANGLE[:2]}] * 2, {}, {"label": "ignore"}),
    "label studio": studio(*[region(BOX, "rectanglelabels", id=k) for k in "ab"]),
}


@pytest.mark.parametrize("form", BOXES)
def test_filled_boxes_are_counted_in_one_warning(tmp_path, write_json, caplog, form):
    one(tmp_path, write_json, BOXES[form])
    (message,) = caplog.messages
    assert "a.json: 2 boxes without an outline, filled whole" in message


def png_text(mask):
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({}, polygon([tuple(p) for p in TRIANGLE], SIZE)),
        ({"shape_type": None}, polygon([tuple(p) for p in TRIANGLE], SIZE)),
        ({"shape_type": "rectangle", "points": [[20, 12], [3, 25]]}, rectangle(3, 12, 17, 13, SIZE)),
        ({"shape_type": "circle", "points": [[20, 15], [23, 19]]}, ellipse(20, 15, 5, 5, SIZE)),
        (
            {"shape_type": "mask", "points": [[5, 6], [24, 25]], "mask": png_text(MASK[6:26, 5:25])},
            np.pad(MASK[6:26, 5:25], ((6, 4), (5, 15))) == 1,
        ),
    ],
)
def test_labelme_regions(tmp_path, write_json, shape, expected):
    found = one(tmp_path, write_json, labelme(shape))
    assert np.array_equal(found.masks["rust"], expected.astype(np.uint8))


@pytest.mark.parametrize(
    ("kind", "points"),
    [("linestrip", TRIANGLE), ("line", TRIANGLE[:2]), ("point", TRIANGLE[:1]), ("points", TRIANGLE[:1])],
)
def test_lines_and_points_of_labelme_and_key_points_are_scribbles(tmp_path, write_json, kind, points):
    found = one(tmp_path, write_json, labelme({"shape_type": kind, "points": points}), stroke=4.0)
    drawn = stroke([tuple(p) for p in points], 4, SIZE)
    assert np.array_equal(found.masks["rust"], np.where(drawn, 1, 255))
    key_point = studio(region({"x": 50, "y": 50, "width": 0.5}, "keypointlabels"))
    found = one(tmp_path, write_json, key_point, stroke=6)
    assert np.array_equal(found.masks["rust"], np.where(stroke([(20, 15)], 6, SIZE), 1, 255))


def test_a_folder_of_labelme_files_is_read_file_by_file(tmp_path, write_json, write_image):
    write_image(tmp_path / "set" / "images" / "b.jpg", (5, 5))
    write_json(
        tmp_path / "set" / "b.json", labelme(imagePath="..\\photos\\b.jpg", imageHeight=5, imageWidth=5)
    )
    write_json(tmp_path / "set" / "c.json", labelme(imagePath="c.jpg"))
    (tmp_path / "set" / "d.json").write_text("{")
    write_json(tmp_path / "set" / "e.json", coco())
    b, c, d, e = iter_supports(tmp_path / "set")
    assert (b.image.name, b.masks) == ("b.jpg", {})
    assert "'c.jpg' is not in" in str(c.error)
    assert "d.json is not JSON" in str(d.error)
    assert "e.json must be of LabelMe" in str(e.error)


def turned(x, y, w, h, degrees):
    """Corners as label-studio-converter computes them (convert_annotation_to_yolo_obb), in pixels."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x, y), (x + w * c, y + w * s), (x + w * c - h * s, y + w * s + h * c), (x - h * s, y + h * c)]


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ({"format": "rle", "rle": encode_brush(MASK)}, "brushlabels", MASK == 1),
        (
            {"points": [[10, 10], [90, 20], [30, 95]]},
            "polygonlabels",
            polygon([(4, 3), (36, 6), (12, 28.5)], SIZE),
        ),
        ({"x": 25, "y": 10, "width": 50, "height": 30}, "rectanglelabels", rectangle(10, 3, 20, 9, SIZE)),
        (
            {"x": 50, "y": 10, "width": 40, "height": 30, "rotation": 40},
            "rectanglelabels",
            polygon(turned(20, 3, 16, 9, 40), SIZE),
        ),
        (
            {"x": 50, "y": 50, "radiusX": 25, "radiusY": 20, "rotation": 10},
            "ellipselabels",
            ellipse(20, 15, 10, 6, SIZE, 10),
        ),
    ],
)
def test_label_studio_shapes_are_in_percent(tmp_path, write_json, value, kind, expected):
    found = one(tmp_path, write_json, studio(region(value, kind)))
    assert np.array_equal(found.masks["rust"], expected.astype(np.uint8))


def test_of_label_studios_annotations_the_latest_counts_whatever_its_place(tmp_path, write_json):
    (task,) = studio(region({"rle": encode_brush(MASK)}))
    (latest,) = task["annotations"]
    latest["updated_at"] = "2026-02-01T00:00:00Z"
    earlier = {"result": [], "updated_at": "2026-01-01T00:00:00.5Z"}
    cancelled = {"result": [], "updated_at": "2026-03-01T00:00:00Z", "was_cancelled": True}
    untouched = {"result": [], "created_at": "2026-01-15T00:00:00Z"}
    latest["created_at"] = "2026-01-01T00:00:00Z"  # what counts is the last change
    for order in ([latest, earlier, untouched, cancelled], [cancelled, untouched, earlier, latest]):
        found = one(tmp_path, write_json, [{**task, "annotations": order}])
        assert np.array_equal(found.masks["rust"], MASK)
    found = one(tmp_path, write_json, [{**task, "annotations": [latest, {**earlier, "ground_truth": True}]}])
    assert not found.masks


def test_a_label_may_be_an_entry_of_its_own_and_other_entries_are_left_out(tmp_path, write_json):
    bare = region({"rle": encode_brush(MASK)})
    bare["value"].pop("brushlabels")
    choice = {"id": "c", "type": "choices", "value": {"choices": ["good"]}}
    relation = {"type": "relation", "from_id": "r", "to_id": "r"}
    named = region({"rle": encode_brush(MASK)}, "labels", type="labels")
    found = one(tmp_path, write_json, studio(bare, named, choice, relation))
    assert np.array_equal(found.masks["rust"], MASK)


def test_labels_of_other_kinds_are_none(tmp_path, write_json):
    mixed = region({"rle": encode_brush(MASK), "xlabels": [["crack"], {}, 3, None]})
    found = one(tmp_path, write_json, studio(mixed))
    assert set(found.masks) == {"rust"}


def test_which_annotation_of_a_task_counts(tmp_path, write_json):
    def named(label, **more):
        return {"result": [region({"rle": encode_brush(MASK)}, label=label)], **more}

    def label_of(annotations, **more):
        task = {**studio()[0], "annotations": annotations, **more}
        found = read_supports(write_json(tmp_path / "a.json", [task]), ReadOptions(predictions=True))
        return list(found[0].masks)

    assert label_of([named("a"), named("b"), named("c", was_cancelled=True)]) == ["b"]
    assert label_of([named("a", ground_truth=True), named("b")]) == ["a"]
    assert label_of([], predictions=[named("p")]) == ["p"]
    assert label_of([named("a")], predictions=[named("p")]) == ["a"]
    assert label_of([{"result": []}]) == []
    with pytest.raises(DataError, match="no annotated image"):
        read_supports(
            write_json(tmp_path / "a.json", [{**studio()[0], "annotations": [], "predictions": [named("p")]}])
        )


@pytest.mark.parametrize(
    "name",
    ["x é.png", "./x é.png", "/somewhere/else/x é.png", "..\\..\\photos\\x é.png", "C:\\photos\\x é.png",
     "https://host/data/x%20%C3%A9.png?token=1", "/data/local-files/?d=photos/x%20é.png", "x%20%C3%A9.png",
     "/data/upload/7/00ff00ff-x é.png", "../../etc/x é.png"],
)  # fmt: skip
def test_an_image_is_found_by_what_its_name_may_look_like(tmp_path, write_json, name):
    task = {"data": {"photo": name, "note": "n"}, "annotations": [{"result": []}]}
    assert one(tmp_path, write_json, [task]).masks == {}
    assert one(tmp_path, write_json, coco(CORNER, file_name=name)).masks.keys() == {"rust"}


OUTSIDE = ["../secret.png", "/{root}/secret.png", "..\\secret.png", "a/../../secret.png", "..", "/", "", "\0"]
OUTSIDE += ["file:///{root}/secret.png", "%2e%2e/secret.png", "/data/local-files/?d=../secret.png"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_leads_out_of_the_folder_of_images(tmp_path, write_json, write_image, name):
    write_image(tmp_path / "secret.png", SIZE)
    write_image(tmp_path / "in" / "secret.png", SIZE)
    write_image(tmp_path / "in" / "photos" / "x.png", SIZE)
    name = name.replace("/{root}", str(tmp_path))
    path = write_json(tmp_path / "in" / "a.json", coco(CORNER, file_name=name))
    with pytest.raises(DataError, match="is not in"):
        read_supports(path, ReadOptions(images=tmp_path / "in" / "photos"))


def test_one_name_in_two_folders_is_two_images_or_an_error(tmp_path, write_json, write_image):
    value = coco(*[{**CORNER, "image_id": k} for k in range(2)])
    value["images"] = [
        {"id": k, "file_name": f"{folder}/x.png", "height": 4, "width": 4} for k, folder in enumerate("ab")
    ]
    for folder in "ab":
        write_image(tmp_path / "s" / folder / "x.png", (4, 4))
    path = write_json(tmp_path / "s" / "a.json", value)
    assert [item.image.parent.name for item in read_supports(path)] == ["a", "b"]
    write_image(tmp_path / "flat" / "x.png", (4, 4))
    good, bad = iter_supports(path, ReadOptions(images=tmp_path / "flat"))
    assert not isinstance(good, Problem)
    assert "both lead to" in str(bad.error)


def test_an_orientation_is_applied_once(tmp_path, write_json, write_image):
    write_image(tmp_path / "x é.png", (40, 30), exif=6)
    assert one(tmp_path, write_json, labelme({})).masks["rust"].shape == SIZE
    with pytest.raises(DataError, match="EXIF"):
        one(tmp_path, write_json, coco(CORNER, height=40, width=30))


BAD_SHAPES = [
    (labelme({"shape_type": "star"}), "polygon, rectangle, .*got 'star'"),
    (labelme({"points": TRIANGLE[:2]}), "a polygon must have 3 or more points, got 2"),
    (labelme({"shape_type": "circle"}), "a circle must have 2 points, got 3"),
    (labelme({"points": [[1, 2], [3, "4"], [5, 6]]}), "y of point 1 must be a finite number, got '4'"),
    (labelme({"points": [[1, 2], [3], [5, 6]]}), r"point 1 must be a pair \[x, y\], got \[3\]"),
    (labelme({"label": ""}), "got an empty one"),
    (labelme({"shape_type": "mask", "points": [[0, 0], [1, 1]]}), "must have 'mask'"),
    (labelme({"shape_type": "mask", "points": [[0, 0], [40, 1]], "mask": ""}), "do not lie in the image"),
    (labelme({"shape_type": "mask", "points": [[0, 0], [1, 1]], "mask": "aGFsbG8="}), "no readable PNG"),
    (
        labelme({"shape_type": "mask", "points": [[0, 0], [1, 1]], "mask": png_text(MASK)}),
        "40 x 30 pixels and its corners",
    ),
    (labelme(imageHeight=31), "40 x 30 pixels and the annotated one 40 x 31"),
    (labelme(shapes={}), "'shapes' must be a list, got {}"),
    (labelme(imagePath=None), "'imagePath' must be a text, got None"),
    (coco({"segmentation": [[1, 2, 3, 4]]}), "of 3 points or more"),
    (coco({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}), "finite numbers"),
    (coco({"segmentation": [[1, 2, 3, 4, 5, 1e9]]}), "999999970 pixels outside its image of 40 x 30"),
    (coco({"segmentation": [[0, 0, 40, 30, 40, 0] * 100_000]}), "up to 10000000 pixels, got 11000000"),
    (coco({"segmentation": 3}), "beside a bbox, got 3"),
    (coco({"segmentation": {"size": [40, 30], "counts": "x"}}), "of size"),
    (coco({}), "height\\], got None"),
    (coco({"bbox": [1, 2, -3, 4]}), "0 or more, got"),
    (coco({"category_id": 9, "bbox": [1, 2, 3, 4]}), "3, 5\\], got 9"),
    (coco(CORNER, height=29), "40 x 30 pixels and the annotated one 40 x 29"),
    (coco(CORNER, height=2.5), "'height' must be 1 pixel or more, got 2.5"),
    (coco(CORNER, file_name="none.png"), "'none.png' is not in"),
    (studio(region({"rle": [1, 2, 3]})), "brush's RLE is cut off"),
    (studio(region({"rle": encode_brush(MASK[:5])})), "800 values"),
    (
        studio(region({"points": [[1, 2], [3, 4]]}, "polygonlabels")),
        "polygon must have 3 points or more, got 2",
    ),
    (
        studio(region({"x": None, "y": 3, "width": 3, "height": 3}, "rectanglelabels")),
        "'x' must be a finite number, got None",
    ),
    (studio(region({"rle": [1]}, label="")), "must have a label"),
    (studio(region({"rle": [1]}, original_width=41)), "the annotated one 41 x 30"),
    (studio(region({"rle": encode_brush(MASK)}, image_rotation=90)), "image_rotation must be 0, got 90"),
    (studio(3), "region 0 must be an object, got 3"),
    (studio(annotations=[{}]), "must have 'result'"),
    (studio(data={}), "must have 'image'"),
    (studio(data={"a": "1.png", "b": "2.png"}), "one value that names an image file, got \\['a', 'b'\\]"),
]


@pytest.mark.parametrize(("value", "message"), BAD_SHAPES, ids=[m for _, m in BAD_SHAPES])
def test_a_broken_image_of_a_json_file_is_reported_in_one_line(tmp_path, write_json, value, message):
    (item,) = iter_supports(write_json(tmp_path / "a.json", value))
    assert isinstance(item, Problem)
    with pytest.raises(DataError, match=message):
        raise item.error
    assert "\n" not in str(item.error)
    assert "a.json" in str(item.error)
    assert len(str(item.error)) < 600


def test_one_bad_image_does_not_lose_the_others(tmp_path, write_json):
    value = coco({**CORNER, "image_id": 1}, CORNER)
    value["images"] = [{"id": 1, "file_name": "none.png"}, *value["images"]]
    bad, good = iter_supports(write_json(tmp_path / "a.json", value))
    assert bad.where == "none.png"
    assert set(good.masks) == {"rust"}
    bad, good = iter_supports(write_json(tmp_path / "b.json", [*studio(data={}), *studio()]))
    assert isinstance(bad, Problem)
    assert good.masks == {}


def minimal(*values, **more):
    sizes = {"original_width": 40, "original_height": 30}
    return {
        "image": "/data/upload/3/1a2b3c4d-x%20é.png",
        "id": 1,
        "tag": [{**v, **sizes} for v in values],
        **more,
    }


def test_label_studios_json_min_is_read_as_its_json(tmp_path, write_json):
    points = [[100 * x / 40, 100 * y / 30] for x, y in TRIANGLE]
    values = (
        {"points": points, "polygonlabels": ["rust"]},
        {"format": "rle", "rle": encode_brush(MASK), "brushlabels": ["crack"]},
        {"x": 10, "y": 10, "width": 20, "height": 30, "rotation": 10, "rectanglelabels": ["box"]},
    )
    kinds = ("polygonlabels", "brushlabels", "rectanglelabels")
    full = [
        region({k: v for k, v in value.items() if k != kind}, kind, *value[kind], id=kind)
        for value, kind in zip(values, kinds, strict=True)
    ]
    expected = one(tmp_path, write_json, studio(*full))
    row = minimal(*values, quality="good", annotation_id=3, created_at="2024-01-01T00:00:00Z")
    found = one(tmp_path, write_json, [row])
    assert set(found.masks) == set(expected.masks) == {"rust", "crack", "box"}
    for name, mask in expected.masks.items():
        assert np.array_equal(found.masks[name], mask)


def test_of_several_rows_of_one_task_in_json_min_the_latest_counts(tmp_path, write_json):
    box = {"x": 10, "y": 10, "width": 20, "height": 30}
    rows = [
        minimal({**box, "rectanglelabels": [name]}, annotation_id=k, updated_at=f"2024-01-0{day}T00:00:00Z")
        for k, (name, day) in enumerate((("a", 1), ("b", 3), ("c", 2)))
    ]
    assert set(one(tmp_path, write_json, rows).masks) == {"b"}
    assert one(tmp_path, write_json, [minimal()]).masks == {}


def test_json_min_without_a_size_or_a_label_is_reported(tmp_path, write_json):
    row = minimal({"points": TRIANGLE, "polygonlabels": ["a"]})
    del row["tag"][0]["original_width"]
    (size,) = iter_supports(write_json(tmp_path / "a.json", [row]))
    assert "must have 'original_width'" in str(size.error)
    (label,) = iter_supports(write_json(tmp_path / "a.json", [minimal({"points": TRIANGLE})]))
    assert "must have a label" in str(label.error)


BAD_FILES = [
    ("", "is empty"),
    ("{", "is not JSON"),
    ("[" * 100_000, "nested too deeply"),
    ("hello", "is no JSON file"),
    ('{"a": "\xff"}', "is not UTF-8"),
    ("{}", "unknown format"),
    ('{"a": 1, "b": 2}', "unknown format.*'a', 'b'"),
    ('[{"image_id": 1, "category_id": 1, "score": 1}]', "COCO results"),
    ('[{"a": "a.png", "tag": []}]', "unknown format.*Label Studio"),
    (json.dumps({**coco(), "categories": 3}), "'categories' must be a list, got 3"),
    (json.dumps({**coco(), "annotations": [3]}), "annotations, entry 0 must be an object, got 3"),
    (json.dumps({**coco(), "annotations": [{"image_id": 99}]}), "is of image 99"),
    (json.dumps({**coco(), "images": coco()["images"] * 2}), "two images have one id"),
    (json.dumps({**coco(), "categories": coco()["categories"][:1] * 2}), "two categories have one id"),
    (json.dumps({"images": [], "annotations": []}), "must have 'categories'"),
    (json.dumps({"images": [], "annotations": [], "categories": []}), "no annotated image"),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES, ids=[m for _, m in BAD_FILES])
def test_a_broken_json_file_is_reported_in_one_line(tmp_path, text, message):
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message) as caught:
        read_supports(tmp_path / "a.json")
    assert "\n" not in str(caught.value)
    assert "a.json" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["a.json", "a.txt", "annotations.xml", "labelmap.txt", "classes.txt", "labels/x.txt", "data.yaml"]
)
def test_a_file_that_the_system_refuses_is_reported_in_one_line(tmp_path, monkeypatch, write_image, name):
    write_image(tmp_path / "images/x.png", (4, 5))
    for place in ("SegmentationClass/x.png", "masks/x.png"):
        Image.fromarray(np.ones((4, 5), np.uint8)).save(write_image(tmp_path / place, (4, 5)))
    kinds = {"labelmap.txt": ("SegmentationClass",), "classes.txt": ("masks",)}
    for folder in {"SegmentationClass", "masks"} - set(kinds.get(name, ())):
        shutil.rmtree(tmp_path / folder)
    if name in ("labels/x.txt", "data.yaml"):
        (tmp_path / "labels").mkdir()
        (tmp_path / "labels/x.txt").write_text("0 0 0 1 0 1 1")
        (tmp_path / "data.yaml").write_text("names: [a]")
    (tmp_path / name).write_text((tmp_path / name).read_text() if (tmp_path / name).exists() else "{}")
    opened = Path.open

    def refused(path, *rest, **options):
        if path == tmp_path / name:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *rest, **options)

    monkeypatch.setattr(Path, "open", refused)
    direct = name in ("a.json", "a.txt", "annotations.xml")
    with pytest.raises(DataError, match=r"Permission denied.*: (check|export)") as caught:
        read_supports(tmp_path / name if direct else tmp_path)
    assert name in str(caught.value)


def test_a_byte_order_mark_and_a_single_task_are_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(studio()[0]).encode())
    assert read_supports(tmp_path / "a.json")[0].masks == {}
    for path, images in ((tmp_path / "none", None), (tmp_path / "a.json", tmp_path / "none")):
        with pytest.raises(DataError, match="none does not exist"):
            read_supports(path, ReadOptions(images=images))
