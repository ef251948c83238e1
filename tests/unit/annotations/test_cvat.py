import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from fewseg.annotations.formats import FORMATS, iter_supports, read_supports
from fewseg.annotations.mask_files import voc_palette
from fewseg.annotations.options import ReadOptions
from fewseg.annotations.shapes import ellipse, polygon, rectangle, stroke
from fewseg.annotations.values import Problem
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
    assert (found.image, found.size) == (image, (2, 4))
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
    assert "1 image left out (no mask in SegmentationClass)" in message
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
    assert "the colours of labelmap.txt, got 1 others, like 250,50,84:" in errors["colour.png"]
    assert "must hold 0 .. 3, the labels of labelmap.txt, got 4" in errors["number.png"]
    assert "its mask 4 x 2" in errors["size.png"]
    assert "must have one image of its name" in errors["alone.png"]


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
    with FORMATS["cvat"](tmp_path, classes) as writer:
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
    for name in ("a:b", "a\nb", "background"):
        with pytest.raises(ValueError, match=r"invalid in labelmap\.txt"):
            FORMATS["cvat"](tmp_path / "other", (name,))


SIZE = (30, 40)


def xml(tmp_path, write_image, *images, name="annotations.xml"):
    """Writes a file of (image name, its shapes), and the images."""
    text = ""
    for k, (image, shapes) in enumerate(images):
        write_image(tmp_path / "images" / image, SIZE)
        text += f'<image id="{k}" name="{image}" width="40" height="30">{shapes}</image>'
    (tmp_path / name).write_text(f"<annotations><version>1.1</version><meta/>{text}</annotations>")
    return tmp_path / name


def runs(mask):
    """CVAT's own: lengths along the rows, background first."""
    flat, found, value = mask.ravel().tolist(), [0], 0
    for pixel in flat:
        if pixel != value:
            found.append(0)
            value = pixel
        found[-1] += 1
    return ", ".join(map(str, found))


PIECE = np.random.default_rng(0).integers(0, 2, (7, 9))
PIECE[0, 0] = 1


def in_place(piece):
    mask = np.zeros(SIZE, np.uint8)
    mask[4:11, 20:29] = piece
    return mask


POLYGON = [3.2, 2.0, 35.5, 8.0, 12.0, 28.0]
TURNED = [(15 + x, 10 + y) for x, y in ((2, -4), (2, 4), (-2, 4), (-2, -4))]  # 8 x 4, by a quarter
DOTS = stroke([(5, 5)], 6, SIZE) | stroke([(30.5, 20)], 6, SIZE)


@pytest.mark.parametrize(
    ("shape", "mask", "kind"),
    [
        (
            'polygon points="3.20,2.00;35.50,8.00;12.00,28.00"',
            coco_mask.decode(coco_mask.frPyObjects([POLYGON], *SIZE))[..., 0],
            "exact",
        ),
        ('box xtl="5" ytl="6.4" xbr="25" ybr="17"', rectangle(5, 6.4, 20, 10.6, SIZE), "exact"),
        ('box xtl="11" ytl="8" xbr="19" ybr="12" rotation="90"', polygon(TURNED, SIZE), "exact"),
        ('ellipse cx="20" cy="15" rx="12" ry="4" rotation="30"', ellipse(20, 15, 12, 4, SIZE, 30), "exact"),
        (
            f'mask rle="{runs(PIECE)}" left="20" top="4" width="9" height="7"',
            in_place(PIECE),
            "exact",
        ),
        ('polyline points="2,3;30.5,20"', stroke([(2, 3), (30.5, 20)], 6, SIZE), "scribble"),
        ('points points="5,5;30.5,20"', DOTS, "scribble"),
    ],
)
def test_each_shape_of_the_xml(tmp_path, write_image, shape, mask, kind):
    xml(
        tmp_path,
        write_image,
        ("a é.png", f'<{shape} label="rust"><attribute name="x">1</attribute></{shape.split()[0]}>'),
    )
    (found,) = read_supports(tmp_path, ReadOptions(stroke=6))
    assert found.image == tmp_path / "images" / "a é.png"
    expected = np.where(np.asarray(mask) > 0, 1, 255 if kind == "scribble" else 0)
    assert np.array_equal(found.masks["rust"], expected)


def test_an_image_without_shapes_is_left_out_unless_it_has_a_tag(tmp_path, write_image, caplog):
    box = '<box label="rust" xtl="1" ytl="1" xbr="3" ybr="3"/>'
    images = (("a.png", box), ("b.png", '<tag label="good"/>'), ("c.png", ""), ("d.png", " "))
    given = xml(tmp_path, write_image, *images, name="job 1.xml")
    a, b = read_supports(given)
    assert (set(a.masks), b.image.name, b.masks) == ({"rust"}, "b.png", {})
    message, boxes = caplog.messages
    assert "1 box without an outline" in boxes
    assert "2 images left out (no shape; one with a tag is a negative)" in message


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ('<cuboid label="a"/>', "polyline, points or tag, got cuboid"),
        ('<polygon points="1,2;3,4;5,6"/>', "must have a label"),
        ('<polygon label="a" points="1,2;3,4"/>', "must have points x,y;x,y;..., 3 or more"),
        ('<polygon label="a" points="1,2;3,4;5,nan"/>', "must have points x,y"),
        ('<polygon label="a" points="1,2;3,4;5"/>', "must have points x,y"),
        ('<box label="a" xtl="1" ytl="x" xbr="1" ybr="2"/>', "'ytl' must be a finite number, got 'x'"),
        ('<box label="a" xtl="1" ytl="1" xbr="inf" ybr="2"/>', "must be a finite number"),
        ('<mask label="a" rle="1, 2" left="0" top="0" width="2" height="2"/>', "3 pixels in a box of 2 x 2"),
        ('<mask label="a" rle="5, -1" left="0" top="0" width="2" height="2"/>', "must fill a box"),
        (
            '<mask label="a" rle="0, 4" left="39" top="0" width="2" height="2"/>',
            "a box inside the image",
        ),
        ('<mask label="a" rle="x" left="0" top="0" width="2" height="2"/>', "must be whole numbers"),
    ],
)
def test_a_wrong_shape_is_reported_and_the_other_images_are_kept(tmp_path, write_image, shape, message):
    good = '<box label="a" xtl="1" ytl="1" xbr="3" ybr="3"/>'
    xml(tmp_path, write_image, ("bad.png", good + shape), ("good.png", good))
    bad, kept = iter_supports(tmp_path)
    assert kept.image.name == "good.png"
    assert "bad.png" in str(bad.error)
    assert message in str(bad.error)


def test_sizes_and_missing_images_of_the_xml_are_reported(tmp_path, write_image):
    good = '<box label="a" xtl="1" ytl="1" xbr="3" ybr="3"/>'
    xml(tmp_path, write_image, ("size.png", good), ("gone.png", good))
    write_image(tmp_path / "images" / "size.png", (31, 40))
    (tmp_path / "images" / "gone.png").unlink()
    size, gone = (str(item.error) for item in iter_supports(tmp_path))
    assert "the image is 40 x 31 pixels and the annotated one 40 x 30" in size
    assert "'gone.png' is not in" in gone


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations><track/></annotations>", "of a video, and none of its 0 frames .*frame_000000.png"),
        ("<annotation><object/></annotation>", "must have <annotations>.*got <annotation>"),
        ("<annotations>", "is not plain XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotations/>', "is not plain XML"),
    ],
)
def test_other_xml_is_reported(tmp_path, text, message):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_supports(tmp_path / "a.xml")


def shape(frame, points="2,3;30,3;30,20", more='outside="0" keyframe="1"'):
    return f'<polygon frame="{frame}" points="{points}" {more}/>'


def video(tmp_path, *tracks, size=(30, 40)):
    text = "".join(
        f'<track id="{k}" label="{label}">{shapes}</track>' for k, (label, shapes) in enumerate(tracks)
    )
    sides = f"<width>{size[1]}</width><height>{size[0]}</height>"
    meta = f"<meta><task><original_size>{sides}</original_size></task></meta>"
    (tmp_path / "annotations.xml").write_text(f"<annotations>{meta}{text}</annotations>")
    return tmp_path


def test_the_tracks_of_a_video_are_read_frame_by_frame(tmp_path, write_image, caplog):
    for name in ("frame_000000.PNG", "frame_000002.jpg", "frame_000004.png", "frame_000009.png"):
        write_image(tmp_path / "images" / name, SIZE)
    rust = shape(0) + shape(1) + shape(2, "5,5;20,5;20,25") + shape(4, more='outside="1"')
    box = '<box frame="2" xtl="1" ytl="2" xbr="9" ybr="8" outside="0" keyframe="0"/>'
    first, third = read_supports(video(tmp_path, ("rust", rust), ("dent", box)))
    assert [own.image.name for own in (first, third)] == ["frame_000000.PNG", "frame_000002.jpg"]
    assert set(first.masks) == {"rust"}
    for own, corners in ((first, [2, 3, 30, 3, 30, 20]), (third, [5, 5, 20, 5, 20, 25])):
        filled = coco_mask.decode(coco_mask.frPyObjects([corners], *SIZE))[..., 0]
        assert np.array_equal(own.masks["rust"], filled)
    assert np.array_equal(third.masks["dent"], rectangle(1, 2, 8, 6, SIZE))
    message, boxes = caplog.messages
    assert "1 box without an outline" in boxes
    assert "1 image left out (annotated frames without a file), the first is frame 1" in message


def test_a_wrong_frame_of_a_video_is_reported(tmp_path, write_image):
    write_image(tmp_path / "images/frame_000000.png", SIZE)
    write_image(tmp_path / "images/frame_000001.png", SIZE)
    tracks = (("a", shape(0) + shape(1, "1,1;2,2")), ("", shape(1)))
    good, bad = iter_supports(video(tmp_path, *tracks))
    assert good.image.name == "frame_000000.png"
    assert "frame 1, shape 0: a polygon must have points" in str(bad.error)
    for problem in iter_supports(video(tmp_path, *tracks, size=(31, 40))):
        assert "is 40 x 30 pixels and the video 40 x 31" in str(problem.error)
    with pytest.raises(DataError, match="'frame' must be a finite number, got ''"):
        read_supports(video(tmp_path, ("a", "<polygon points='1,1;2,2;3,9'/>")))
    with pytest.raises(DataError, match=r"none of its 1 frames .*frame_000000.png"):
        read_supports(video(tmp_path, ("a", shape(77))))
