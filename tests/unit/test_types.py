"""Support sets of several ways, and what of them belongs to each way."""

import pytest
import torch

from fewseg.types import EncodedShots, Features


def make(masks, way_of=()):
    count = masks.shape[0] * masks.shape[1]
    maps = torch.arange(count).float().view(-1, 1, 1, 1)
    return EncodedShots(features=Features(maps={"a": maps}, image_size=(1, 4)), masks=masks, way_of=way_of)


def test_all_images_are_of_way_1_by_default():
    shots = make(torch.zeros(2, 3, 1, 4, dtype=torch.uint8))
    assert shots.way_of == (1, 1, 1)
    assert (shots.ways, shots.shots) == (1, 3)
    assert shots.one_way(1) is shots


@pytest.mark.parametrize("way_of", [(1, 3, 3), (2, 2, 2), (1, 2), (1, 1, 2, 2), (0, 1, 2), (1, 2, -1)])
def test_ways_that_do_not_fit_the_images_are_refused(way_of):
    masks = torch.zeros(2, 3, 1, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"for 3 support images: give one number an image") as error:
        make(masks, way_of)
    assert str(way_of) in str(error.value)
    assert "at least one image for each way" in str(error.value)


def test_a_way_has_its_own_images_and_every_other_way_is_background():
    masks = torch.tensor(
        [
            [[[0, 1, 2, 255]], [[2, 2, 1, 0]], [[1, 1, 255, 2]]],
            [[[1, 0, 0, 0]], [[2, 0, 0, 1]], [[255, 2, 1, 0]]],
        ],
        dtype=torch.uint8,
    )
    shots = make(masks, (1, 2, 1))
    assert (shots.ways, shots.shots) == (2, 3)
    first, second = shots.one_way(1), shots.one_way(2)
    assert first.features["a"].flatten().tolist() == [0, 2, 3, 5]  # the shot axis runs fastest
    assert second.features["a"].flatten().tolist() == [1, 4]
    assert first.masks[:, :, 0].tolist() == [[[0, 1, 0, 255], [1, 1, 255, 0]], [[1, 0, 0, 0], [255, 0, 1, 0]]]
    assert second.masks[:, :, 0].tolist() == [[[1, 1, 0, 0]], [[1, 0, 0, 0]]]
    assert (first.ways, first.way_of, second.way_of) == (1, (1, 1), (1,))
    assert first.masks.dtype == torch.uint8
    assert masks[0, 0, 0].tolist() == [0, 1, 2, 255]  # the set itself stays as it was
