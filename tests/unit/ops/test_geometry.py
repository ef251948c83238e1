import pytest
import torch

from fewseg.ops.geometry import (
    IMAGENET_MEAN,
    Letterbox,
    letterbox,
    pad_images,
    place,
    place_labels,
    resize_images,
    resize_labels,
    restore,
    scaled,
)


@pytest.mark.parametrize(
    ("hw", "size", "content"),
    [
        ((375, 500), 241, (181, 241)),
        ((500, 333), 473, (473, 315)),
        ((10, 10), 8, (8, 8)),
        ((1, 1000), 100, (1, 100)),
        ((50, 100), 201, (101, 201)),
    ],
)
def test_a_letterbox_keeps_the_aspect_and_fills_the_longer_side(hw, size, content):
    assert letterbox(hw, size) == Letterbox(original=hw, size=size, content=content)


@pytest.mark.parametrize(("hw", "size"), [((0, 5), 10), ((5, 5), 0)])
def test_a_letterbox_of_nothing_is_refused(hw, size):
    with pytest.raises(ValueError, match="1 pixel"):
        letterbox(hw, size)


def test_scaling_rounds_half_up_and_never_to_nothing():
    assert scaled((5, 3), 0.5) == (3, 2)
    assert scaled((5, 3), 0.01) == (1, 1)
    assert scaled((100, 50), 1.1) == (110, 55)


def test_placing_puts_the_image_top_left_and_mean_colour_elsewhere():
    box = letterbox((4, 8), 8)
    image = torch.rand(3, 4, 8)
    out = place(image, box)
    assert torch.equal(out[:, :4], image)
    assert torch.equal(out[:, 4:], torch.tensor(IMAGENET_MEAN)[:, None, None].expand(3, 4, 8))
    assert torch.equal(place(image[None], box)[0], out)


def test_padding_takes_any_colour_and_leaves_the_input_alone():
    image = torch.ones(2, 1, 1)
    out = pad_images(image, 2, (0.25, 0.5))
    assert out[:, 1, 1].tolist() == [0.25, 0.5]
    assert out[:, 0, 0].tolist() == [1, 1]
    assert image.shape == (2, 1, 1)


def test_placed_labels_are_padded_with_ignore():
    labels = torch.ones(8, 4, dtype=torch.uint8)
    out = place_labels(labels, letterbox((8, 4), 8))
    assert out.dtype == torch.uint8
    assert (out[:, :4] == 1).all()
    assert (out[:, 4:] == 255).all()


def ramp(h, w):
    """Linear in both directions: any centred, half-pixel resize gives the ramp at the new centres."""
    y, x = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
    return torch.stack([y, x, y + x])[None]


@pytest.mark.parametrize(("hw", "new"), [((60, 80), (30, 40)), ((30, 40), (75, 100)), ((64, 48), (21, 16))])
def test_resizing_keeps_pixel_centres_at_half_integers(hw, new):
    out = resize_images(ramp(*hw), new)
    inner = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(out[inner], ramp(*new)[inner], atol=1e-3, rtol=0)


def test_shrinking_an_image_averages_what_falls_into_a_pixel():
    stripes = torch.tensor([0.0, 1.0]).repeat(1, 1, 32, 16)
    out = resize_images(stripes, (8, 8))
    assert float((out[..., 2:-2] - 0.5).abs().max()) < 0.02


@pytest.mark.parametrize(("hw", "size"), [((60, 90), 45), ((60, 90), 180), ((90, 60), 61)])
def test_restoring_undoes_placing(hw, size):
    box = letterbox(hw, size)
    back = restore(place(ramp(*hw), box), box)
    assert back.shape == (1, 3, *hw)
    inner = (..., slice(6, -6), slice(6, -6))
    torch.testing.assert_close(back[inner], ramp(*hw)[inner], atol=2e-3, rtol=0)


def test_restoring_never_sees_the_padding():
    box = letterbox((20, 40), 16)
    logits = torch.zeros(2, 2, 16, 16)
    logits[..., 8:, :] = 1e6
    assert restore(logits, box).abs().max() == 0


def test_restoring_scores_of_another_size_is_refused():
    with pytest.raises(ValueError, match="letterbox of 8"):
        restore(torch.zeros(1, 2, 9, 8), letterbox((4, 8), 8))


def test_labels_take_the_nearest_pixel_centre():
    labels = torch.arange(6, dtype=torch.uint8).repeat(6, 1)
    assert resize_labels(labels, (2, 2)).tolist() == [[1, 4], [1, 4]]
    assert resize_labels(labels[None], (6, 12))[0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
