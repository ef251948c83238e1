import io

import numpy as np
import pytest
import torch
from PIL import Image

from fewseg.inference.images import as_list, read_image, read_mask_of
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
    "colour": (Image.new("RGB", (9, 6)), "mode 1, L or P, got RGB"),
    "nothing": (3.0, "got a float"),
}


@pytest.mark.parametrize(("given", "message"), WRONG_MASKS.values(), ids=WRONG_MASKS.keys())
def test_what_is_no_mask_is_reported(given, message):
    with pytest.raises(DataError, match=message):
        read_mask_of(given, (6, 9), "the mask")


def test_arrays_of_several_are_lists():
    assert len(as_list(np.zeros((4, 6, 9, 3)), 4)) == 4
    assert len(as_list(np.zeros((6, 9, 3)), 4)) == 1
    assert as_list("a.png", 4) == ["a.png"]
    assert as_list(("a", None), 3) == ["a", None]
