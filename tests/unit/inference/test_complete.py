"""Strokes and boxes become masks: checked on drawn pictures, whose true masks are known."""

import numpy as np
import pytest

from fewseg.inference import Segmenter
from fewseg.inference.complete import PAINTED, Hints, canvas, complete
from fewseg.inference.images import read_image
from fewseg.types import DataError
from small_segmenters import iou, model, picture

HW = (90, 120)
IMAGE, MASK = picture(0, hw=HW, box=(20, 60, 30, 80))
CANVAS = canvas(read_image(IMAGE))


def hints(*painted, believed=None, boxes=()):
    """Painted and boxed are (number, rows, columns)."""
    labels = np.full(HW, 255, np.uint8) if believed is None else believed.copy()
    kind = np.zeros(HW, np.uint8)
    for number, rows, columns in boxes:
        kind[rows, columns] = PAINTED + number
    for number, rows, columns in painted:
        labels[rows, columns], kind[rows, columns] = number, PAINTED
    return Hints(labels=labels, kind=kind)


SCRIBBLE = (1, slice(38, 42), slice(40, 70))


def test_a_stroke_inside_a_thing_becomes_the_thing():
    assert iou(complete(CANVAS, hints(SCRIBBLE)) == 1, MASK == 1) > 0.97


def test_a_dot_becomes_the_thing():
    assert iou(complete(CANVAS, hints((1, slice(40, 43), slice(50, 53)))) == 1, MASK == 1) > 0.97


def test_a_box_around_a_thing_becomes_the_thing_of_its_class():
    found = complete(CANVAS, hints(boxes=[(3, slice(14, 66), slice(24, 87))]))
    assert set(np.unique(found)) == {0, 3}
    assert iou(found == 3, MASK == 1) > 0.97


def test_what_is_painted_stays_whatever_it_is():
    given = hints(SCRIBBLE, (0, slice(50, 55), slice(40, 60)), (255, slice(22, 25), slice(35, 60)))
    found = complete(CANVAS, given)
    own = given.kind == PAINTED
    np.testing.assert_array_equal(found[own], given.labels[own])
    assert not (found[~own] == 255).any()


def test_two_strokes_in_two_things_share_the_image():
    image = IMAGE.copy()
    image[20:60, 90:112] = (30, 40, 250)
    found = complete(canvas(read_image(image)), hints(SCRIBBLE, (2, slice(30, 50), slice(98, 102))))
    other = np.zeros(HW, bool)
    other[20:60, 90:112] = True
    assert iou(found == 1, MASK == 1) > 0.95
    assert iou(found == 2, other) > 0.95


def test_a_stroke_of_background_takes_away_what_is_alike_and_near():
    image = IMAGE.copy()
    image[20:60, 90:112] = IMAGE[40, 50]  # a second thing of the same colour
    cut = canvas(read_image(image))
    found = complete(cut, hints(SCRIBBLE, (0, slice(30, 50), slice(98, 102))))
    assert iou(found == 1, MASK == 1) > 0.95


def test_a_model_decides_where_the_image_shows_nothing():
    flat = canvas(read_image(np.full((*HW, 3), 90, np.uint8)))
    chances = np.zeros((1, 9, 12), np.float32)
    chances[0, :, 6:] = 0.95
    found = complete(flat, hints((1, slice(40, 44), slice(90, 94))), chances)
    right = np.zeros(HW, bool)
    right[:, 60:] = True
    assert iou(found == 1, right) > 0.9


def test_what_was_believed_stays_where_the_image_does_not_tell():
    believed = np.zeros(HW, np.uint8)
    believed[65:90, 60:120] = 1  # as dark as all around
    found = complete(CANVAS, hints((0, slice(0, 5), slice(0, 10)), believed=believed))
    assert iou(found == 1, believed == 1) > 0.9


def test_the_deep_maps_of_a_network_tell_pixels_apart():
    encoded = Segmenter(model()).encode(IMAGE)
    cut = canvas(read_image(IMAGE), encoded)
    assert cut.values.shape[2] > CANVAS.values.shape[2]
    assert iou(complete(cut, hints(SCRIBBLE)) == 1, MASK == 1) > 0.9


def test_nothing_painted_is_background_and_nothing_depends_on_chance():
    assert not complete(CANVAS, hints()).any()
    first, second = (complete(canvas(read_image(IMAGE)), hints(SCRIBBLE)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("hw", [(1, 1), (3, 50), (700, 5)])
def test_images_of_any_size_are_completed(hw):
    cut = canvas(read_image(np.zeros((*hw, 3), np.uint8)))
    labels, kind = np.full(hw, 255, np.uint8), np.zeros(hw, np.uint8)
    labels[0, 0], kind[0, 0] = 7, PAINTED
    assert complete(cut, Hints(labels=labels, kind=kind))[0, 0] == 7


def test_a_large_image_is_looked_at_with_512_pixels_and_its_mask_is_of_its_own_size():
    large = read_image(np.kron(IMAGE, np.ones((10, 10, 1), np.uint8)))
    cut = canvas(large)
    assert max(cut.values.shape[:2]) == 512
    small = hints(SCRIBBLE)
    found = complete(
        cut, Hints(**{k: np.kron(plane, np.ones((10, 10), np.uint8)) for k, plane in vars(small).items()})
    )
    assert found.shape == (900, 1200)
    assert iou(found == 1, np.kron(MASK, np.ones((10, 10))) == 1) > 0.97


def test_hints_of_another_size_are_refused():
    with pytest.raises(DataError, match=r"hints must be of the image's size \(90, 120\), got \(2, 2\)"):
        complete(CANVAS, Hints(labels=np.zeros((2, 2), np.uint8), kind=np.zeros((2, 2), np.uint8)))
