"""Labels and IoUs of several ways, by hand and by argmax."""

import numpy as np
import pytest
import torch

from fewseg.ops.masks import labels_of_margins, mean_region_iou


@pytest.mark.parametrize("ways", [1, 2, 3, 5])
def test_labels_are_the_argmax_beside_a_background_of_zeros_also_in_ties(ways):
    generator = torch.Generator().manual_seed(0)
    margins = torch.randint(-2, 3, (3, ways, 11, 12), generator=generator).float()  # ties abound
    found = labels_of_margins(margins)
    joined = np.concatenate([np.zeros((3, 1, 11, 12)), margins.numpy()], axis=1)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), joined.argmax(axis=1))  # numpy takes the first of equals


def test_labels_by_hand():
    margins = torch.tensor([[-1.0, 0.0, 2.0, 1.0, 1.0, -3.0], [-2.0, -1.0, 1.0, 1.0, 2.0, 0.5]]).view(
        1, 2, 1, 6
    )
    assert labels_of_margins(margins).flatten().tolist() == [0, 0, 1, 1, 2, 2]


def plain_iou(labels, masks, way):
    """One set, a pixel at a time, over all its images."""
    both = either = 0
    for said, true in zip(labels.flatten().tolist(), masks.flatten().tolist(), strict=True):
        if true == 255:
            continue
        both += said == way and true == way
        either += said == way or true == way
    return both / either if either else 1.0


@pytest.mark.parametrize("ways", [1, 2, 4])
def test_the_iou_of_a_set_is_the_mean_over_ways_of_sums_over_images(ways):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, ways + 1, (3, 2, 7, 8), generator=generator)
    values = torch.tensor([*range(ways + 1), 255], dtype=torch.uint8)
    masks = values[torch.randint(0, ways + 2, (3, 2, 7, 8), generator=generator)]
    found = mean_region_iou(labels, masks, ways)
    for b in range(3):
        expected = sum(plain_iou(labels[b], masks[b], j) for j in range(1, ways + 1)) / ways
        assert float(found[b]) == pytest.approx(expected)


def test_two_ways_in_two_images_by_hand():
    masks = torch.tensor([[[[1, 1, 0, 2]], [[1, 0, 255, 2]]]], dtype=torch.uint8)
    labels = torch.tensor([[[[1, 0, 0, 2]], [[1, 2, 1, 0]]]])
    # way 1: 2 of 3 pixels, the ignored one aside; way 2: 1 of 3
    assert float(mean_region_iou(labels, masks, 2)[0]) == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert float(mean_region_iou(labels, masks, 1)[0]) == pytest.approx(2 / 3)


def test_a_way_that_is_nowhere_counts_1_and_one_that_is_only_predicted_0():
    masks = torch.tensor([[[[0, 0, 255]]], [[[0, 0, 255]]]], dtype=torch.uint8)
    labels = torch.tensor([[[[0, 0, 1]]], [[[1, 0, 0]]]])
    assert mean_region_iou(labels, masks, 1).tolist() == [1.0, 0.0]
