import numpy as np
import pytest
from PIL import Image

from fewseg.annotations.formats import FORMATS, iter_supports, read_supports
from fewseg.annotations.mask_files import voc_palette
from fewseg.annotations.options import ReadOptions
from fewseg.annotations.values import Problem
from fewseg.annotations.writer import WriteOptions
from fewseg.types import DataError

LABELS = """# label:color_rgb:parts:actions
background:0,0,0::
rust: é:250,50,83::
crack:51,221,255:a,b:
ignore:9,9,9::

"""
COLOURS = np.array([[0, 0, 0], [250, 50, 83], [51, 221, 255], [9, 9, 9]], np.uint8)
NUMBERS = np.array([[0, 1, 1, 2], [0, 0, 3, 2]])


@pytest.fixture
def masked(tmp_path, write_image):
    """Writes an image and its mask."""
    (tmp_path / "labelmap.txt").write_text(LABELS)

    def write(mask, name="x é", images="JPEGImages"):
        path = tmp_path / "SegmentationClass" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        mask.save(path)
        return write_image(tmp_path / images / f"{name}.jpg", mask.size[::-1])

    return write


def coloured(numbers, mode="RGB"):
    image = Image.fromarray(COLOURS[numbers])
    return image.quantize(16) if mode == "P" else image.convert(mode)


@pytest.mark.parametrize("images", ["JPEGImages", "images"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_colours_are_those_of_the_list_of_labels(tmp_path, masked, mode, images):
    mask = Image.fromarray(NUMBERS.astype(np.uint8)) if mode == "L" else coloured(NUMBERS, mode)
    image = masked(mask, images=images)
    masked(coloured(NUMBERS * 0), "a/negative", images)
    negative, found = sorted(read_supports(tmp_path), key=lambda item: item.image.stem != "negative")
    assert (found.image, found.size, found.weak) == (image, (2, 4), frozenset())
    masks = {name: mask.tolist() for name, mask in found.masks.items()}
    assert masks == {"rust: é": [[0, 1, 1, 0], [0, 0, 255, 0]], "crack": [[0, 0, 0, 1], [0, 0, 255, 1]]}
    assert negative.masks == {}


def test_images_without_a_mask_are_left_out_with_a_warning_and_may_lie_elsewhere(
    tmp_path, masked, write_image, caplog
):
    masked(coloured(NUMBERS), images="photos")
    write_image(tmp_path / "photos" / "y.jpg", (2, 4))
    (found,) = read_supports(tmp_path, ReadOptions(images=tmp_path / "photos"))
    assert found.image.parent.name == "photos"
    (message,) = caplog.messages
    assert "1 images have no mask" in message
    assert "y.jpg" in message


def test_wrong_masks_are_reported_one_by_one(tmp_path, masked, write_image):
    masked(coloured(NUMBERS), "good")
    masked(Image.new("RGB", (4, 2), (250, 50, 84)), "colour")
    masked(Image.new("L", (4, 2), 4), "number")
    masked(coloured(NUMBERS), "size")
    write_image(tmp_path / "JPEGImages" / "size.jpg", (3, 4))
    masked(coloured(NUMBERS), "alone").unlink()
    items = list(iter_supports(tmp_path))
    assert [item.image.stem for item in items if not isinstance(item, Problem)] == ["good"]
    errors = {item.where.rsplit("/", 1)[1]: str(item.error) for item in items if isinstance(item, Problem)}
    assert set(errors) == {"colour.png", "number.png", "size.png", "alone.png"}
    assert "1 colours that labelmap.txt does not list, like 250,50,84;" in errors["colour.png"]
    assert "grey and holds the number 4; expected 0 .. 3" in errors["number.png"]
    assert "its mask 4 x 2" in errors["size.png"]
    assert "has no image of its name" in errors["alone.png"]


@pytest.mark.parametrize(
    "lines",
    ["a:1,2,3::\na:1,2,4::", "a:1,2,3::\nb:1,2,3::", "a:1,2,300::", "a:1,2::", "a:::", ":1,2,3::", "a"],
)
def test_a_wrong_list_of_labels_is_reported(tmp_path, masked, lines):
    masked(coloured(NUMBERS))
    (tmp_path / "labelmap.txt").write_text(lines)
    with pytest.raises(DataError, match=r"labelmap\.txt: a line is wrong"):
        read_supports(tmp_path)
    (tmp_path / "labelmap.txt").unlink()
    with pytest.raises(DataError, match=r"labelmap\.txt does not exist; expected CVAT's list"):
        read_supports(tmp_path)


def test_written_masks_read_back_to_the_pixel_and_are_listed(tmp_path, predict, write_image):
    classes = ("rust", "crack é")
    predictions = [predict(name, seed) for seed, name in enumerate(("a.png", "d/b é.png"))]
    with FORMATS["cvat"](tmp_path, classes, WriteOptions()) as writer:
        for prediction in predictions:
            writer.write(prediction)
            assert prediction.name in writer
            write_image(tmp_path / "photos" / prediction.name, (40, 50))
    assert "none.png" not in writer
    out = tmp_path / "cvat"
    assert (out / "ImageSets/Segmentation/default.txt").read_text() == "a\nd/b é\n"
    written = np.array(Image.open(out / "SegmentationClass" / "a.png").convert("RGB"))
    assert (written[predictions[0].labels == 2] == voc_palette()[6:9]).all()
    found = read_supports(out, ReadOptions(images=tmp_path / "photos"))
    for item, prediction in zip(found, predictions, strict=True):
        for j, name in enumerate(classes, 1):
            assert np.array_equal(item.masks[name], prediction.mask(j))
    FORMATS["cvat"](tmp_path, classes, WriteOptions())
    with pytest.raises(DataError, match="lists other classes"):
        FORMATS["cvat"](tmp_path, ("rust",), WriteOptions())
    for name in ("a:b", "a\nb", "background"):
        with pytest.raises(ValueError, match=r"invalid in labelmap\.txt"):
            FORMATS["cvat"](tmp_path / "other", (name,), WriteOptions())
