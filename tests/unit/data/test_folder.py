import shutil

import numpy as np
import pytest
from PIL import Image

from fewseg.data.folder import FolderSource
from fewseg.types import DataError


@pytest.fixture
def root(tmp_path, write_image, write_mask):
    for name in ("pear", "apple"):
        for k in (1, 0):
            write_image(tmp_path / name / "images" / f"{k}.jpg", (2, 3))
            write_mask(tmp_path / name / "masks" / f"{k}.png", np.array([[0, 1, 1], [0, 0, 0]]), "L")
    (tmp_path / ".git").mkdir()
    (tmp_path / "readme.txt").write_text("about")
    (tmp_path / "pear" / "images" / ".DS_Store").write_text("x")
    (tmp_path / "pear" / "images" / "notes.txt").write_text("x")
    (tmp_path / "pear" / "images" / "album.jpg").mkdir()
    return tmp_path


def test_a_folder_per_class_becomes_numbered_classes_and_ids(root):
    source = FolderSource(root, name="fruit")
    assert source.class_names == {1: "apple", 2: "pear"}
    assert source.ids == ("apple/0", "apple/1", "pear/0", "pear/1")
    assert source.name == "fruit"
    assert FolderSource(root).name == root.name
    assert source.read_image("pear/1").shape == (3, 2, 3)
    assert source.read_labels("pear/1").tolist() == [[0, 2, 2], [0, 0, 0]]
    assert source.read_labels("apple/0").tolist() == [[0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("stored", "mode", "labels"),
    [
        ([[0, 1, 255]], "L", [[0, 2, 255]]),
        ([[0, 255, 0]], "1", [[0, 2, 0]]),
        ([[0, 17, 200, 255]], "L", r"holds 2 numbers besides 0 and 255, like \[17, 200\];.*threshold"),
        ([[0, 1]], "RGB", r"stored as RGB; expected .*modes 1, L, P"),
    ],
)
def test_the_numbers_of_a_mask_follow_the_documented_rule(root, write_mask, stored, mode, labels):
    write_mask(root / "pear" / "masks" / "0.png", np.array(stored), mode)
    if isinstance(labels, list):
        assert FolderSource(root).read_labels("pear/0").tolist() == labels
    else:
        with pytest.raises(DataError, match=labels):
            FolderSource(root).read_labels("pear/0")


def test_black_is_the_background_of_a_palette_of_two_colours_with_one_warning(root, caplog):
    for name in "01":
        drawing = Image.new("RGB", (4, 1))
        drawing.putpixel((1, 0), (255, 255, 255))
        drawing.quantize(2).save(root / "pear" / "masks" / f"{name}.png")
    source = FolderSource(root)
    assert [source.read_labels(f"pear/{name}").tolist() for name in "01"] == [[[0, 2, 0, 0]]] * 2
    (message,) = caplog.messages
    assert "black or what is transparent is background" in message


@pytest.mark.parametrize("first", ["pear/0", "pear/1"])
def test_masks_of_one_class_that_hold_different_numbers_are_an_error_and_not_one_class(
    root, write_mask, first
):
    write_mask(root / "pear" / "masks" / "1.png", np.array([[0, 2, 2]]))
    source = FolderSource(root)
    source.read_labels("apple/0")  # of a different class, whose number is its own
    source.read_labels(first)
    with pytest.raises(
        DataError, match=r"number [12] and .* the number [12]; expected one number a class: give"
    ):
        source.read_labels("pear/0" if first == "pear/1" else "pear/1")
    assert source.read_labels(first).max() == 2


def without_images(root):
    for file in (root / "pear" / "images").glob("[01].jpg"):
        file.unlink()


def alone(root):
    for name in ("pear", "apple"):
        shutil.rmtree(root / name)


WRONG_FOLDERS = [
    (lambda root: (root / "pear" / "masks" / "1.png").unlink(), r"1 wrong files(.|\n)*1\.jpg has no mask"),
    (without_images, "pear has no image with a mask"),
    (lambda root: Image.new("L", (3, 2)).save(root / "pear" / "images" / "0.bmp"), "two images of one name"),
    (lambda root: Image.new("L", (3, 2)).save(root / "pear" / "masks" / "0.bmp"), "two masks of one name"),
    (lambda root: (root / "plum" / "images").mkdir(parents=True), r"must hold (.|\n)*plum has no masks/"),
    (alone, "must hold <class>/images"),
    (shutil.rmtree, "does not exist"),
    (lambda root: (shutil.rmtree(root), root.mkdir()), "is empty"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_FOLDERS, ids=[m for _, m in WRONG_FOLDERS])
def test_what_is_wrong_in_a_folder_is_reported(root, change, message):
    change(root)
    with pytest.raises(DataError, match=message):
        FolderSource(root)


def test_more_classes_than_a_label_map_holds_are_reported(tmp_path):
    for k in range(255):
        if k == 254:
            with pytest.raises(DataError, match="254 wrong files"):
                FolderSource(tmp_path)
        for part in ("images", "masks"):
            (tmp_path / f"c{k}" / part).mkdir(parents=True)
    with pytest.raises(DataError, match=r"up to 254 classes, got 255"):
        FolderSource(tmp_path)
