import numpy as np
import pytest
import yaml
from pycocotools import mask as coco_mask

from fewseg.annotations.formats import FORMATS, iter_supports, read_supports
from fewseg.annotations.options import ReadOptions
from fewseg.annotations.shapes import outlines, polygon, rectangle
from fewseg.annotations.values import Problem
from fewseg.types import DataError

SIZE = (40, 80)
TRIANGLE = "0.1 0.2 0.95 0.3 0.4 0.9"


@pytest.fixture
def label(tmp_path, write_image):
    """Writes an image and its labels."""

    def write(*lines, name="x é", labels="labels", suffix=".jpg"):
        folder = tmp_path / labels
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.txt").write_text("\n".join(lines))
        images = labels.replace("labels", "images")
        return write_image(tmp_path / images / f"{name}{suffix}", SIZE)

    return write


def describe(tmp_path, names, name="data.yaml"):
    (tmp_path / name).write_text(yaml.safe_dump({"train": "images", "nc": 2, "names": names}))


def drawn(*numbers):
    points = (np.array(numbers) * np.tile(SIZE[::-1], len(numbers) // 2)).tolist()
    return coco_mask.decode(coco_mask.frPyObjects([points], *SIZE))[..., 0]


@pytest.mark.parametrize(
    ("labels", "name"), [("labels", "x é"), ("labels/train", "a.b"), ("train/labels", "x"), ("labels", "s/x")]
)
@pytest.mark.parametrize("names", [["rust", "crack"], {0: "rust", 1: "crack"}])
def test_polygons_are_filled_as_pycocotools_does(tmp_path, label, names, labels, name):
    describe(tmp_path, names)
    image = label(f"1 {TRIANGLE}", "", "0 0 0 .5 0 .5 .5 0 .5", f"0 {TRIANGLE}", name=name, labels=labels)
    label(name="empty", labels=labels)
    for given in (tmp_path, tmp_path / "data.yaml"):
        negative, found = sorted(read_supports(given), key=lambda item: item.image.stem != "empty")
        assert (found.image, found.size) == (image, SIZE)
        triangle = drawn(0.1, 0.2, 0.95, 0.3, 0.4, 0.9)
        square = drawn(0, 0, 0.5, 0, 0.5, 0.5, 0, 0.5)
        assert np.array_equal(found.masks["crack"], triangle)
        assert np.array_equal(found.masks["rust"], triangle | square)
        assert negative.masks == {}


def test_a_box_is_filled_and_names_may_be_in_a_list_of_classes(tmp_path, label, caplog):
    (tmp_path / "classes.txt").write_text("rust\ncrack\n")
    (tmp_path / "notes.json").write_text("{}")  # as Label Studio's export has it
    label("1 0.5 0.5 0.25 0.5")
    (found,) = read_supports(tmp_path)
    assert np.array_equal(found.masks["crack"], rectangle(30, 10, 20, 20, SIZE))
    (message,) = caplog.messages
    assert "1 box without an outline, filled whole" in message


def test_labels_of_key_points_are_refused(tmp_path, label):
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"names": ["rust"], "kpt_shape": [17, 3]}))
    label("0 0.5 0.5 0.25 0.5 0.4 0.4")
    with pytest.raises(
        DataError, match=r"data\.yaml is of key points \(kpt_shape\); expected polygons or boxes"
    ):
        read_supports(tmp_path)


def test_images_without_labels_are_left_out_with_a_warning(tmp_path, label, write_image, caplog):
    describe(tmp_path, ["rust"])
    label(f"0 {TRIANGLE}")
    for name in ("y", "z"):
        write_image(tmp_path / "images" / f"{name}.png", SIZE)
    assert len(read_supports(tmp_path)) == 1
    (message,) = caplog.messages
    assert "2 images left out (no label file; an empty one makes a negative)" in message


def test_one_folder_of_images_for_two_of_labels_holds_no_image_left_out(tmp_path, label, caplog):
    describe(tmp_path, ["rust"])
    (tmp_path / "photos").mkdir()
    for name, split in (("a", "train"), ("b", "valid"), ("c", "valid")):
        image = label(f"0 {TRIANGLE}", name=name, labels=f"{split}/labels")
        image.rename(tmp_path / "photos" / image.name)
    (tmp_path / "valid/labels/c.txt").unlink()
    assert len(read_supports(tmp_path, ReadOptions(images=tmp_path / "photos"))) == 2
    (message,) = caplog.messages
    assert "1 image left out" in message
    assert "c.jpg" in message


def test_images_may_lie_elsewhere(tmp_path, label):
    describe(tmp_path, ["rust"])
    image = label(f"0 {TRIANGLE}")
    (tmp_path / "photos").mkdir()
    moved = image.rename(tmp_path / "photos" / image.name)
    (found,) = read_supports(tmp_path, ReadOptions(images=tmp_path / "photos"))
    assert found.image == moved


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.1 0.2 0.3", "x y of 3 points or more.*got 3 numbers"),
        ("0 0.1 0.2 0.3 0.4 0.9", "no confidence"),
        ("0 1 2 30 4 5 60", "must have fractions of the image's sides"),
        ("0 0.1 0.2 0.3 0.4 0.5 nan", "must have fractions"),
        ("0 -0.1 0.2 0.3 0.4 0.5 0.6", "must have fractions"),
        (f"2 {TRIANGLE}", r"the class must be one of \[0, 1\], got 2"),
        (f"0.5 {TRIANGLE}", "got 0.5"),
        ("rust 0.1 0.2 0.3 0.4 0.5 0.6", "must be numbers"),
    ],
)
def test_a_wrong_line_is_reported_with_its_number_and_the_others_are_kept(tmp_path, label, line, message):
    describe(tmp_path, ["rust", "crack"])
    label(f"0 {TRIANGLE}", line, name="bad")
    label(f"0 {TRIANGLE}", name="good")
    good, bad = sorted(iter_supports(tmp_path), key=lambda item: isinstance(item, Problem))
    assert good.image.stem == "good"
    with pytest.raises(DataError, match=rf"bad\.txt, line 2.*{message}"):
        raise bad.error


def test_a_label_needs_one_image(tmp_path, label):
    describe(tmp_path, ["rust"])
    label(f"0 {TRIANGLE}").unlink()
    (found,) = iter_supports(tmp_path)
    assert "must have one image of its name" in str(found.error)
    for suffix in (".jpg", ".png"):
        label(f"0 {TRIANGLE}", suffix=suffix)
    (found,) = iter_supports(tmp_path)
    assert "got 2: put it there" in str(found.error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no names of classes; expected data.yaml"),
        ("names: [yes, no]", "put quotes around names"),
        ("names: {a: 0}", "must be a list of names, or numbers with names"),
        ("names: []", "must be a list"),
        ("names: [a, a]", "must be different, got"),
        ("names: [", "is no readable YAML"),
        ("- a", "'names' must be .*got None"),
    ],
)
def test_names_that_are_missing_or_wrong_are_reported(tmp_path, label, text, message):
    label(f"0 {TRIANGLE}")
    if text is not None:
        (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_supports(tmp_path)


def test_a_description_without_labels_and_labels_beside_masks_are_reported(tmp_path, label):
    describe(tmp_path, ["rust"])
    with pytest.raises(DataError, match=r"no folder labels in .* or by path, train and val of data.yaml"):
        read_supports(tmp_path / "data.yaml")
    label(f"0 {TRIANGLE}")
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match="expected one of both"):
        read_supports(tmp_path)


def test_labels_read_back_as_the_outlines_of_the_masks(tmp_path, predict, write_image):
    predictions = [predict(name, seed) for seed, name in enumerate(("a.png", "d/b é.png"))]
    with FORMATS["yolo"](tmp_path / "out", ("rust", "crack é")) as writer:
        for prediction in predictions:
            writer.write(prediction)
            assert prediction.name in writer
            write_image(tmp_path / "photos" / prediction.name, (40, 50))
    assert "none.png" not in writer
    found = read_supports(tmp_path / "out" / "yolo", ReadOptions(images=tmp_path / "photos"))
    for item, prediction in zip(found, predictions, strict=True):
        for j, name in enumerate(("rust", "crack é"), 1):
            expected = np.zeros((40, 50), bool)
            for path in outlines(prediction.mask(j)):
                expected |= polygon(path, (40, 50))
            assert (item.masks[name] != expected).mean() < 0.02
            assert (item.masks[name] != prediction.mask(j)).mean() < 0.05


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("val", ["images/val", ["images/val", "images/more"], None])
def test_a_description_leads_to_the_folders_of_its_splits(tmp_path, label, absolute, val):
    for name in ("train", "val", "more", "unnamed"):
        label(f"0 {TRIANGLE}", name=name, labels=f"set/labels/{name}")
    (tmp_path / "config").mkdir()
    value = {"path": str(tmp_path / "set") if absolute else "../set", "train": "images/train", "val": val}
    (tmp_path / "config/data.yaml").write_text(
        yaml.safe_dump({**value, "test": "images/gone", "names": ["rust"]})
    )
    found = {own.image.stem for own in read_supports(tmp_path / "config/data.yaml")}
    assert found == {"train"} | ({"val"} if val else set()) | ({"more"} if isinstance(val, list) else set())


def test_cvats_yolo_has_labels_beside_images_and_a_file_of_names(tmp_path, label):
    image = label("1 0.5 0.5 0.25 0.5", labels="obj_train_data/a")
    (tmp_path / "obj.names").write_text("background\ncrack\n")  # the numbers are from 0 on
    (tmp_path / "obj.data").write_text("classes = 2\ntrain = data/train.txt\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/a/x.jpg\n")
    (found,) = read_supports(tmp_path)
    assert (found.image, set(found.masks)) == (image, {"crack"})
    assert np.array_equal(found.masks["crack"], rectangle(30, 10, 20, 20, SIZE))
