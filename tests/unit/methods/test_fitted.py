"""The fitted head against plain implementations: what is drawn, what is minimised, how it is applied."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.fitted import FittedConfig, LinearHead, PerceptronHead, draw_places, values_at
from fewseg.ops.filters import filter_channels, pixel_filters
from fewseg.types import EncodedShots
from small_segmenters import small_backbone

LEVELS = ("image", "layer1", "layer2")


@pytest.fixture
def make(make_method):
    def build(**changes):
        return make_method(FittedConfig, backbone=small_backbone(*LEVELS), levels=LEVELS, **changes)

    return build


def encoded(method, images, masks, way_of=()):
    return EncodedShots(features=method.extract(images.flatten(0, 1)), masks=masks, way_of=way_of)


def joined(method, features, size=(33, 33)):
    """All that the head sees, (n, C, h, w) on the largest grid."""
    maps = method.maps(features)
    return torch.cat([F.interpolate(m, size, mode="bilinear", align_corners=True) for m in maps], dim=1)


def test_the_filters_are_those_of_a_gaussian_and_of_its_derivatives():
    rows, columns = torch.meshgrid(torch.arange(41.0), torch.arange(41.0), indexing="ij")
    bump = torch.exp(-((rows - 20) ** 2 + (columns - 20) ** 2) / (2 * 3.0**2)).expand(1, 3, -1, -1)
    colours, smooth, gradient, larger, smaller = pixel_filters(bump, (4.0,)).split([3, 3, 1, 1, 1], dim=1)
    assert torch.equal(colours, bump)
    # a Gaussian of variance 9 smoothed by one of variance 16 is one of variance 25
    expected = 9 / 25 * torch.exp(-((rows - 20) ** 2 + (columns - 20) ** 2) / (2 * 25))
    inside = (slice(None), slice(None), slice(12, 29), slice(12, 29))
    torch.testing.assert_close(smooth[inside], expected.expand(1, 3, -1, -1)[inside], atol=2e-3, rtol=0)
    at = (0, 0, 20, 25)  # five pixels beside the middle
    torch.testing.assert_close(gradient[at], expected[20, 25] * 5 / 25, atol=5e-4, rtol=0)
    torch.testing.assert_close(smaller[at], -expected[20, 25] / 25, atol=5e-4, rtol=0)
    torch.testing.assert_close(larger[at], torch.tensor(0.0), atol=5e-4, rtol=0)


def test_a_dark_line_of_any_direction_has_a_high_eigenvalue():
    side = torch.arange(41.0) - 20
    for angle in (0.0, 0.4, math.pi / 4, math.pi / 2):
        away = math.cos(angle) * side[:, None] + math.sin(angle) * side[None, :]
        image = (1 - torch.exp(-(away**2) / 2)).expand(1, 3, -1, -1)
        larger = pixel_filters(image, (2.0,))[0, 7]
        assert larger[20, 20] > 0.04
        assert larger[20, 20] > larger[8:33, 8:33].mean() * 3


def test_there_is_a_channel_for_each_filter():
    assert pixel_filters(torch.rand(2, 3, 9, 11)).shape == (2, filter_channels(), 9, 11)
    assert filter_channels((1.0,)) == 9


def test_places_are_annotated_pixels_half_of_them_drawn_evenly_from_the_classes(shots):
    _, masks = shots(1, 3)
    masks = masks[0]
    masks[1] = 0
    masks[2, :40] = 255
    masks[0, 60, 60] = 2  # one pixel of a second class
    places = draw_places(masks, 2, 6000)
    drawn = masks[places.shots, places.rows, places.columns]
    assert torch.equal(drawn.long(), places.labels)
    assert len(drawn) == 6000
    assert 255 not in drawn
    pixels = torch.tensor([(masks == c).sum() for c in range(3)])
    for c in range(3):
        expected = 0.5 / 3 + 0.5 * pixels[c] / pixels.sum()
        # images have equal shares, so that the classes' shares are only near those of one draw for all
        assert (drawn == c).float().mean() == pytest.approx(float(expected), abs=0.12)


def test_the_shares_undo_how_the_places_were_drawn(shots):
    _, masks = shots(1, 2)
    masks = masks[0]
    masks[1, 20:] = 255
    places = draw_places(masks, 1, 40000)
    known = masks != 255
    for value in (masks == 1, torch.arange(65).expand(2, 65, 65) > 40):
        expected = value[known].float().sum() / known.sum()
        found = (places.shares * value[places.shots, places.rows, places.columns]).sum()
        assert float(found) == pytest.approx(float(expected), abs=0.02)


def test_values_are_those_of_the_resized_maps(make, shots):
    images, masks = shots(1, 2)
    method = make()
    features = method.extract(images[0])
    places = draw_places(masks[0], 1, 200)
    found = values_at(method.maps(features), places, (65, 65))
    expected = joined(method, features, (65, 65))[places.shots, :, places.rows, places.columns]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert found.shape == (200, method.width)


def objective(method, values, places, state, decay):
    """The mean cross-entropy of a head that takes raw values, and its decay on standardised ones."""
    shares = places.shares / places.shares.sum()
    deviation = (values - shares @ values).square()
    scale = (shares @ deviation).sqrt()
    logits = values.double()
    for i, (weight, bias) in enumerate(zip(state.weights, state.biases, strict=True)):
        logits = (F.relu(logits) if i else logits) @ weight[0].double().T + bias[0].double()
    misfit = -(logits.log_softmax(dim=1)[range(len(logits)), places.labels] * shares).sum()
    squares = (state.weights[0][0] * scale).square().sum() + sum(w.square().sum() for w in state.weights[1:])
    return float(misfit + decay / 2 * squares)


def moved(state, layer, by):
    weights = list(state.weights)
    weights[layer] = weights[layer] + by
    return replace(state, weights=tuple(weights))


@pytest.mark.parametrize("decay", [0.01, 0.3])
def test_no_other_linear_head_has_a_lower_decayed_cross_entropy(make, shots, decay):
    images, masks = shots(1, 2)
    method = make(head=LinearHead(), decay=decay, cells=400, steps=300)
    support = encoded(method, images, masks)
    state = method.encode_support(support)
    places = draw_places(masks[0], 1, 400)
    values = values_at(method.maps(support.features), places, (65, 65))
    best = objective(method, values, places, state, decay)
    assert best < math.log(2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        by = 0.05 * torch.randn(state.weights[0].shape, generator=generator)
        assert objective(method, values, places, moved(state, 0, by), decay) > best
        assert objective(method, values, places, moved(state, 0, 0.01 * by), decay) > best - 1e-5


def test_a_hidden_layer_fits_what_a_linear_head_cannot(make, shots):
    """Grey squares on a ground of black and white stripes: neither the colour nor its square is enough."""
    rows = torch.arange(65) // 4 % 2
    images = rows.float().view(1, 1, 1, 65, 1).expand(1, 2, 3, 65, 65).clone()
    masks = torch.zeros(1, 2, 65, 65, dtype=torch.uint8)
    masks[..., 20:45, 20:45] = 1
    images[..., 20:45, 20:45] = 0.5
    backbone = small_backbone("image", "layer1")
    right = {}
    for head in (LinearHead(), PerceptronHead(units=16)):
        method = FittedConfig(backbone=backbone, levels=("image",), head=head, decay=1e-4).build().eval()
        logits = method(images[:, 0], images, masks)
        right[head.kind] = float((logits.argmax(dim=1) == masks[:, 0]).float().mean())
    assert right["perceptron"] > 0.98
    assert right["perceptron"] > right["linear"]


@pytest.mark.parametrize("head", [LinearHead(), PerceptronHead(units=5)])
def test_the_head_is_applied_to_the_maps_joined_on_the_largest_grid(make, shots, head):
    images, masks = shots(2, 2)
    method = make(head=head, cells=300, steps=10)
    state = method.encode_support(encoded(method, images, masks))
    query = method.extract(images[:, 0])
    found = method.segment(query, state)
    values = joined(method, query)
    for b in range(2):
        logits = values[b].flatten(1).T
        for i, (weight, bias) in enumerate(zip(state.weights, state.biases, strict=True)):
            logits = (F.relu(logits) if i else logits) @ weight[b].T + bias[b]
        logits = F.interpolate(logits.T.view(1, -1, 33, 33), (65, 65), mode="bilinear", align_corners=True)
        torch.testing.assert_close(found[b], logits[0], atol=2e-4, rtol=1e-3)


def test_the_matchers_score_is_added_to_a_head_that_is_fitted_to_all_classes_alike(make, shots):
    images, masks = shots(1, 2)
    method = make(head=LinearHead(), decay=0.3, cells=4000, steps=300, matcher=8.0)  # of 2 shots
    support = encoded(method, images, masks)
    state = method.encode_support(support)
    maps = method.maps(support.features)
    unit = [F.normalize(each, dim=1) for each in maps]
    large = [F.interpolate(each, (65, 65), mode="bilinear", align_corners=True) for each in unit]
    cells, labels = torch.cat(large, dim=1).movedim(1, -1), masks[0]
    means = torch.stack([cells[labels == c].mean(dim=0) for c in (0, 1)])
    cosine = F.normalize(means, dim=1)
    torch.testing.assert_close(state.prototypes[0][0], 4 * 20 / len(unit) ** 0.5 * cosine, atol=1.0, rtol=0)
    found = method.segment(support.features, state)
    alone = method.segment(support.features, replace(state, prototypes=()))
    cosines = torch.einsum("nhwc,kc->nkhw", cells, state.prototypes[0][0])
    torch.testing.assert_close(found - alone, cosines, atol=2e-2, rtol=0)
    places = draw_places(masks[0], 1, 4000)
    values = values_at(maps, places, (65, 65))
    shares = torch.where(places.labels == 1, 1 / (places.labels == 1).sum(), 1 / (places.labels == 0).sum())
    alike = replace(places, shares=shares)
    best = objective(method, values, alike, state, 0.3)
    by = 0.05 * torch.randn(state.weights[0].shape, generator=torch.Generator().manual_seed(0))
    for factor in (1, -1, 0.1, -0.1):
        assert objective(method, values, alike, moved(state, 0, factor * by), 0.3) > best - 1e-5
    assert objective(method, values, places, state, 0.3) != best


def test_it_learns_the_things_of_its_supports_and_is_the_same_every_time(make, shots):
    images, masks = shots(1, 3)
    method = make()
    logits = method(images[:, 2], images[:, :2], masks[:, :2])
    found, truth = logits.argmax(dim=1), masks[:, 2]
    known = truth != 255
    iou = ((found == 1) & (truth == 1)).sum() / (((found == 1) | (truth == 1)) & known).sum()
    assert iou > 0.6
    assert torch.equal(method(images[:, 2], images[:, :2], masks[:, :2]), logits)


def test_ignored_pixels_take_no_part(make, shots):
    images, masks = shots(1, 2)
    method = make(cells=300, steps=10)
    hidden = images.clone()
    hidden[0, 0, :, :, 60:] = 0.0
    masks[0, 0, :, 40:] = 255
    one = FittedConfig(backbone=small_backbone(*LEVELS), levels=("image",), cells=300, steps=10)
    method = one.build().eval()
    states = [method.encode_support(encoded(method, each, masks)) for each in (images, hidden)]
    for a, b in zip(states[0].weights, states[1].weights, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_images_without_the_thing_are_learned_as_background(make, shots):
    images, masks = shots(1, 3)
    method = make()
    masks[0, 1] = 0
    images[0, 1] = (images[0, 1] + 0.5).clamp(0, 1)  # as light as the thing
    with_it = method(images[:, 1], images[:, :2], masks[:, :2]).argmax(dim=1)
    without = method(images[:, 1], images[:, :1], masks[:, :1]).argmax(dim=1)
    assert with_it.sum() < without.sum()


@pytest.mark.parametrize("matcher", [0.0, 4.0])
def test_an_image_that_is_given_for_each_of_its_classes_counts_once(make, shots, matcher):
    images, masks = shots(1, 2)
    method = make(cells=300, steps=5, matcher=matcher)
    masks[0, 0, 40:60][masks[0, 0, 40:60] == 1] = 2
    masks[0, 1][masks[0, 1] == 1] = 2
    once = method.encode_support(encoded(method, images, masks, (1, 2)))
    twice = [0, 0, 1]
    again = method.encode_support(encoded(method, images[:, twice], masks[:, twice], (1, 2, 2)))
    for name in ("weights", "biases", "prototypes"):
        assert all(torch.equal(a, b) for a, b in zip(getattr(once, name), getattr(again, name), strict=True))
    darker = torch.cat([images[:, :1], 0.9 * images[:, :1], images[:, 1:]], dim=1)
    other = method.encode_support(encoded(method, darker, masks[:, twice], (1, 2, 2)))
    assert not torch.equal(other.weights[0], once.weights[0])


def test_a_class_that_is_shown_nowhere_wins_nowhere_and_is_warned_of(make, shots):
    images, masks = shots(1, 2)
    masks[0, 1] = 0
    with pytest.warns(RuntimeWarning, match="no pixel of the way 2"):
        logits = make()(images[:, 0], images, masks, way_of=(1, 2))
    assert 2 not in logits.argmax(dim=1)


def test_features_that_are_not_finite_are_refused(make, shots):
    images, masks = shots(1, 1)
    images[0, 0, 0, 3, 3] = math.nan
    with pytest.raises(ValueError, match="features that are not finite"):
        make().encode_support(encoded(make(), images, masks))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"decay": 0.0}, "decay must be above 0, got 0.0"),
        ({"cells": 0}, "cells must be 1 or more, got 0"),
        ({"steps": 0}, "steps must be 1 or more, got 0"),
        ({"matcher": -1.0}, "matcher must be 0 or more, got -1.0"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        FittedConfig(**wrong)


def test_levels_that_the_backbone_does_not_give_are_refused():
    with pytest.raises(ValueError, match=r"the method reads levels \('layer4',\)"):
        FittedConfig(levels=("layer4",))


def test_there_is_nothing_to_train(make):
    with pytest.raises(ValueError, match="has nothing to train"):
        make().training_losses(None)
