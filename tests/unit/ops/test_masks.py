"""Pixel masks as feature cells; masked pooling; regions, labels and IoUs."""

import math

import numpy as np
import pytest
import torch

from fewseg.ops.masks import (
    AREA_EPS,
    covered_and_missed,
    foreground_cells,
    labels_of_margins,
    masked_average,
    masked_averages,
    mean_region_iou,
)


def plain_cells(mask, size):
    """Bilinear sampling with aligned corners, a cell at a time."""
    height, width = mask.shape
    found = torch.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = i * (height - 1) / (size[0] - 1)
            x = j * (width - 1) / (size[1] - 1)
            top, left = math.floor(y), math.floor(x)
            for row, wy in ((top, 1 - (y - top)), (min(top + 1, height - 1), y - top)):
                for column, wx in ((left, 1 - (x - left)), (min(left + 1, width - 1), x - left)):
                    found[i, j] += wy * wx * float(mask[row, column] == 1)
    return found


def test_cells_are_the_bilinear_share_of_foreground_and_ignored_pixels_are_none():
    generator = torch.Generator().manual_seed(0)
    masks = torch.tensor([0, 1, 255], dtype=torch.uint8)[
        torch.randint(0, 3, (2, 13, 10), generator=generator)
    ]
    cells = foreground_cells(masks, (4, 5))
    assert cells.shape == (2, 1, 4, 5)
    for mask, cell in zip(masks, cells, strict=True):
        torch.testing.assert_close(cell[0], plain_cells(mask, (4, 5)), atol=1e-5, rtol=0)


def test_an_object_between_the_sampled_pixels_falls_back_to_the_cells_that_it_touches():
    masks = torch.zeros(2, 65, 65, dtype=torch.uint8)
    masks[0, 3, 20] = 1  # no multiple of 8: bilinear sampling does not see it
    masks[1, ::8, ::8] = 1
    cells = foreground_cells(masks, (9, 9))
    assert cells[0].sum() == 1
    assert cells[0, 0, 0, 2] == 1  # pixel 20 of 65 lies in the third of nine cells
    assert bool((cells[1] == 1).all())


def test_an_object_that_fills_less_than_half_of_a_cell_falls_back_too():
    masks = torch.zeros(1, 16, 16, dtype=torch.uint8)
    masks[0, 4, 7] = 1
    assert float(plain_cells(masks[0], (5, 5)).max()) == pytest.approx(0.75 * 0.5)
    cells = foreground_cells(masks, (5, 5))
    assert cells.sum() == cells[0, 0, 1, 2] == 1


def test_without_the_fallback_an_object_has_the_cells_that_bilinear_sampling_leaves():
    masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
    masks[0, 4, 7] = masks[1, 4, 6] = 1
    cells = foreground_cells(masks, (5, 5), small_objects="sampled")
    for mask, cell in zip(masks, cells, strict=True):
        torch.testing.assert_close(cell[0], plain_cells(mask, (5, 5)), atol=1e-6, rtol=0)
    assert float(cells[0].max()) == pytest.approx(0.75 * 0.5)
    assert float(cells[1].sum()) == 0  # between the sampled pixels


@pytest.mark.parametrize(("threshold", "soft_counts"), [(0.5, True), (1.0, False)])
def test_the_foreground_is_parted_into_what_a_prediction_covers_and_what_it_misses(threshold, soft_counts):
    cells = torch.tensor([[[[1.0, 1.0, 0.5], [0.49, 0.0, 0.0]]]])
    predicted = torch.tensor([[[1, 0, 1], [1, 1, 0]]])
    covered, missed = covered_and_missed(cells, predicted, threshold)
    assert covered.tolist() == [[[[1.0, 0.0, float(soft_counts)], [0.0, 0.0, 0.0]]]]
    assert missed.tolist() == [[[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]]
    assert covered.dtype == cells.dtype


def test_truncated_regions_are_those_of_prediction_plus_mask_cut_to_an_integer():
    shares = torch.tensor([0.0, 0.25, 0.999, 1.0])
    cells = shares.repeat(2).view(1, 1, 2, 4)
    predicted = torch.tensor([[[0, 0, 0, 0], [1, 1, 1, 1]]])
    covered, missed = covered_and_missed(cells, predicted, "truncated")
    for row, column in ((r, c) for r in range(2) for c in range(4)):
        region = int(predicted[0, row, column] + cells[0, 0, row, column])
        inside = float(cells[0, 0, row, column]) > 0
        assert float(covered[0, 0, row, column]) == float(region == 2)
        assert float(missed[0, 0, row, column]) == float(region == 1 and inside)


@pytest.mark.parametrize("ways", [1, 2, 3, 5])
def test_labels_are_the_argmax_beside_a_background_of_zeros_also_in_ties(ways):
    generator = torch.Generator().manual_seed(0)
    margins = torch.randint(-2, 3, (3, ways, 11, 12), generator=generator).float()  # ties abound
    found = labels_of_margins(margins)
    joined = np.concatenate([np.zeros((3, 1, 11, 12)), margins.numpy()], axis=1)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), joined.argmax(axis=1))  # numpy takes the first of equals


def plain_iou(labels, masks, way):
    """One set, a pixel at a time, over all its images."""
    both = either = 0
    for predicted, true in zip(labels.flatten().tolist(), masks.flatten().tolist(), strict=True):
        if true == 255:
            continue
        both += predicted == way and true == way
        either += predicted == way or true == way
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


def test_a_way_that_is_nowhere_counts_1_and_one_that_is_only_predicted_0():
    masks = torch.tensor([[[[0, 0, 255]]], [[[0, 0, 255]]]], dtype=torch.uint8)
    labels = torch.tensor([[[[0, 0, 1]]], [[[1, 0, 0]]]])
    assert mean_region_iou(labels, masks, 1).tolist() == [1.0, 0.0]


def plain_average(features, cells, eps):
    """SCL Eq. 1 as a loop over cells."""
    n, channels, height, width = features.shape
    found = torch.zeros(n, channels)
    for i in range(n):
        area, total = 0.0, torch.zeros(channels)
        for y in range(height):
            for x in range(width):
                area += float(cells[i, 0, y, x])
                total += float(cells[i, 0, y, x]) * features[i, :, y, x]
        found[i] = total / (area + eps)
    return found


@pytest.mark.parametrize("eps", [AREA_EPS, 1e-5])
def test_the_pooled_vector_is_the_weighted_mean_of_the_cells(eps):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 4, 5, 6, generator=generator)
    cells = torch.rand(3, 1, 5, 6, generator=generator)
    torch.testing.assert_close(masked_average(features, cells, eps), plain_average(features, cells, eps))


def test_an_empty_mask_pools_to_zeros_with_finite_gradients():
    features = torch.randn(2, 3, 4, 4, requires_grad=True)
    pooled = masked_average(features, torch.zeros(2, 1, 4, 4))
    assert pooled.abs().max() == 0
    pooled.sum().backward()
    assert bool(torch.isfinite(features.grad).all())


def test_regions_pooled_at_once_are_those_pooled_one_by_one():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 4, 5, 6, generator=generator)
    cells = torch.rand(3, 2, 5, 6, generator=generator)
    cells[1, 1] = 0
    for maps in (features, features.contiguous(memory_format=torch.channels_last)):
        found = masked_averages(maps, cells, 0.5)
        for region in range(2):
            expected = plain_average(features, cells[:, region : region + 1], 0.5)
            torch.testing.assert_close(found[:, region], expected, atol=1e-5, rtol=1e-5)
    assert found[1, 1].abs().max() == 0
