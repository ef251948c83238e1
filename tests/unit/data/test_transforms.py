from dataclasses import replace

import pytest
import torch

from fewseg.data.draws import Draws
from fewseg.data.transforms import EvalView, StretchedView, TrainView, among, binary_mask, way_labels
from fewseg.ops.geometry import IMAGENET_MEAN

STILL = TrainView(40, scale=(1.0, 1.0), rotate=0.0, flip=0.0, blur=0.0)
MEAN = torch.tensor(IMAGENET_MEAN)


def scene(h=48, w=64, top=10, left=12, side=20):
    """A grey image with a white square of class 3; the labels have a void column at the right."""
    image = torch.full((3, h, w), 51, dtype=torch.uint8)
    labels = torch.zeros(h, w, dtype=torch.uint8)
    image[:, top : top + side, left : left + side] = 255
    labels[top : top + side, left : left + side] = 3
    labels[:, -1] = 255
    return image, labels


def test_the_evaluation_view_holds_the_whole_image_top_left():
    image, labels = scene()
    view, mask = EvalView(32)(image, labels)
    assert (view.shape, view.dtype, mask.shape, mask.dtype) == (
        (3, 32, 32),
        torch.float32,
        (32, 32),
        torch.uint8,
    )
    torch.testing.assert_close(view[:, 24:], MEAN[:, None, None].expand(3, 8, 32))
    assert (mask[24:] == 255).all()
    assert (mask == 3).sum() == 100
    assert view[0, 2, 2] == pytest.approx(0.2)
    assert view[0, 9, 10] == pytest.approx(1.0)


def test_a_still_view_is_the_image_itself():
    image, labels = scene(40, 40)
    view, mask = STILL(image, labels, Draws(0))
    assert torch.equal(view, image / 255)
    assert torch.equal(STILL(image / 255, labels, Draws(0))[0], view)  # floats are in [0, 1] already
    assert torch.equal(mask, labels)
    assert (type(view), type(mask)) == (torch.Tensor, torch.Tensor)
    assert (view.dtype, mask.dtype) == (torch.float32, torch.uint8)


def test_a_smaller_image_is_padded_as_in_evaluation():
    image, labels = scene(30, 36)
    view, mask = STILL(image, labels, Draws(0))
    assert torch.equal(view[:, :30, :36], image / 255)
    torch.testing.assert_close(view[:, 30:], MEAN[:, None, None].expand(3, 10, 40))
    assert (mask[:, 36:] == 255).all()
    assert torch.equal(mask[:30, :36], labels)


@pytest.mark.parametrize("resize", ["none", "letterbox"])
def test_the_draws_alone_decide_and_the_global_generator_is_neither_used_nor_moved(resize):
    image, labels = scene()
    view = TrainView(40, blur=1.0, resize=resize)
    torch.manual_seed(0)
    a = view(image, labels, Draws("v"))
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert all(torch.equal(*both) for both in zip(a, view(image, labels, Draws("v")), strict=True))
    assert not torch.equal(a[0], view(image, labels, Draws("w"))[0])
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("resize", ["none", "letterbox"])
@pytest.mark.parametrize("seed", range(6))
def test_image_and_labels_move_together(resize, seed):
    view = TrainView(60, scale=(0.7, 1.3), rotate=30.0, blur=0.0, resize=resize)
    picture, mask = view(*scene(90, 110, top=20, left=30, side=45), Draws(seed))
    sure = ((picture[0] - 0.6).abs() > 0.2) & (mask != 255)
    assert int(sure.sum()) > 1500
    assert int((mask == 3).sum()) > 100
    wrong = (picture[0] > 0.6) != (mask == 3)
    assert int((wrong & sure).sum()) <= 0.004 * int(sure.sum())


def test_the_scale_factor_spans_its_range():
    image, labels = scene(100, 100, top=25, left=25, side=50)
    view = replace(STILL, size=160, scale=(0.5, 1.5))
    sides = [int((view(image, labels, Draws(k))[1] == 3).sum()) ** 0.5 for k in range(60)]
    assert 24.5 <= min(sides) < 30
    assert 70 < max(sides) <= 75.5


def test_a_letterboxed_view_scales_about_the_size_that_fits():
    image, labels = scene(100, 200, top=20, left=40, side=50)
    _, mask = replace(STILL, size=50, resize="letterbox")(image, labels, Draws(0))
    assert int((mask == 3).sum()) in range(144, 170)  # 12.5 squared
    assert (mask[25:] == 255).all()


def test_rotation_keeps_to_its_range_and_uncovers_mean_colour_and_ignore():
    image = torch.zeros(3, 41, 41, dtype=torch.uint8)
    labels = torch.zeros(41, 41, dtype=torch.uint8)
    view = replace(STILL, size=41, rotate=20.0)
    shares, columns = [], []
    for k in range(30):
        _, turned = view(*scene(41, 41, top=0, left=18, side=5), Draws(k))
        columns.append(float((turned == 3).nonzero()[:, 1].float().mean()))
        picture, mask = view(image, labels, Draws(k))
        outside = mask == 255
        shares.append(float(outside.float().mean()))
        if shares[-1] > 0.02:
            torch.testing.assert_close(picture[:, 0, 0], MEAN)
    assert 0.05 < max(shares) < 0.16
    assert min(shares) < 0.02
    assert min(columns) < 17
    assert max(columns) > 23


@pytest.mark.parametrize(("flip", "low", "high"), [(0.0, 0, 0), (1.0, 80, 80), (0.25, 8, 32)])
def test_the_flip_comes_with_its_probability(flip, low, high):
    image, labels = scene(40, 40, left=0)
    labels[:, -1] = 0
    flipped = 0
    for k in range(80):
        picture, mask = replace(STILL, flip=flip)(image, labels, Draws(k))
        turned = bool(mask[15, 39] == 3)
        flipped += turned
        assert torch.equal(picture, (image.flip(-1) if turned else image) / 255)
        assert torch.equal(mask, labels.flip(-1) if turned else labels)
    assert low <= flipped <= high


@pytest.mark.parametrize(("blur", "low", "high"), [(0.0, 0, 0), (1.0, 40, 40), (0.5, 10, 30)])
def test_the_blur_comes_with_its_probability_and_spares_the_labels(blur, low, high):
    image, labels = scene(40, 40)
    blurred = 0
    for k in range(40):
        picture, mask = replace(STILL, blur=blur)(image, labels, Draws(k))
        assert torch.equal(mask, labels)
        changed = not torch.equal(picture, image / 255)
        blurred += changed
        if changed:
            assert 0.5 < picture[0, 20, 12] < 0.9  # just inside the square's edge
            assert picture[0, 20, 20] == pytest.approx(1.0)
    assert low <= blurred <= high


def test_crops_reach_every_corner_and_stay_inside():
    image = torch.zeros(3, 42, 43, dtype=torch.uint8)
    labels = torch.arange(42 * 43).reshape(42, 43)
    corners = set()
    for k in range(150):
        _, mask = STILL(image, labels, Draws(k))
        corners.add(divmod(int(mask[0, 0]), 43))
        assert int(mask[-1, -1]) - int(mask[0, 0]) == 39 * 43 + 39
    assert corners == {(y, x) for y in range(3) for x in range(4)}


@pytest.mark.parametrize("place", [(60, 200, 5, 150, 30), (200, 60, 150, 5, 30)], ids=["wide", "tall"])
def test_a_crop_keeps_most_of_a_chosen_class_where_it_can(place):
    image, labels = scene(*place)
    view = replace(STILL, size=50)
    blind = [int((view(image, labels, Draws(k))[1] == 3).sum()) for k in range(40)]
    kept = [int((view(image, labels, Draws(k), keep=3)[1] == 3).sum()) for k in range(40)]
    assert sum(n < 0.85 * 900 for n in blind) > 20
    assert sum(n >= 0.85 * 900 for n in kept) > 3 * sum(n >= 0.85 * 900 for n in blind)
    assert all(k >= b for k, b in zip(kept, blind, strict=True))
    absent, plain = (view(image, labels, Draws(4), keep=keep)[1] for keep in (9, None))
    assert torch.equal(absent, plain)


def test_a_label_map_numbers_the_ways_in_their_order():
    labels = torch.tensor([[0, 3, 7, 255], [2, 9, 3, 7]], dtype=torch.uint8)
    found = way_labels(labels, [7, 3])
    assert found.dtype == torch.uint8
    assert found.tolist() == [[0, 2, 1, 255], [0, 0, 2, 1]]
    # class ids that are way numbers too are not taken for them
    assert way_labels(labels, (3, 2, 7, 254)).tolist() == [[0, 1, 3, 255], [2, 0, 1, 3]]
    assert labels.tolist() == [[0, 3, 7, 255], [2, 9, 3, 7]]


def test_the_label_map_of_one_way_is_the_binary_mask():
    labels = torch.randint(0, 256, (3, 9, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert torch.equal(way_labels(labels, [9]), binary_mask(labels, 9))
    for classes in ([], [3, 3], [0, 1], [3, 255]):
        with pytest.raises(ValueError, match=r"one or more different ids in 1 \.\. 254"):
            way_labels(labels, classes)


def test_a_rotation_comes_with_its_probability():
    image, labels = torch.zeros(3, 41, 41, dtype=torch.uint8), torch.zeros(41, 41, dtype=torch.uint8)
    view = replace(STILL, size=41, rotate=20.0, rotate_probability=0.5)
    turned = [bool((view(image, labels, Draws(k))[1] == 255).any()) for k in range(200)]
    assert 70 <= sum(turned) <= 130


def test_a_stretched_view_fills_the_square():
    image, labels = scene(100, 200, top=20, left=40, side=50)
    picture, mask = replace(STILL, size=50, resize="stretch")(image, labels, Draws(0))
    expected = StretchedView(50)(image, labels)
    assert torch.equal(picture, expected[0])
    assert torch.equal(mask, expected[1])


def test_views_of_before_the_probability_keep_the_key_of_their_store():
    assert repr(TrainView(40)) == (
        "TrainView(size=40, scale=(0.9, 1.1), rotate=10.0, flip=0.5, blur=0.5, resize='none')"
    )
    assert "rotate_probability=0.5" in repr(TrainView(40, rotate_probability=0.5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"rotate_probability": 1.5}, "rotate_probability must be in"), ({"resize": "fit"}, "resize must be")],
)
def test_a_view_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainView(40, **changes)


@pytest.mark.parametrize("classes", [[1, 3, 255], [3, 40_000], []])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_where_one_of_the_classes_is(dtype, classes):
    labels = torch.tensor([[0, 1, 2], [3, 255, 3]], dtype=dtype)
    if dtype == torch.int32:
        labels[0, 0] = 40_000
    assert among(labels, classes).tolist() == [[id in classes for id in row] for row in labels.tolist()]
