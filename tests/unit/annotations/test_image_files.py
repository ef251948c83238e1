import zlib
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from fewseg.annotations.image_files import (
    check_annotated_size,
    check_labels,
    check_same_size,
    image_size,
    read_mask,
    read_rgb,
    reading_errors,
    require_folder,
)
from fewseg.types import DataError


def test_an_image_is_read_as_rgb_planes(tmp_path, write_image):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = read_rgb(write_image(tmp_path / "a.png", pixels))
    assert image.dtype == torch.uint8
    assert np.array_equal(image.numpy(), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("orientation", "turned"), [(3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1)), (8, np.rot90)]
)
def test_the_exif_orientation_is_applied(tmp_path, write_image, orientation, turned):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = write_image(tmp_path / "a.png", pixels, exif=orientation)
    expected = turned(pixels)
    assert np.array_equal(read_rgb(path).numpy(), expected.transpose(2, 0, 1))
    assert image_size(path) == expected.shape[:2]


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
def test_images_of_other_modes_become_rgb(tmp_path, mode):
    Image.new("RGB", (6, 4), (90, 90, 90)).convert(mode).save(tmp_path / "a.tif")
    image = read_rgb(tmp_path / "a.tif")
    assert image.shape == (3, 4, 6)
    assert (image.int() - 90).abs().max() <= 1


def read_colours(path):
    return read_mask(path, modes=("RGB",))


@pytest.mark.parametrize(
    ("read", "suffix"), [*product((read_rgb, image_size), ("jpg", "png")), (read_colours, "png")]
)
def test_a_truncated_file_is_reported_by_name(tmp_path, write_image, read, suffix):
    path = write_image(tmp_path / f"a.{suffix}", (200, 120))
    assert read is read_colours or image_size(path) == (200, 120)  # not that of a JPEG's draft
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match=rf"a\.{suffix} cannot be read.*fetch it again"):
        read(path)


@pytest.mark.parametrize("read", [read_rgb, image_size, read_mask])
def test_a_missing_or_foreign_file_is_reported_by_name(tmp_path, read):
    with pytest.raises(DataError, match=r"none\.png does not exist"):
        read(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image at all")
    with pytest.raises(DataError, match=r"text\.png cannot be read: its content is no image") as caught:
        read(tmp_path / "text.png")
    assert "leave it out" in str(caught.value)
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match=r"empty\.png is empty \(0 bytes\)"):
        read(tmp_path / "empty.png")


@pytest.mark.parametrize("mode", ["P", "L"])
def test_a_mask_gives_the_stored_numbers_and_not_the_colours(tmp_path, write_mask, mode):
    labels = np.array([[0, 1, 20], [255, 7, 0]], dtype=np.uint8)
    mask = read_mask(write_mask(tmp_path / "m.png", labels, mode))
    assert mask.dtype == torch.uint8
    assert mask.tolist() == labels.tolist()
    bilevel = read_mask(write_mask(tmp_path / "b.png", [[0, 255]], "1"), modes=("1",))
    assert (bilevel.dtype, bilevel.tolist()) == (torch.uint8, [[0, 1]])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "1", "I;16"])
def test_a_mask_of_another_mode_is_refused_with_what_to_do(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=rf"stored as {mode}; .*modes L, P.*convert colours"):
        read_mask(tmp_path / "m.png")


def test_labels_may_hold_background_classes_and_ignore_only():
    names = {1: "a", 3: "b"}
    check_labels(torch.tensor([[0, 1], [3, 255]], dtype=torch.uint8), names, "m.png")
    with pytest.raises(DataError, match=r"m\.png holds class ids \[2, 254\];.*1\.\.3 \(2 classes\)"):
        check_labels(torch.tensor([[0, 2], [254, 1]], dtype=torch.uint8), names, "m.png")


@pytest.mark.parametrize(
    ("check", "other"), [(check_same_size, "its mask"), (check_annotated_size, "the annotated one")]
)
def test_different_sizes_are_reported_with_both(check, other):
    check("x", (4, 6), (4, 6))
    with pytest.raises(DataError, match=rf"x: the image is 6 x 4 pixels and {other} 6 x 5;"):
        check("x", (4, 6), (5, 6))
    with pytest.raises(DataError, match="EXIF"):
        check("x", (4, 6), (6, 4))


def test_a_root_must_exist_be_a_folder_and_hold_something(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        require_folder(tmp_path / "none", "set")
    with pytest.raises(DataError, match="is empty"):
        require_folder(tmp_path, "set")
    (tmp_path / "f").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        require_folder(tmp_path / "f", "set")
    require_folder(tmp_path, "set")


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_animated_images_are_refused(tmp_path, suffix):
    frames = [Image.new("RGB", (6, 4), (k, 90 * k, 7)) for k in range(3)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    for read in (read_rgb, image_size):
        with pytest.raises(DataError, match=r"holds 3 frames \((GIF|PNG|WEBP|TIFF)\); expected still images"):
            read(tmp_path / f"a.{suffix}")
    frames[1].save(tmp_path / f"b.{suffix}")
    assert read_rgb(tmp_path / f"b.{suffix}").shape == (3, 4, 6)


def test_a_camera_file_with_a_preview_is_its_photograph(tmp_path):
    photo, preview = Image.new("RGB", (64, 48), (9, 90, 200)), Image.new("RGB", (8, 6))
    photo.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    assert Image.open(tmp_path / "a.jpg").format == "MPO"
    assert read_rgb(tmp_path / "a.jpg").shape == (3, 48, 64)
    assert image_size(tmp_path / "a.jpg") == (48, 64)


def test_16_bit_grey_is_brought_to_8_bits_over_its_full_range(tmp_path):
    values = np.array([[0, 257, 65535, 128, 129, 32768]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert read_rgb(tmp_path / "a.png").tolist() == [[[0, 1, 255, 0, 1, 128]]] * 3
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match="32 bits a pixel"):
        read_rgb(tmp_path / "f.tif")


def test_a_bomb_is_refused_from_its_header(tmp_path, write_image):
    """A header of 20 000 x 20 000 pixels, and no data that could be decoded."""
    raw = bytearray(write_image(tmp_path / "a.png", (20, 30)).read_bytes())
    raw[16:24] = (20_000).to_bytes(4) * 2
    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4)
    (tmp_path / "a.png").write_bytes(raw)
    for read in (read_rgb, image_size, read_mask):
        with pytest.raises(DataError, match=r"a\.png has 400000000 pixels; expected at most 89478485"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_a_limit_above_pillows_own_holds_and_is_that_of_the_reading_alone(
    tmp_path, write_image, suffix, monkeypatch
):
    path = write_image(tmp_path / f"a.{suffix}", (20, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice as many
    for read in (read_rgb, image_size):
        read(path, max_pixels=600)
        with pytest.raises(DataError, match="has 600 pixels; expected at most 299"):
            read(path, max_pixels=299)
        assert Image.MAX_IMAGE_PIXELS == 100


def test_readers_at_the_same_time_each_have_their_limit(tmp_path, write_image, monkeypatch):
    path = write_image(tmp_path / "a.png", (20, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with reading_errors(path, "image", 500):
        read_rgb(path, max_pixels=600)
        assert Image.MAX_IMAGE_PIXELS == 500
        with pytest.raises(DataError, match="expected at most 400"):
            read_rgb(path, max_pixels=400)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_format_that_runs_a_program_is_not_opened(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(DataError, match="cannot be read"):
        read_rgb(tmp_path / "a.jpg")


def test_a_grey_mask_stored_in_colour_is_read_where_it_is_accepted(tmp_path):
    modes = ("L", "LA", "RGB", "RGBA")
    for mode in modes:
        Image.fromarray(np.array([[0, 255, 3]], np.uint8)).convert(mode).save(tmp_path / "m.png")
        assert read_mask(tmp_path / "m.png", modes).tolist() == [[0, 255, 3]]
    for mode, colour in (("RGB", (1, 2, 1)), ("RGBA", (1, 1, 1, 254)), ("LA", (1, 0))):
        Image.new(mode, (2, 2), colour).save(tmp_path / "m.png")
        with pytest.raises(DataError, match=f"stored as {mode}, in colours.*convert colours") as caught:
            read_mask(tmp_path / "m.png", modes)
        assert "files (modes L) that hold" in str(caught.value)
