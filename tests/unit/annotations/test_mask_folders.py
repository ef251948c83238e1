import shutil

import numpy as np
import pytest
from PIL import Image

from fewseg.annotations import formats
from fewseg.annotations.formats import iter_supports, read_supports
from fewseg.annotations.options import SUPPORT_FORMATS, ReadOptions
from fewseg.annotations.values import Problem
from fewseg.types import DataError
from memory import growth


def problems(path):
    return {str(item.where): str(item.error) for item in iter_supports(path) if isinstance(item, Problem)}


def values(item):
    return {name: mask.tolist() for name, mask in item.masks.items()}


@pytest.mark.parametrize(
    ("stored", "mode", "mask"),
    [
        ([[0, 1, 1]], "L", [[0, 1, 1]]),
        ([[0, 255, 255]], "L", [[0, 1, 1]]),
        ([[0, 1, 255]], "L", [[0, 1, 255]]),
        ([[0, 38, 255]], "P", [[0, 1, 255]]),
        ([[0, 0, 0]], "L", [[0, 0, 0]]),
        ([[0, 255, 0]], "1", [[0, 1, 0]]),
        ([[0, 255, 0]], "RGB", [[0, 1, 0]]),
        ([[0, 255, 0]], "RGBA", [[0, 1, 0]]),
    ],
)
@pytest.mark.parametrize(
    "layout", ["images/{0}.jpg masks/{0}.png", "{0}.jpg {0}.png", "{0}.png {0}_mask.png"]
)
def test_what_the_numbers_of_one_class_mean(tmp_path, write_image, write_mask, layout, stored, mode, mask):
    first, second = layout.split(" ")
    image = write_image(tmp_path / first.format("x y é"), (1, 3))
    write_mask(tmp_path / second.format("x y é"), stored, mode)
    (found,) = read_supports(tmp_path, ReadOptions(class_name="rust"))
    assert (found.image, found.size) == (image, (1, 3))
    assert values(found) == {"rust": mask}
    assert found.masks["rust"].dtype == np.uint8


RED, GREEN, WHITE, BLACK, NOTHING = (255, 0, 0), (0, 255, 0), (255, 255, 255), (0, 0, 0), (0, 0, 0, 0)


def painted(path, write_image, *colours, mode="RGB"):
    """An image and a mask of one row, drawn in these colours."""
    write_image(path / "images" / "x.png", (1, len(colours)))
    (path / "masks").mkdir(exist_ok=True)
    mask = Image.new(mode, (len(colours), 1))
    mask.putdata(colours)
    mask.save(path / "masks" / "x.png")


@pytest.mark.parametrize(
    ("mode", "colours", "mask", "assumed"),
    [
        ("RGB", (BLACK, RED, RED), [[0, 1, 1]], "black is background"),
        ("RGBA", ((*BLACK, 255), (*RED, 255)), [[0, 1]], "black is background"),
        ("RGBA", (NOTHING, (*WHITE, 255)), [[0, 1]], "transparent"),
        ("RGBA", ((*RED, 0), (*GREEN, 127), (*BLACK, 128), (*BLACK, 255)), [[0, 0, 1, 1]], "transparent"),
        ("LA", ((200, 0), (9, 255)), [[0, 1]], "transparent"),
        ("RGBA", (NOTHING, (*RED, 9)), [[0, 0]], "transparent"),
        ("I;16", (0, 65535, 65535), [[0, 1, 1]], None),
        ("I;16", (0, 0), [[0, 0]], None),
        ("I;16", (0, 7, 255), [[0, 1, 255]], None),
    ],
)
def test_a_class_is_read_from_colours_transparency_and_16_bits(
    tmp_path, write_image, caplog, mode, colours, mask, assumed
):
    painted(tmp_path, write_image, *colours, mode=mode)
    (found,) = read_supports(tmp_path)
    assert values(found) == {"object": mask}
    assert found.masks["object"].dtype == np.uint8
    assert len(caplog.messages) == (assumed is not None)
    if assumed:
        assert assumed in caplog.text
        assert "1 mask, the first" in caplog.text


@pytest.mark.parametrize(
    ("mode", "colours", "message"),
    [
        ("RGB", (WHITE, RED), "stored as RGB, in colours"),
        ("RGB", (RED, RED), "stored as RGB, in colours"),
        ("RGB", (BLACK, RED, GREEN), "stored as RGB, in colours"),
        ("RGBA", (NOTHING, (*RED, 255), (*GREEN, 255)), "stored as RGBA, in colours"),
        ("RGBA", (NOTHING, (*RED, 255), (*BLACK, 255)), "stored as RGBA, in colours"),
        ("I;16", (0, 300), "stored as I;16, with numbers above 255"),
        ("I;16", (0, 1, 65535), "stored as I;16, with numbers above 255"),
        ("RGB", (BLACK, (128, 128, 128), WHITE, (7, 7, 7)), "holds 2 numbers besides 0 and 255"),
    ],
)
def test_ambiguous_colours_and_depths_are_reported(tmp_path, write_image, mode, colours, message):
    painted(tmp_path, write_image, *colours, mode=mode)
    (error,) = problems(tmp_path).values()
    assert message in error


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_list_of_classes_takes_no_drawing(tmp_path, write_image, mode):
    background = NOTHING if mode == "RGBA" else BLACK
    painted(tmp_path, write_image, background, (*RED, 255)[: len(background)], mode=mode)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    (error,) = problems(tmp_path).values()
    assert f"stored as {mode}, in colours" in error
    painted(tmp_path, write_image, 0, 1, 2, 255, mode="I;16")
    assert values(read_supports(tmp_path)[0]) == {"a": [[0, 1, 0, 255]], "b": [[0, 0, 1, 255]]}


CLEAR = (9, 9, 9, 0)
PALETTES = {
    "white on black": ((*WHITE, 255), (*BLACK, 255), [1, 0, 0], [[0, 1, 1]], "not number 0"),
    "red on black": ((*RED, 255), (*BLACK, 255), [1, 0, 0], [[0, 1, 1]], "not number 0"),
    "red on nothing": ((*RED, 255), CLEAR, [1, 0, 0], [[0, 1, 1]], "not number 0"),
    "in order": ((*BLACK, 255), (*WHITE, 255), [0, 1, 255], [[0, 1, 255]], None),
    "black on nothing": (CLEAR, (*BLACK, 255), [0, 1, 1], [[0, 1, 1]], None),
    "red on white": ((*WHITE, 255), (*RED, 255), [0, 1, 1], [[0, 1, 1]], "neither black nor"),
    "no number 0": ((*WHITE, 255), (*RED, 255), [1, 1, 1], [[1, 1, 1]], None),
    "all white": ((*WHITE, 255), (*RED, 255), [0, 0, 0], [[0, 0, 0]], "neither black nor"),
}


def palette_mask(path, colours, stored):
    mask = Image.fromarray(np.array([stored], np.uint8))
    mask.putpalette([v for colour in colours for v in colour[:3]] + [0] * (768 - 3 * len(colours)))
    path.parent.mkdir(exist_ok=True)
    mask.save(path, transparency=bytes(colour[3] for colour in colours))


@pytest.mark.parametrize("name", PALETTES)
def test_black_or_transparent_is_the_background_of_a_palette_of_two_colours(
    tmp_path, write_image, caplog, name
):
    *colours, stored, mask, assumed = PALETTES[name]
    write_image(tmp_path / "images" / "x.png", (1, 3))
    palette_mask(tmp_path / "masks" / "x.png", colours, stored)
    assert values(read_supports(tmp_path)[0]) == {"object": mask}
    assert len(caplog.messages) == (assumed is not None)
    assert (assumed or "") in caplog.text


@pytest.mark.parametrize("colours", [2, 7])
def test_a_drawing_that_pillow_quantized_is_read_as_the_drawing(tmp_path, write_image, colours):
    drawing = np.zeros((20, 20), np.uint8)
    drawing[5:9, 4:12] = 255
    write_image(tmp_path / "images" / "x.png", drawing.shape)
    (tmp_path / "masks").mkdir()
    Image.fromarray(drawing).convert("RGB").quantize(colours).save(tmp_path / "masks" / "x.png")
    assert np.array_equal(read_supports(tmp_path)[0].masks["object"], drawing == 255)


def test_a_list_of_classes_counts_palettes_whose_number_0_is_no_background(tmp_path, write_image, caplog):
    write_image(tmp_path / "images" / "x.png", (1, 3))
    palette_mask(tmp_path / "masks" / "x.png", ((*WHITE, 255), (*BLACK, 255)), [0, 1, 1])
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert values(read_supports(tmp_path)[0]) == {"a": [[0, 1, 1]]}
    (message,) = caplog.messages
    assert "x.png: number 0 is background, but neither black nor transparent in the palette" in message


@pytest.mark.parametrize(("other", "stored_as"), [(GREEN, "the colour #00ff00"), (WHITE, "the number 255")])
def test_different_colours_are_never_one_class(tmp_path, write_image, other, stored_as):
    both = tmp_path / "both"
    both.mkdir()
    for name, colour in (("a", RED), ("b", other), ("c", RED)):
        painted(tmp_path / name, write_image, BLACK, colour)
        (tmp_path / name / "images" / "x.png").rename(both / f"{name}.jpg")
        (tmp_path / name / "masks" / "x.png").rename(both / f"{name}.png")
    (error,) = problems(both).values()
    assert f"b.png holds {stored_as} and" in error
    assert "a.png the colour #ff0000" in error


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_a_lossy_mask_of_a_drawing_is_thresholded_with_a_warning(tmp_path, write_image, caplog, suffix, mode):
    drawing = np.zeros((96, 160), np.uint8)
    drawing[17:63, 21:90] = 255
    drawing[70:72, 5:150] = 255
    write_image(tmp_path / "images" / "x.png", drawing.shape)
    (tmp_path / "masks").mkdir()
    path = tmp_path / "masks" / f"x.{suffix}"
    Image.fromarray(drawing).convert(mode).save(path, quality=75)
    assert len(np.unique(np.array(Image.open(path)))) > 2
    (found,) = read_supports(tmp_path)
    assert (found.masks["object"] != (drawing > 0)).mean() < 0.002
    assert "blurs masks: what is 128 or brighter is the class; save masks as PNG" in caplog.text


@pytest.mark.parametrize("kind", ["photograph", "numbers", "colours"])
def test_a_lossy_mask_of_anything_else_is_reported(tmp_path, write_image, kind):
    rng = np.random.default_rng(0)
    pixels = np.zeros((96, 160, 3), np.uint8)
    pixels[20:60, 30:90] = {"photograph": 255, "numbers": 5, "colours": (250, 50, 83)}[kind]
    if kind == "photograph":
        pixels[60:] = rng.integers(40, 200, (36, 160, 1))
    write_image(tmp_path / "images" / "x.png", (96, 160))
    (tmp_path / "masks").mkdir()
    Image.fromarray(pixels).save(tmp_path / "masks" / "x.jpg")
    (error,) = problems(tmp_path).values()
    assert "numbers besides 0 and 255" in error or "stored as RGB, in colours" in error


def test_class_folders_name_their_class_and_keep_alike_names_apart(tmp_path, write_image, write_mask):
    for k, name in enumerate(("rust", "a crack")):
        write_image(tmp_path / name / "images" / "1.jpg", (2, 2))
        write_mask(tmp_path / name / "masks" / "1.png", np.full((2, 2), k))
    crack, rust = read_supports(str(tmp_path))
    assert (crack.image.parent.parent.name, values(crack)) == ("a crack", {"a crack": [[1, 1], [1, 1]]})
    assert values(rust) == {"rust": [[0, 0], [0, 0]]}


def test_a_list_of_classes_splits_an_index_map(tmp_path, write_image, write_mask):
    for name, stored in (("a", [[0, 1, 2, 255]]), ("b", [[0, 0, 0, 0]]), ("c", [[0, 255, 0, 1]])):
        write_image(tmp_path / "images" / f"{name}.jpg", (1, 4))
        write_mask(tmp_path / "masks" / f"{name}.png", stored, "P")
    (tmp_path / "classes.txt").write_text("background\nrust\n crack\n\n")
    first, negative, ignored = read_supports(tmp_path)
    assert values(first) == {"rust": [[0, 1, 0, 255]], "crack": [[0, 0, 1, 255]]}
    assert values(negative) == {}
    assert values(ignored) == {"rust": [[0, 255, 0, 1]]}
    (tmp_path / "classes.txt").write_text("rust\n")
    write_mask(tmp_path / "masks" / "a.png", [[0, 255, 255, 0]])
    write_mask(tmp_path / "masks" / "c.png", [[0, 1, 255, 0]])
    first, _, both = read_supports(tmp_path)
    assert values(first) == {"rust": [[0, 1, 1, 0]]}
    assert values(both) == {"rust": [[0, 1, 255, 0]]}


def test_a_mask_of_255_beside_a_list_of_classes_is_left_out_with_a_warning(
    tmp_path, write_image, write_mask, caplog
):
    for name, stored in (("a", [[0, 1]]), ("b", [[0, 255]]), ("c", [[255, 255]])):
        write_image(tmp_path / "images" / f"{name}.jpg", (1, 2))
        write_mask(tmp_path / "masks" / f"{name}.png", stored)
    (tmp_path / "classes.txt").write_text("rust\ncrack\n")
    (found,) = read_supports(tmp_path)
    assert found.image.name == "a.jpg"
    (message,) = caplog.messages
    assert "2 images left out (the mask holds 255 and no class; expected the numbers 1 .. 2 of" in message
    assert "b.jpg" in message


@pytest.mark.parametrize("listed", [None, "rust\n"])
@pytest.mark.parametrize(
    "layout", ["images/{0}.jpg masks/{0}.png", "{0}.jpg {0}.png", "cat/images/{0}.jpg cat/masks/{0}.png"]
)
def test_numbers_that_differ_between_files_are_never_one_class(
    tmp_path, write_image, write_mask, layout, listed
):
    first, second = layout.split(" ")
    for name, stored in (
        ("a", [[0, 0]]),
        ("b", [[0, 2]]),
        ("c", [[0, 1]]),
        ("d", [[3, 255]]),
        ("e", [[2, 0]]),
    ):
        write_image(tmp_path / first.format(name), (1, 2))
        write_mask(tmp_path / second.format(name), stored, "P")
    if listed:
        (tmp_path / "classes.txt").write_text(listed)
    errors = {where.rsplit("/", 1)[1]: error for where, error in problems(tmp_path).items()}
    assert set(errors) == {"c.jpg", "d.jpg"}
    assert "c.png holds the number 1 and" in errors["c.jpg"]
    assert (
        "b.png the number 2; expected one number a class: name the classes in classes.txt" in errors["c.jpg"]
    )
    with pytest.raises(DataError, match="2 of 5 annotated images cannot be used"):
        read_supports(tmp_path)


def test_each_folder_of_a_class_has_its_own_number(tmp_path, write_image, write_mask):
    for k, name in enumerate(("cat", "dog"), 1):
        write_image(tmp_path / name / "images" / "x.jpg", (1, 2))
        write_mask(tmp_path / name / "masks" / "x.png", [[0, k]])
    assert [values(found) for found in read_supports(tmp_path)] == [{"cat": [[0, 1]]}, {"dog": [[0, 1]]}]


@pytest.mark.parametrize("order", [(1, 255), (255, 1)])
def test_255_alone_beside_a_number_is_the_class_with_a_warning(
    tmp_path, write_image, write_mask, caplog, order
):
    for name, number in zip("abc", (*order, 255), strict=True):
        write_image(tmp_path / "images" / f"{name}.jpg", (1, 2))
        write_mask(tmp_path / "masks" / f"{name}.png", [[0, number]])
    assert [values(found) for found in read_supports(tmp_path)] == [{"object": [[0, 1]]}] * 3
    (message,) = caplog.messages
    assert message.count("taken as the same class") == 1
    assert f"{'ab'[order.index(255)]}.png holds 255 and no other number" in message
    assert f"{'ab'[order.index(1)]}.png holds the number 1:" in message


@pytest.mark.parametrize("text", ["", "a\na\n", "a\n\nb\n"])
def test_a_broken_list_of_classes_is_reported(tmp_path, write_image, write_mask, text):
    write_image(tmp_path / "images" / "a.jpg", (1, 4))
    write_mask(tmp_path / "masks" / "a.png", [[0, 0, 0, 1]])
    (tmp_path / "masks" / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=r"classes\.txt must have .*: classes must be"):
        read_supports(tmp_path)


def test_folders_of_masks_are_classes_and_folders_of_images_are_folders(tmp_path, write_image, write_mask):
    image = write_image(tmp_path / "m" / "images" / "x.jpg", (1, 2))
    write_mask(tmp_path / "m" / "masks" / "rust" / "x.png", [[0, 1]])
    write_mask(tmp_path / "m" / "masks" / "crack" / "x.png", [[255, 0]])
    assert values(read_supports(tmp_path / "m")[0]) == {"crack": [[1, 0]], "rust": [[0, 1]]}
    for folder, stored in (("a", [[0, 1]]), ("b", [[1, 0]])):
        write_image(tmp_path / "n" / "images" / folder / "x.jpg", (1, 2))
        write_mask(tmp_path / "n" / "masks" / folder / "x.png", stored)
    a, b = read_supports(tmp_path / "n")
    assert (a.image.parent.name, values(a)) == ("a", {"object": [[0, 1]]})
    assert (b.image.parent.name, values(b)) == ("b", {"object": [[1, 0]]})
    assert image.exists()


def test_images_may_lie_elsewhere(tmp_path, write_image, write_mask):
    write_image(tmp_path / "photos" / "x.jpg", (1, 2))
    write_image(tmp_path / "photos" / "x.png", (1, 2))
    write_mask(tmp_path / "masks" / "x.jpg.png", [[0, 1]])
    write_mask(tmp_path / "masks" / "x.png.png", [[1, 0]])
    jpg, png = read_supports(tmp_path / "masks", ReadOptions(images=tmp_path / "photos"))
    assert values(jpg) == {"object": [[0, 1]]}
    assert values(png) == {"object": [[1, 0]]}
    with pytest.raises(DataError, match="none does not exist"):
        read_supports(tmp_path / "masks", ReadOptions(images=tmp_path / "none"))


def test_bad_images_are_reported_one_by_one_and_the_others_are_kept(tmp_path, write_image, write_mask):
    images, masks = tmp_path / "images", tmp_path / "masks"
    names = ("good", "broken", "empty", "size", "smooth", "unmasked", "colour", "deep", "text", "turned")
    for name in names:
        write_image(images / f"{name}.png", (4, 5), exif=6 if name == "turned" else None)
        write_mask(masks / f"{name}.png", np.eye(4, 5))
    (images / "broken.png").write_bytes((images / "good.png").read_bytes()[:60])
    (images / "empty.png").write_bytes(b"")
    write_mask(masks / "size.png", np.eye(4, 4))
    write_mask(masks / "smooth.png", np.arange(20).reshape(4, 5))
    (masks / "unmasked.png").unlink()
    Image.new("RGB", (5, 4), (255, 0, 0)).save(masks / "colour.png")
    Image.new("I;16", (5, 4), 300).save(masks / "deep.png")
    (masks / "text.png").write_text("x")
    assert [i.image.name for i in iter_supports(tmp_path) if not isinstance(i, Problem)] == ["good.png"]
    errors = {where.rsplit("/", 1)[1]: error for where, error in problems(tmp_path).items()}
    expected = {
        "broken.png": "cannot be read",
        "empty.png": "empty (0 bytes)",
        "size.png": "5 x 4 pixels and its mask 4 x 4",
        "smooth.png": "numbers besides 0 and 255",
        "unmasked.png": "has no mask of its name",
        "colour.png": "stored as RGB",
        "deep.png": "stored as I;16, with numbers above 255",
        "text.png": "cannot be read",
        "turned.png": "EXIF",
    }
    assert set(errors) == set(expected)
    for name, words in expected.items():
        assert words in errors[name]
        assert name in errors[name]
        assert "\n" not in errors[name]
    with pytest.raises(DataError, match="9 of 10 annotated images cannot be used"):
        read_supports(tmp_path)
    with pytest.raises(DataError, match=r"good\.png has 5 x 4 pixels; expected at most 19"):
        read_supports(tmp_path, ReadOptions(max_pixels=19))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "is empty"),
        (["a.txt"], "no annotated images"),
        (["a.jpg", "b.png"], "no annotated images"),
        (["images/a.jpg"], "no masks/"),
        (["images/a.txt", "masks/a.png"], "holds no images"),
        (["masks/a.png", "a.json"], "one of both"),
    ],
)
def test_a_folder_of_another_layout_is_reported(tmp_path, files, message):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("x")
    with pytest.raises(DataError, match=message) as error:
        read_supports(tmp_path)
    assert (SUPPORT_FORMATS in str(error.value)) == ("holds" not in message and "one of both" not in message)


def test_class_folders_that_are_not_complete_are_reported(tmp_path, write_image, write_mask):
    write_image(tmp_path / "cat" / "images" / "x.jpg", (1, 2))
    write_mask(tmp_path / "cat" / "masks" / "x.png", [[0, 1]])
    write_image(tmp_path / "car" / "images" / "x.jpg", (1, 2))
    write_mask(tmp_path / "car" / "mask" / "x.png", [[0, 1]])
    (tmp_path / "bus" / "images").mkdir(parents=True)
    (tmp_path / "bus" / "masks").mkdir()
    errors = problems(tmp_path)
    assert set(errors) == {str(tmp_path / "bus"), str(tmp_path / "car")}
    assert "car lacks masks/" in errors[str(tmp_path / "car")]
    assert "bus lacks a picture in images/" in errors[str(tmp_path / "bus")]


@pytest.mark.parametrize("layout", ["cat/images cat/masks", "images masks", "images masks/cat"])
def test_a_mask_without_an_image_is_reported(tmp_path, write_image, write_mask, layout):
    images, masks = layout.split()
    write_image(tmp_path / images / "x.jpg", (1, 2))
    write_mask(tmp_path / masks / "x.png", [[0, 1]])
    assert problems(tmp_path) == {}
    write_mask(tmp_path / masks / "y.png", [[0, 1]])
    errors = problems(tmp_path)
    assert list(errors) == [str(tmp_path / masks / "y.png")]
    assert "belongs to no image" in errors[str(tmp_path / masks / "y.png")]


def test_the_masks_of_thousands_of_images_do_not_fill_the_memory(tmp_path, monkeypatch):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.new("L", (2000, 1500)).save(tmp_path / "images/0.png")
    mask = Image.new("L", (2000, 1500))
    mask.paste(1, (200, 300, 900, 1200))
    mask.save(tmp_path / "masks/0.png")
    for k in range(1, 40):
        for folder in ("images", "masks"):
            shutil.copy(tmp_path / folder / "0.png", tmp_path / folder / f"{k}.png")
    monkeypatch.setattr(formats, "_PLAIN", 2)
    found = []
    assert growth(lambda: found.extend(read_supports(tmp_path))) < 25 * 2000 * 1500
    assert len(found) == 40
    for image in (found[0], found[-1]):
        assert list(image.masks) == ["object"]
        assert np.array_equal(image.masks["object"], np.asarray(mask))
