"""BAM's equations by hand, its two stages; the contract suite takes it up by its registration."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fewseg.engine.checkpoint import Checkpoint, save_checkpoint
from fewseg.methods.bam import (
    BAMConfig,
    BaseLearner,
    Ensemble,
    SceneWeights,
    base_foreground,
    gram,
    scene_difference,
)
from fewseg.methods.fusion import AllVectors
from small_segmenters import episodes_of

PARTS = {"base_level": "layer3", "classes": 3}


@pytest.fixture
def batch(shots):
    """Two episodes of the classes 2 and 3; the queries show class 1 too."""
    images, masks = shots(2, 3)
    made = episodes_of(images, masks)
    labels = made.labels * torch.tensor([2, 3], dtype=torch.uint8)[:, None, None]
    labels[made.labels == 255] = 255
    labels[:, 60:] = 1
    return replace(made, labels=labels)


def test_the_base_learner_reads_a_pyramid_of_pooled_maps():
    torch.manual_seed(0)
    learner = BaseLearner(5, 4, 3, dropout=0.0)
    maps = torch.rand(2, 5, 9, 7)
    parts = [maps]
    for cells, reduce in zip((1, 2, 3, 6), learner.reduce, strict=True):
        pooled = F.relu(reduce(F.adaptive_avg_pool2d(maps, cells)))
        parts.append(F.interpolate(pooled, size=(9, 7), mode="bilinear", align_corners=True))
    joined = F.relu(F.conv2d(torch.cat(parts, dim=1), learner.join.weight, learner.join.bias, padding=1))
    torch.testing.assert_close(learner(maps), learner.classifier[1](joined))


def test_the_foreground_of_the_base_classes_leaves_out_the_objects_own():
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 2, 2)
    chance = torch.softmax(logits, dim=1)
    torch.testing.assert_close(base_foreground(logits), chance[:, 1:].sum(dim=1, keepdim=True))
    found = base_foreground(logits, torch.tensor([2, 0, 3]))
    torch.testing.assert_close(found[0, 0], chance[0, 1] + chance[0, 3])
    torch.testing.assert_close(found[1, 0], chance[1, 1:].sum(dim=0))
    torch.testing.assert_close(found[2, 0], chance[2, 1] + chance[2, 2])


def test_scenes_differ_by_the_norm_of_the_difference_of_their_gram_matrices():
    torch.manual_seed(0)
    support, query = torch.rand(2, 4, 3, 5), torch.rand(1, 4, 2, 2)
    expected = torch.zeros(1, 2)
    for k in range(2):
        for c in range(4):
            for d in range(4):
                own = (support[k, c] * support[k, d]).sum() / (4 * 15)
                other = (query[0, c] * query[0, d]).sum() / (4 * 4)
                expected[0, k] += (own - other) ** 2
    torch.testing.assert_close(scene_difference(gram(support)[None], gram(query)), expected.sqrt())


def test_the_ensemble_adjusts_the_meta_learner_and_adds_the_base_foreground():
    torch.manual_seed(0)
    ensemble = Ensemble()
    meta, base, psi = torch.randn(2, 2, 3, 3), torch.rand(2, 1, 3, 3), torch.rand(2)
    torch.testing.assert_close(ensemble(meta, base, psi).softmax(dim=1), meta.softmax(dim=1))
    with torch.no_grad():
        ensemble.adjust.copy_(torch.tensor([0.8, 0.3]))
        ensemble.join.copy_(torch.tensor([0.9, 0.5]))
    adjusted = 0.8 * meta.softmax(dim=1) + 0.3 * psi.view(2, 1, 1, 1)
    background = 0.9 * adjusted[:, 0] + 0.5 * base[:, 0]
    expected = adjusted[:, 1] / (background + adjusted[:, 1])
    torch.testing.assert_close(ensemble(meta, base, psi).softmax(dim=1)[:, 1], expected)


def test_a_shot_of_a_like_scene_weighs_more_and_weights_add_up():
    torch.manual_seed(0)
    weights = SceneWeights()(torch.tensor([[0.0, 5.0, 1.0]]))[0]
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
    assert weights[0] >= weights[2] > weights[1]


def test_the_vectors_of_the_shots_are_joined_by_their_scenes(make_method, shots):
    bam = make_method(BAMConfig, **PARTS)
    images, masks = shots(1, 2)
    guides = bam.encode_shots(bam.extract(images[0]), masks[0])
    query = bam.encode_query(bam.extract(images[0, :1].flip(2)))
    joined, psi = bam.weighed(query, AllVectors().join(guides, 2))
    each = torch.stack([(guides["scene"][k, 0] - query.maps["scene"][0]).norm() for k in range(2)])
    weights = torch.softmax(bam.scenes.layers(each[:, None])[:, 0], dim=0)
    torch.testing.assert_close(joined["vectors"][0, 0], weights @ guides["vectors"][:, 0])
    torch.testing.assert_close(psi[0], weights @ each)


def test_the_base_learner_is_trained_on_the_classes_alone(make_method, batch):
    bam = make_method(BAMConfig, stage="base", **PARTS)
    assert {n.split(".")[0] for n, p in bam.named_parameters() if p.requires_grad} == {"base"}
    found = bam.losses(batch)
    logits = bam.base(bam.extract(batch.query_images)["layer3"])
    logits = F.interpolate(logits, size=(65, 65), mode="bilinear", align_corners=True)
    expected = F.cross_entropy(logits, batch.labels.long(), ignore_index=255)
    torch.testing.assert_close(found.total, expected)


def test_the_meta_learner_is_trained_beside_a_base_learner_without_the_episodes_class(make_method, batch):
    bam = make_method(BAMConfig, meta_weight=0.5, deep_weight=0.25, **PARTS)
    bam.has_base.fill_(True)
    with torch.no_grad():
        bam.ensemble.join.copy_(torch.tensor([1.0, 2.0]))
    found = bam.losses(batch)
    features = bam.extract(batch.query_images)
    chance = bam.base(features["layer3"]).softmax(dim=1)
    base = torch.stack([chance[0, [1, 3]].sum(dim=0), chance[1, [1, 2]].sum(dim=0)]).unsqueeze(1)
    query = bam.encode_query(features)
    query = replace(query, maps=dict(query.maps) | {"base": base})
    support = bam.encode_episodes(batch).support
    joined = AllVectors().join(bam.encode_shots(support.features, support.masks.flatten(0, 1)), 2)
    logits = F.interpolate(bam.score(query, joined), size=(65, 65), mode="bilinear", align_corners=True)
    expected = F.cross_entropy(logits, batch.query_masks.long(), ignore_index=255)
    torch.testing.assert_close(found.terms["query"], expected, atol=1e-5, rtol=1e-4)
    total = sum(w * found.terms[n] for n, w in (("query", 1), ("query_meta", 0.5), ("query_deep", 0.25)))
    torch.testing.assert_close(found.total, total)
    assert not any(p.requires_grad for p in bam.base.parameters())
    assert not bam.train().base.training


def test_the_second_stage_takes_the_base_learner_of_the_first(make_method, batch, tmp_path):
    first = make_method(BAMConfig, stage="base", **PARTS)
    path = tmp_path / "base.safetensors"
    save_checkpoint(path, first, Checkpoint(config=first.config))
    torch.manual_seed(1)
    second = BAMConfig(**{**vars(first.config), "stage": "meta", "base": str(path)}).build()
    for name, value in first.base.state_dict().items():
        assert torch.equal(second.base.state_dict()[name], value)
    second.losses(batch)
    with pytest.raises(ValueError, match="other sizes: give the channels, classes and base_level"):
        replace(second.config, classes=5).build()
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        second.config.build()


@pytest.mark.parametrize("base", [None, "nowhere.safetensors"])
def test_without_a_base_learner_an_error_says_how_to_make_one(make_method, batch, base):
    bam = make_method(BAMConfig, base=base, **PARTS)
    where = r" \(there is no file 'nowhere.safetensors'\)" if base else ""
    with pytest.raises(
        ValueError, match=f"base learner{where}: train one .*voc5i_mini_bam_base.*--method.base"
    ):
        bam.losses(batch)


def test_there_is_at_least_one_class():
    with pytest.raises(ValueError, match="classes must be 1 or more, got 0"):
        BAMConfig(classes=0)


def test_labels_are_needed_and_within_the_classes(make_method, batch):
    bam = make_method(BAMConfig, **(PARTS | {"classes": 2}))
    bam.has_base.fill_(True)
    with pytest.raises(ValueError, match="hold class 3 and classes is 2"):
        bam.losses(batch)
    with pytest.raises(ValueError, match="labels of the queries"):
        bam.losses(replace(batch, labels=None))
