"""How well classes separate, against scikit-learn and plain loops, and the points that t-SNE shows."""

import csv

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score

from fewseg.methods.sdaanet import gated
from fewseg.ops.masks import foreground_cells
from fewseg.reports.figures.model import Support
from fewseg.reports.figures.separation import (
    CELLS,
    Prototypes,
    cells_of,
    distances,
    embed,
    sampled_cells,
    separation,
    silhouette,
    silhouette_gain,
    silhouettes_without,
)


def points(n=24, d=5, classes=3, apart=2.0, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes + 7
    return generator.normal(size=(n, d)) + apart * np.eye(classes, d)[labels - 7], labels


@pytest.mark.parametrize("metric", ["cosine", "fidelity", "euclidean"])
def test_distances_are_those_of_plain_loops_and_a_zero_vector_is_at_right_angles(metric):
    values, _ = points()
    assert distances(np.array([[0.0, 0.0], [1.0, 0.0]]), metric)[0, 1] == 1
    found = distances(values, metric)
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
            plain = {"cosine": 1 - cosine, "fidelity": 1 - cosine**2, "euclidean": np.linalg.norm(a - b)}
            assert found[i, j] == pytest.approx(plain[metric], abs=1e-7)


@pytest.mark.parametrize("metric", ["cosine", "fidelity", "euclidean"])
@pytest.mark.parametrize("first", [7, 99])
def test_the_silhouette_is_that_of_scikit_learn_where_a_class_of_one_point_counts_nothing(metric, first):
    values, labels = points()
    labels[0] = first
    apart = distances(values, metric)
    assert silhouette(apart, labels) == pytest.approx(silhouette_score(apart, labels, metric="precomputed"))


def test_the_silhouette_without_a_group_is_that_of_the_others():
    values, labels = points(n=18)
    labels[:2] = 99
    groups = np.array([0, 0, 1, 1, 1, *range(2, 15)])
    apart = distances(values, "cosine")
    for group, found in enumerate(silhouettes_without(apart, labels, groups)):
        kept = groups != group
        assert found == pytest.approx(silhouette(apart[np.ix_(kept, kept)], labels[kept]))


def test_one_class_alone_has_no_silhouette():
    values, labels = points(n=6)
    found = silhouettes_without(distances(values, "cosine"), np.array([1, 1, 1, 1, 1, 2]), np.arange(6))
    assert np.isnan(found).tolist() == [*[False] * 5, True]
    with pytest.raises(ValueError, match="points of at least two classes"):
        silhouette(distances(values, "cosine"), np.ones_like(labels))


def test_within_and_between_are_means_over_pairs():
    apart = np.array([[0.0, 1, 4], [1, 0, 6], [4, 6, 0]])
    found = separation(apart, np.array([1, 1, 2]))
    assert found.within == 1
    assert found.between == 5


def test_the_interval_holds_the_value_and_pairs_what_is_drawn_alike():
    values, labels = points(n=60, apart=4)
    tight = distances(values, "euclidean")
    loose = distances(values + 4 * np.random.default_rng(1).normal(size=values.shape), "euclidean")
    a, b = separation(loose, labels), separation(tight, labels)
    assert a.silhouette.low < a.silhouette.value < a.silhouette.high
    gain = silhouette_gain(a, b)
    assert gain.value == pytest.approx(b.silhouette.value - a.silhouette.value)
    assert gain.low > 0
    unpaired = (b.silhouette.high - b.silhouette.low) + (a.silhouette.high - a.silhouette.low)
    assert gain.high - gain.low < unpaired
    assert silhouette_gain(a, a) == silhouette_gain(b, b)
    assert silhouette_gain(a, a).low == silhouette_gain(a, a).high == 0


def images(seed, classes=3, per_class=12, cells=3, apart=0.4):
    """Cells of images: those of one image are near one another, whatever their class."""
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(classes * per_class), cells)
    labels = groups % classes
    centres = generator.normal(size=(classes * per_class, 8))[groups]
    cell = 0.3 * generator.normal(size=(len(groups), 8))
    return centres + cell + apart * np.eye(classes, 8)[labels], labels, groups


@pytest.mark.parametrize("apart", [0.4, 2.0])
def test_the_interval_surrounds_the_estimate_and_holds_the_truth_as_often_as_it_says(apart):
    """Of classes that hardly part it is wide, never narrow."""
    found = []
    for seed in range(150):
        values, labels, groups = images(seed, apart=apart)
        found.append(separation(distances(values, "euclidean"), labels, groups).silhouette)
    truth = np.mean([e.value for e in found])
    for estimate in found:
        assert (estimate.low + estimate.high) / 2 == pytest.approx(estimate.value)
    held = np.mean([e.low <= truth <= e.high for e in found])
    assert held >= 0.92
    spread = np.std([e.value for e in found])
    reach = np.mean([(e.high - e.low) / 2 for e in found])
    assert reach / spread == pytest.approx(2.0 if apart > 1 else 2.9, rel=0.15)


def inputs(method, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(3, 3, 33, 33, generator=generator)
    masks = torch.zeros(3, 33, 33, dtype=torch.uint8)
    masks[:, 8:24, 8:24] = 1
    with torch.no_grad():
        return method.extract(images), masks


def plain_mean(maps, masks):
    cells = foreground_cells(masks, maps.shape[-2:])
    return (maps * cells).sum(dim=(2, 3)) / cells.sum(dim=(2, 3))


def test_the_prototype_of_sdpm_is_the_gated_one(model_of):
    method = model_of("sdaanet").method
    features, masks = inputs(method)
    with torch.no_grad():
        found = method.support_prototypes(features, masks)
        plain = plain_mean(method.mid_support.of(features), masks)
        gate = gated(method.gate(plain))
    assert torch.allclose(found, gate * plain, atol=1e-3)
    assert not torch.allclose(found, plain, atol=1e-3)


@pytest.mark.parametrize("name", ["sdaanet_baseline", "sdaanet_saam"])
def test_without_sdpm_the_prototype_is_the_pooled_feature(model_of, name):
    method = model_of(name).method
    features, masks = inputs(method)
    with torch.no_grad():
        found = method.support_prototypes(features, masks)
        assert torch.allclose(found, plain_mean(method.mid_support.of(features), masks), atol=1e-3)


def test_cells_are_drawn_inside_the_mask_and_alike_whatever_the_company():
    maps = torch.arange(2 * 25.0).view(2, 1, 5, 5)
    masks = torch.zeros(2, 33, 33, dtype=torch.uint8)
    masks[:, :17, :17] = 1
    shots = [Support(1, "a"), Support(2, "b")]
    found = sampled_cells(maps, masks, shots, seed=0)
    inside = {0.0, 1, 2, 5, 6, 7, 10, 11, 12}
    assert len(found[0]) == CELLS
    assert set(found[0].flatten().tolist()) <= inside
    assert torch.equal(sampled_cells(maps[1:], masks[1:], shots[1:], seed=0)[0], found[1])
    assert not torch.equal(sampled_cells(maps, masks, shots, seed=1)[0], found[0])
    masks[0, :, :] = 0
    masks[0, 0, 0] = 1
    assert sampled_cells(maps, masks, shots, seed=0)[0].tolist() == [[0.0]]


def test_cells_carry_their_class_and_their_support(model_of):
    matcher = model_of("scl", episodes=20).matcher()
    shots = list(matcher.supports)
    points, labels, groups = cells_of(matcher)
    assert len(points) == len(labels) == len(groups) >= len(shots)
    assert points.shape[1] == 16  # the widths of layer2 and layer3 together
    assert set(groups.tolist()) == set(range(len(shots)))
    assert all(shots[g].class_id == c for g, c in zip(groups, labels, strict=True))


def test_an_embedding_is_scored_before_and_after_and_is_the_same_every_time():
    generator = np.random.default_rng(0)
    labels = np.repeat([1, 2], 15)
    points = generator.normal(size=(30, 6)) + 4 * np.eye(2, 6)[labels - 1]
    found = embed(points, labels, "cosine", seed=3)
    assert found.flat.shape == (30, 2)
    assert found.space.silhouette.value == pytest.approx(silhouette(distances(points, "cosine"), labels))
    assert found.plane.silhouette.value == pytest.approx(
        silhouette(distances(found.flat, "euclidean"), labels)
    )
    assert np.array_equal(found.flat, embed(points, labels, "cosine", seed=3).flat)
    with pytest.raises(ValueError, match="at least 3 points, got 2"):
        embed(points[:2], labels[:2], "cosine")


def test_prototypes_that_vanished_are_reported(study):
    """Distilled too hard, a support feature may die; then t-SNE shows points without a direction."""
    made = study("sdaanet_baseline")
    with torch.no_grad():
        for parameter in made.models[0].method.mid_support.parameters():
            parameter.zero_()
    Prototypes(made).make()
    assert any("prototypes are zero; they have no direction" in remark for remark in made.remarks)
    with (made.options.out / "plots" / "prototype-silhouettes.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["zero_prototypes"] == row["points"]
    assert float(row["median_length"]) == 0
