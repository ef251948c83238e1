"""SRPNet: the pyramid feature and the losses of query and support, written out."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.fusion import IterativeInference
from fewseg.methods.prototypical import EMBEDDING, Cosine, Fidelity
from fewseg.methods.srpnet import SRPNetConfig
from fewseg.types import EncodedEpisodes, EncodedShots, Features
from small_segmenters import built, episodes_of, small_backbone

SIDE = 33
LEVELS = ("stem", "layer2", "layer3")
BACKBONE = small_backbone(*LEVELS, trainable=True)


def make_model(**changes):
    return built(SRPNetConfig(**({"backbone": BACKBONE, "levels": LEVELS, "channels": 6} | changes)))


def make(ways=1, way_of=(1,), episodes=2):
    """Training episodes of coarse random labels, 255 included; each shot shows its way."""
    generator = torch.Generator().manual_seed(ways)
    values = torch.tensor([*range(1 + ways), 255], dtype=torch.uint8)
    shots = len(way_of)
    coarse = torch.randint(0, len(values), (episodes, shots + 1, 4, 4), generator=generator)
    for k, j in enumerate(way_of):
        coarse[:, k, 1, 1], coarse[:, k, 2, 2] = j, 0
    masks = values[coarse].repeat_interleave(9, dim=2).repeat_interleave(9, dim=3)[..., :SIDE, :SIDE]
    images = torch.rand(episodes, shots + 1, 3, SIDE, SIDE, generator=generator)
    return replace(episodes_of(images, masks.contiguous()), way_of=way_of)


def plain_pyramid(model, images, level="stem"):
    """Sec. 3.2: the levels on one grid, the stem's being the largest, side by side, and a 1x1 convolution."""
    maps = model.backbone(images).maps
    size = maps[level].shape[-2:]
    joined = torch.cat(
        [F.interpolate(maps[k], size=size, mode="bilinear", align_corners=True) for k in LEVELS], dim=1
    )
    weight, bias = model.pyramid.weight[:, :, 0, 0], model.pyramid.bias
    return torch.einsum("nchw,dc->ndhw", joined, weight) + bias[:, None, None]


def plain_losses(model, episodes, alpha, power):
    """Eq. 1-3, 7, 8 and 10: squared cosines for the fidelity (power 2), features at image size."""
    shots, ways = episodes.support_masks.shape[1], max(episodes.way_of)
    supports = plain_pyramid(model, episodes.support_images.flatten(0, 1)).unflatten(0, (-1, shots))
    queries = plain_pyramid(model, episodes.query_images)
    query_logits, support_logits = [], []
    for b in range(len(queries)):
        full = F.interpolate(supports[b], size=(SIDE, SIDE), mode="bilinear", align_corners=True)
        prototypes = []
        for j in range(ways + 1):
            of_way = [k for k in range(shots) if j == 0 or episodes.way_of[k] == j]
            means = [full[k][:, episodes.support_masks[b, k] == j].mean(dim=1) for k in of_way]
            prototypes.append(sum(means) / len(means))
        for maps, found in ((queries[b : b + 1], query_logits), (supports[b], support_logits)):
            scores = [
                alpha * F.cosine_similarity(maps, p[None, :, None, None], dim=1) ** power for p in prototypes
            ]
            found.append(
                F.interpolate(
                    torch.stack(scores, dim=1), size=(SIDE, SIDE), mode="bilinear", align_corners=True
                )
            )
    query = F.cross_entropy(torch.cat(query_logits), episodes.query_masks.long(), ignore_index=255)
    masks = episodes.support_masks.flatten(0, 1).long()
    return query, F.cross_entropy(torch.cat(support_logits), masks, ignore_index=255)


@pytest.mark.parametrize("grid", ["largest", "stem", "layer3", "layer2"])
def test_the_embedding_is_the_levels_on_the_largest_or_a_named_grid_through_one_convolution(grid):
    model, images = make_model(grid=grid), make().query_images
    level = "stem" if grid == "largest" else grid
    found = model.extract(images)
    assert set(found.maps) == {EMBEDDING}
    assert found.image_size == (SIDE, SIDE)
    assert found[EMBEDDING].shape == (2, 6, *((9, 9) if level == "stem" else (5, 5)))
    torch.testing.assert_close(found[EMBEDDING], plain_pyramid(model, images, level), atol=1e-5, rtol=1e-4)


def test_a_map_of_a_named_grid_between_others_enlarges_some_and_shrinks_some():
    backbone = replace(BACKBONE, name="vgg16", levels=("layer2", "stem", "layer1"), shape=None)
    model = make_model(backbone=backbone, levels=backbone.levels, grid="layer1")
    maps = model.backbone(torch.rand(1, 3, 17, 25))
    size = maps["layer1"].shape[-2:]
    assert maps["stem"].shape[-1] > size[1] > maps["layer2"].shape[-1]
    joined = torch.cat(
        [F.interpolate(maps[k], size=size, mode="bilinear", align_corners=True) for k in backbone.levels], 1
    )
    torch.testing.assert_close(model.embed(maps)[EMBEDDING], model.pyramid(joined), atol=1e-5, rtol=1e-4)


def test_what_is_embedded_stays_and_comes_back_in_float32():
    model = make_model()
    once = model.extract(make().query_images)
    assert torch.equal(model.embed(once)[EMBEDDING], once[EMBEDDING])
    stored = Features(maps={EMBEDDING: once[EMBEDDING].bfloat16()}, image_size=once.image_size)
    assert model.embed(stored)[EMBEDDING].dtype == torch.float32


CASES = [(1, (1,)), (1, (1, 1)), (2, (1, 2)), (2, (2, 1, 1))]


@pytest.mark.parametrize(("ways", "way_of"), CASES)
@pytest.mark.parametrize(("metric", "power"), [(Fidelity(), 2), (Cosine(), 1)], ids=["fidelity", "cosine"])
def test_the_losses_are_those_of_eq_7_10_and_11(ways, way_of, metric, power):
    model = make_model(metric=metric, alpha=7.0, support_weight=0.3, query_weight=1.7)
    episodes = make(ways, way_of)
    found = model.losses(episodes)
    query, support = plain_losses(model, episodes, 7.0, power)
    assert set(found.terms) == {"query", "support"}
    torch.testing.assert_close(found.terms["query"], query, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.terms["support"], support, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.total, 0.3 * support + 1.7 * query, atol=1e-4, rtol=1e-4)
    gradients = [
        torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        for loss in (found.total, 0.3 * support + 1.7 * query)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4 * float(theirs.abs().max()) + 1e-6, rtol=1e-2)


def test_without_srp_there_is_no_support_term():
    model, episodes = make_model(support_weight=0.0, query_weight=0.5), make()
    found = model.losses(episodes)
    assert set(found.terms) == {"query"}
    query, _ = plain_losses(model, episodes, 20.0, 2)
    torch.testing.assert_close(found.total, 0.5 * query, atol=1e-4, rtol=1e-4)


def test_the_iteration_takes_no_part_in_training():
    episodes = make()
    plain, iterated = make_model(), make_model(fusion=IterativeInference(steps=5, rate=1.0))
    assert torch.equal(plain.losses(episodes).total, iterated.losses(episodes).total)


@pytest.mark.parametrize("way_of", [(1, 1), (2, 1, 2)])
def test_losses_are_the_same_before_and_after_embedding(way_of):
    model, episodes = make_model(), make(max(way_of), way_of)
    shots = len(way_of)
    raw = model.backbone(torch.cat([episodes.support_images.flatten(0, 1), episodes.query_images]))
    count = 2 * shots
    unembedded = EncodedEpisodes(
        support=EncodedShots(features=raw.select(slice(count)), masks=episodes.support_masks, way_of=way_of),
        query=raw.select(slice(count, None)),
        query_masks=episodes.query_masks,
    )
    after = model.embedded(unembedded)
    assert set(after.query.maps) == set(after.support.features.maps) == {EMBEDDING}
    assert after.support.way_of == way_of
    assert model.embedded(after) is after
    expected = model.losses(episodes)
    for batch in (unembedded, after):
        found = model.training_losses(batch)
        for name, value in expected.terms.items():
            torch.testing.assert_close(found.terms[name], value)
        assert found.weights == expected.weights


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": "layer4"}, "grid must be 'largest' or one of .* got 'layer4'"),
        ({"levels": ("layer1", "layer3")}, r"reads levels \('layer1', 'layer3'\)"),
        ({"grid": "layer2", "levels": ("layer3",)}, "grid must be 'largest' or one of .*, got 'layer2'"),
        ({"support_weight": -0.1}, r"support_weight must be 0 or more, got -0\.1"),
        ({"query_weight": -2.0}, r"query_weight must be 0 or more, got -2\.0"),
        ({"alpha": 0.0}, "alpha must be above 0"),
    ],
)
def test_configs_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SRPNetConfig(**({"backbone": BACKBONE, "levels": LEVELS} | changes))


def test_the_papers_settings_are_the_defaults():
    config = SRPNetConfig()
    assert (config.backbone.name, config.backbone.trainable, config.backbone.bn) == ("resnet50", True, "eval")
    assert config.levels == ("stem", "layer1", "layer2", "layer3", "layer4")
    assert config.grid == "largest"
    assert (config.channels, config.metric, config.alpha) == (512, Fidelity(), 20.0)
    assert (config.support_weight, config.query_weight, config.fusion.steps) == (1.0, 1.0, 5)
