"""What t-SNE is shown: prototypes and cells."""

import csv

import numpy as np
import pytest
import torch

from fewseg.methods.sdaanet import gated
from fewseg.ops.masks import foreground_cells
from fewseg.reports.figures import prototypes_figure
from fewseg.reports.figures.embedding import embed
from fewseg.reports.figures.metric_figure import CELLS, cells_of, drawn_cells
from fewseg.reports.figures.prototypes_figure import prototypes_of, support_prototypes
from fewseg.reports.figures.silhouette import distances, silhouette
from fewseg.reports.figures.subjects import Shot, distinct_shots, matcher_on


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


def test_the_prototype_of_sdpm_is_the_gated_one(study):
    made = study("sdaanet")
    method = made.open(made.subjects[0]).method
    features, masks = inputs(method)
    with torch.no_grad():
        found = support_prototypes(method, features, masks)
        plain = plain_mean(method.mid_support.of(features), masks)
        gate = gated(method.gate(plain))
    assert torch.allclose(found, gate * plain, atol=1e-3)
    assert not torch.allclose(found, plain, atol=1e-3)


@pytest.mark.parametrize("name", ["sdaanet_baseline", "sdaanet_saam"])
def test_without_sdpm_the_prototype_is_the_pooled_feature(study, name):
    made = study(name)
    method = made.open(made.subjects[0]).method
    features, masks = inputs(method)
    with torch.no_grad():
        found = support_prototypes(method, features, masks)
        assert torch.allclose(found, plain_mean(method.mid_support.of(features), masks), atol=1e-3)


def test_every_support_has_one_prototype_in_order(study):
    made = study("sdaanet_baseline")
    opened = made.open(made.subjects[0])
    shots = list(distinct_shots(opened.episodes(1, 20)))
    found = prototypes_of(opened, shots, progress=False)
    assert found.shape == (len(shots), 8)
    alone = prototypes_of(opened, shots[9:10], progress=False)
    assert torch.allclose(found[9], alone[0], atol=1e-4)


def test_cells_are_drawn_inside_the_mask_and_alike_whatever_the_company():
    maps = torch.arange(2 * 25.0).view(2, 1, 5, 5)
    masks = torch.zeros(2, 33, 33, dtype=torch.uint8)
    masks[:, :17, :17] = 1
    shots = [Shot(1, "a"), Shot(2, "b")]
    found = drawn_cells(maps, masks, shots, seed=0)
    inside = {0.0, 1, 2, 5, 6, 7, 10, 11, 12}
    assert len(found[0]) == CELLS
    assert set(found[0].flatten().tolist()) <= inside
    assert torch.equal(drawn_cells(maps[1:], masks[1:], shots[1:], seed=0)[0], found[1])
    assert not torch.equal(drawn_cells(maps, masks, shots, seed=1)[0], found[0])
    masks[0, :, :] = 0
    masks[0, 0, 0] = 1
    assert drawn_cells(maps, masks, shots, seed=0)[0].tolist() == [[0.0]]


def test_cells_carry_their_class_and_their_support(study):
    made = study("scl")
    matcher = matcher_on(made.open(made.subjects[0]))
    shots = list(distinct_shots(matcher.episodes(1, 20)))
    found = cells_of(matcher, shots, seed=0, progress=False)
    assert len(found.points) == len(found.labels) == len(found.groups) >= len(shots)
    assert found.points.shape[1] == 16  # the widths of layer2 and layer3 together
    assert set(found.groups.tolist()) == set(range(len(shots)))
    assert all(shots[g].class_id == c for g, c in zip(found.groups, found.labels, strict=True))


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
    with pytest.raises(ValueError, match="3 points at least, got 2"):
        embed(points[:2], labels[:2], "cosine")


def test_prototypes_that_vanished_are_told(study):
    """Distilled too hard, a support feature may die; then t-SNE shows points without a direction."""
    made = study("sdaanet_baseline")
    opened = made.open(made.subjects[0])
    with torch.no_grad():
        for parameter in opened.method.mid_support.parameters():
            parameter.zero_()
    prototypes_figure.make(made)
    assert any("prototypes are zero; they have no direction" in remark for remark in made.remarks)
    with (made.out / "plots" / "prototype-silhouettes.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["zero_prototypes"] == row["points"]
    assert float(row["median_length"]) == 0
