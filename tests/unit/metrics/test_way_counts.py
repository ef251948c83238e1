import time

import numpy as np
import pytest
import torch

from fewseg.metrics import count, count_ways
from fewseg.metrics.counts import COUNT_NAMES


def columns(counts):
    return {name: getattr(counts, name).tolist() for name in COUNT_NAMES}


def random_maps(ways, shape=(9, 11), seed=0):
    generator = np.random.default_rng(seed)
    prediction = generator.integers(0, ways + 1, shape).astype(np.uint8)
    truth = generator.choice([*range(ways + 1), 255], shape).astype(np.uint8)
    return prediction, truth


def pixel_by_pixel(prediction, truth, ways):
    """The definition, spelled out: each way, then any way, on the pixels that are not ignored."""
    foregrounds = [{way} for way in range(1, ways + 1)]
    if ways > 1:
        foregrounds.append(set(range(1, ways + 1)))
    seen = {name: [0] * len(foregrounds) for name in COUNT_NAMES}
    for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        if t == 255:
            continue
        for row, foreground in enumerate(foregrounds):
            in_p, in_t = p in foreground, t in foreground
            seen["fg_inter"][row] += in_p and in_t
            seen["fg_union"][row] += in_p or in_t
            seen["bg_inter"][row] += not in_p and not in_t
            seen["bg_union"][row] += not in_p or not in_t
            seen["fg_pred"][row] += in_p
            seen["fg_true"][row] += in_t
    return seen


def test_a_case_of_two_ways_counted_by_hand():
    prediction = np.array([[1, 2, 2, 0], [0, 1, 2, 1]], np.uint8)
    truth = np.array([[1, 1, 2, 2], [0, 0, 255, 255]], np.uint8)
    counts = count_ways(prediction, truth, 2)
    # 6 pixels count; way 1 against way 2 is wrong for both ways and right for any way
    assert columns(counts) == {
        "fg_inter": [1, 1, 3],
        "fg_union": [3, 3, 5],
        "bg_inter": [3, 3, 1],
        "bg_union": [5, 5, 3],
        "fg_pred": [2, 2, 4],
        "fg_true": [2, 2, 4],
    }
    assert all(getattr(counts, name).dtype == np.int64 for name in COUNT_NAMES)


@pytest.mark.parametrize("ways", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("seed", range(3))
def test_counts_of_ways_agree_with_a_walk_over_the_pixels(ways, seed):
    prediction, truth = random_maps(ways, seed=seed)
    assert columns(count_ways(prediction, truth, ways)) == pixel_by_pixel(prediction, truth, ways)


@pytest.mark.parametrize("ways", [2, 4])
def test_each_row_is_the_count_of_its_own_binary_masks(ways):
    prediction, truth = random_maps(ways)
    found = count_ways(prediction, truth, ways)
    void = truth == 255
    for row in range(ways + 1):
        p, t = (prediction == row + 1, truth == row + 1) if row < ways else (prediction > 0, truth > 0)
        single = count(p, np.where(void, 255, t).astype(np.uint8))
        assert {name: getattr(found, name)[row] for name in COUNT_NAMES} == columns(single)


def test_one_way_counts_like_a_binary_mask():
    prediction, truth = random_maps(1)
    found, single = count_ways(prediction, truth, 1), count(prediction, truth)
    assert found.fg_inter.shape == (1,)
    assert columns(found) == {name: [value] for name, value in columns(single).items()}


def test_a_way_that_is_not_in_the_image_has_false_positives_only():
    counts = count_ways(np.array([[1, 2]]), np.array([[1, 0]]), 2)
    assert (counts.fg_inter[1], counts.fg_true[1], counts.fg_pred[1], counts.fg_union[1]) == (0, 0, 1, 1)


@pytest.mark.parametrize("ways", [2, 3])
def test_a_map_that_is_ignored_everywhere_counts_nothing(ways):
    counts = count_ways(np.ones((3, 4), np.uint8), np.full((3, 4), 255, np.uint8), ways)
    assert columns(counts) == {name: [0] * (ways + 1) for name in COUNT_NAMES}


def test_tensors_count_like_arrays_and_stay_as_they_are():
    prediction, truth = map(torch.from_numpy, random_maps(3))
    before = prediction.clone(), truth.clone()
    found = count_ways(prediction.long(), truth, 3)
    assert columns(found) == columns(count_ways(prediction.numpy(), truth.numpy(), 3))
    assert torch.equal(prediction, before[0])
    assert torch.equal(truth, before[1])


def test_labels_of_no_way_are_refused():
    labels = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"truth has values \[3, 7\]; only 0 .. 2 and 255"):
        count_ways(labels, np.array([[0, 3, 7], [1, 2, 255]], np.uint8), 2)
    with pytest.raises(ValueError, match=r"prediction has values \[3, 255\]; only 0 .. 2"):
        count_ways(np.array([[0, 3, 255], [1, 2, 2]], np.uint8), np.full((2, 3), 255, np.uint8), 2)


@pytest.mark.parametrize("ways", [1, 2])
@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((3,), (3,)), ((1, 2, 3), (1, 2, 3))])
def test_shapes_that_are_not_one_map_each_are_refused(shapes, ways):
    with pytest.raises(ValueError, match="must have one shape"):
        count_ways(np.zeros(shapes[0], np.uint8), np.zeros(shapes[1], np.uint8), ways)


@pytest.mark.parametrize("ways", [0, 255])
def test_numbers_of_ways_that_no_label_map_has_are_refused(ways):
    with pytest.raises(ValueError, match="1 to 254 ways"):
        count_ways(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), ways)


def test_a_way_costs_about_as_much_as_a_binary_mask():
    prediction, truth = random_maps(5, shape=(500, 500))
    binary = (prediction > 2).astype(np.uint8), (truth == 2).astype(np.uint8)

    def seconds(function, *arguments):
        times = []
        for _ in range(15):
            start = time.perf_counter()
            function(*arguments)
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds(count_ways, prediction, truth, 5) < 5 * 3 * seconds(count, *binary)
