import io

import numpy as np
import pytest
import torch
from PIL import Image

from fewseg.inference.images import as_list, read_image, read_mask_of, value_range_of
from fewseg.types import DataError

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


def as_bytes(array, kind="PNG", **keywords):
    file = io.BytesIO()
    Image.fromarray(array).save(file, format=kind, **keywords)
    return file.getvalue()


def forms(tmp_path):
    path = tmp_path / "ein bild é.png"
    path.write_bytes(as_bytes(RGB))
    planes = torch.from_numpy(RGB).permute(2, 0, 1)
    return {
        "path": path,
        "text": str(path),
        "bytes": as_bytes(RGB),
        "pillow": Image.fromarray(RGB),
        "array": RGB,
        "view of an array": RGB[::-1][::-1],
        "four channels": np.concatenate([RGB, RGB[..., :1]], axis=2),
        "floats": (RGB / 255).astype(np.float64),
        "tensor": planes,
        "float tensor": planes.float() / 255,
    }


def test_every_form_of_an_image_gives_the_same_pixels(tmp_path):
    expected = torch.from_numpy(RGB).permute(2, 0, 1)
    for name, form in forms(tmp_path).items():
        found = read_image(form)
        assert found.dtype == torch.uint8, name
        assert torch.equal(found, expected), name


@pytest.mark.filterwarnings("error")
def test_an_array_that_cannot_be_written_to_is_read_and_left_as_it_is():
    array = np.asarray(Image.fromarray(RGB))
    assert not array.flags.writeable
    found = read_image(array)
    assert torch.equal(found, torch.from_numpy(RGB).permute(2, 0, 1))
    mask = np.asarray(Image.fromarray(MASK))
    assert torch.equal(read_mask_of(mask, (6, 9)), torch.from_numpy(MASK))


@pytest.mark.parametrize("grey", [RGB[..., 0], RGB[..., :1], torch.from_numpy(RGB[..., 0])[None]])
def test_grey_pixels_become_rgb(grey):
    assert torch.equal(read_image(grey), torch.from_numpy(RGB[..., 0]).expand(3, -1, -1))


@pytest.mark.parametrize("form", ["path", "bytes", "pillow", "transposed before"])
def test_the_orientation_of_a_photograph_is_applied_once(tmp_path, form):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    content = as_bytes(RGB, exif=exif)
    path = tmp_path / "turned.png"
    path.write_bytes(content)
    opened = Image.open(path)
    given = {"path": path, "bytes": content, "pillow": opened}.get(form)
    if given is None:
        from PIL import ImageOps

        given = ImageOps.exif_transpose(opened)
    assert torch.equal(read_image(given), torch.from_numpy(np.rot90(RGB, -1).copy()).permute(2, 0, 1))
    assert opened.getexif()[0x0112] == 6  # the caller's image is as it was


def animated():
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    file = io.BytesIO()
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


WRONG = {
    "batch": (np.zeros((2, 6, 9, 3), np.uint8), "one image at a time"),
    "channels first in an array": (np.zeros((3, 6, 9), np.uint8), "channels last in an array"),
    "channels last in a tensor": (torch.zeros(6, 9, 3), "first in a tensor"),
    "empty": (np.zeros((0, 9, 3), np.uint8), "shape"),
    "sixteen bits": (np.zeros((6, 9), np.int32), "must hold uint8"),
    "complex": (np.zeros((6, 9), np.dtype("U1")), "must hold uint8"),
    "bytes as floats": (RGB.astype(np.float32), "outside"),
    "normalised": (torch.randn(3, 6, 9), "outside"),
    "not a number": (torch.full((3, 6, 9), float("nan")), "NaN"),
    "no image": (3, "got a int"),
    "no bytes": (b"", "0 bytes"),
    "text as bytes": (b"hello", "cannot be read"),
    "animated pillow": (Image.open(io.BytesIO(animated())), "2 frames"),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_image_is_reported(given, message):
    with pytest.raises(DataError, match=message):
        read_image(given, "the picture")


def test_large_arrays_and_uploads_are_refused_before_they_are_decoded():
    with pytest.raises(DataError, match="9 x 6"):
        read_image(RGB, max_pixels=50)
    with pytest.raises(DataError, match="9 x 6"):
        read_image(as_bytes(RGB), max_pixels=50)
    with pytest.raises(DataError, match="9 x 6"):
        read_image(Image.fromarray(RGB), max_pixels=50)


MASK = np.zeros((6, 9), np.uint8)
MASK[2:4, 3:7] = 1
FORMS = {
    "numbers": MASK,
    "bool": MASK == 1,
    "white": MASK * 255,
    "int64": MASK.astype(np.int64),
    "floats": MASK.astype(np.float32),
    "tensor": torch.from_numpy(MASK),
    "bool tensor": torch.from_numpy(MASK).bool()[None],
    "pillow": Image.fromarray(MASK * 255),
    "one bit": Image.fromarray(MASK * 255).convert("1"),
    "quantized": Image.fromarray(MASK * 255).convert("RGB").quantize(2),
}


@pytest.mark.parametrize("given", FORMS.values(), ids=FORMS.keys())
def test_every_form_of_a_mask_gives_the_same_numbers(given):
    assert torch.equal(read_mask_of(given, (6, 9)), torch.from_numpy(MASK))


def test_a_mask_file_and_ignored_pixels(tmp_path):
    with_border = MASK.copy()
    with_border[0] = 255
    path = tmp_path / "m.png"
    Image.fromarray(with_border).save(path)
    assert torch.equal(read_mask_of(path, (6, 9)), torch.from_numpy(with_border))
    assert torch.equal(read_mask_of(with_border, (6, 9)), torch.from_numpy(with_border))


WRONG_MASKS = {
    "size": (MASK.T, "9 x 6 pixels and its mask 6 x 9"),
    "smooth": ((MASK * 0.5).astype(np.float32), "whole numbers"),
    "classes": (MASK * 3 + np.eye(6, 9, dtype=np.uint8) * 2, "one class a mask"),
    "negative": (MASK.astype(np.int64) * -1, "whole numbers"),
    "channels": (np.stack([MASK] * 3, -1), "one mask for each image"),
    "colour": (Image.new("RGB", (9, 6), (255, 0, 0)), "stored as RGB, in colours"),
    "nothing": (3.0, "got a float"),
}


@pytest.mark.parametrize(("given", "message"), WRONG_MASKS.values(), ids=WRONG_MASKS.keys())
def test_what_is_no_mask_is_reported(given, message):
    with pytest.raises(DataError, match=message):
        read_mask_of(given, (6, 9), "the mask")


def test_different_numbers_are_never_one_class(tmp_path):
    first, second = tmp_path / "0.png", tmp_path / "1.png"
    Image.fromarray(MASK).save(first)
    Image.fromarray(MASK * 2).save(second)
    for masks, names in (((first, second), (first, second)), ((MASK, 2 * MASK), ("mask 1", "mask 2"))):
        known = {}
        read_mask_of(masks[0], (6, 9), "mask 1", known=known)
        read_mask_of(None, (6, 9), "mask 3", known=known)
        with pytest.raises(DataError, match=r"holds the number 2 and .* the number 1; expected one") as error:
            read_mask_of(masks[1], (6, 9), "mask 2", known=known)
        assert all(str(name) in str(error.value) for name in names)


def test_arrays_of_several_are_lists():
    assert len(as_list(np.zeros((4, 6, 9, 3)), 4)) == 4
    assert len(as_list(np.zeros((6, 9, 3)), 4)) == 1
    assert as_list("a.png", 4) == ["a.png"]
    assert as_list(("a", None), 3) == ["a", None]


DEEP = np.random.default_rng(3).integers(300, 2700, (40, 50)).astype(np.uint16)
DEEP[0, 0], DEEP[0, 1] = 0, 65535  # a dead pixel and a hot one


def plainly_scaled(values, low, high):
    """Pixel by pixel."""
    return [[round(min(max((float(v) - low) / (high - low), 0), 1) * 255) for v in row] for row in values]


@pytest.mark.parametrize(
    "form", ["png", "tif", "float tif", "32 bit tif", "bytes", "pillow", "array", "tensor"]
)
def test_a_range_of_values_becomes_0_to_255_in_every_form_of_a_deep_image(tmp_path, form):
    kinds = {"float tif": np.float32, "32 bit tif": np.int32, "tensor": np.int32}
    values = DEEP.astype(kinds.get(form, np.uint16))
    path = tmp_path / f"x.{'png' if form == 'png' else 'tif'}"
    if form != "array" and form != "tensor":
        Image.fromarray(values).save(path)
    given = {
        "bytes": lambda: path.read_bytes(),
        "pillow": lambda: Image.open(path),
        "array": lambda: values,
        "tensor": lambda: torch.from_numpy(values),
    }.get(form, lambda: path)
    expected = plainly_scaled(DEEP, 300, 2700)
    found = read_image(given(), value_range=(300.0, 2700.0))
    assert found.shape == (3, 40, 50)
    assert [plane.tolist() for plane in found] == [expected] * 3
    low, high = value_range_of([RGB, given(), as_bytes(RGB)])
    assert (low, high) == tuple(np.percentile(DEEP, [0.1, 99.9]))
    assert low > 200
    assert high < 3000


def test_colours_of_more_bits_are_scaled_alike_in_all_channels():
    values = np.stack([DEEP, DEEP // 2, DEEP // 4], axis=2)
    found = read_image(values, value_range=(0, 3000))
    assert found[1].tolist() == plainly_scaled(DEEP // 2, 0, 3000)


@pytest.mark.filterwarnings("error")
def test_values_that_are_not_finite_are_dark_or_clipped():
    values = np.array([[np.nan, np.inf, -np.inf, 5.0]], np.float32)
    found = read_image(Image.fromarray(values), value_range=(0, 10))
    assert found[0].tolist() == [[0, 255, 0, 128]]
    assert value_range_of([Image.fromarray(values)]) == (5.0, 6.0)


def test_the_range_is_of_all_deep_images_together_and_of_none_without_any():
    dark, bright = np.full((9, 9), 100, np.uint16), np.full((9, 9), 900, np.uint16)
    assert value_range_of([dark, bright]) == (100.0, 900.0)
    assert value_range_of([RGB, RGB / 255, np.ones((3, 3), bool)]) is None
