"""What every method promises, whatever it is made of."""

import inspect
from dataclasses import fields, replace

import pytest
import torch

from fewseg.data.episodes import Way
from fewseg.engine import checkpoint
from fewseg.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fewseg.engine.environment import Environment
from fewseg.engine.plain import plain_logits
from fewseg.methods.fusion import MeanVector, ScoreAverage
from fewseg.methods.registry import METHODS
from fewseg.types import EncodedShots, LossTerms, State
from small_segmenters import small_backbone


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def trainable(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", METHODS)
def test_a_level_that_the_backbone_does_not_give_is_refused(name):
    kind = METHODS[name]
    levels = kind().backbone.levels
    for field in {f.name for f in fields(kind)} & {
        "level",
        "levels",
        "mid_levels",
        "base_level",
        "scene_level",
    }:
        unknown = ("layer9",) if field.endswith("levels") else "layer9"
        with pytest.raises(
            ValueError, match=r"layer9.*the backbone gives.*add them to the backbone's levels"
        ):
            kind(backbone=small_backbone(*levels), **{field: unknown}).build()


@pytest.mark.parametrize("count", [1, 5])
def test_any_number_of_shots_goes_with_one_config(model, shots, query, ask, count):
    logits = ask(model, *shots(1, count), query)
    assert logits.shape == (2, 2, 65, 65)
    assert bool(torch.isfinite(logits).all())


def test_the_order_of_the_shots_does_not_matter(model, shots, query, ask):
    images, masks = shots(1, 3)
    order = [2, 0, 1]
    close(ask(model, images[:, order], masks[:, order], query), ask(model, images, masks, query))


def test_repeating_the_shots_changes_nothing_where_the_fusion_is_an_average(model, shots, query, ask):
    if not isinstance(getattr(model, "fusion", None), MeanVector | ScoreAverage):
        pytest.skip("shots are not averaged")
    images, masks = shots(1, 2)
    twice = [0, 1, 0, 1]
    close(ask(model, images[:, twice], masks[:, twice], query), ask(model, images, masks, query))


@pytest.mark.one_fusion
def test_logits_depend_on_query_support_image_and_support_mask(model, shots, query, ask):
    images, masks = shots(1, 2)
    logits = ask(model, images, masks, query)
    other_images, other_masks = shots(1, 2, seed=5)
    changed = {
        "query": ask(model, images, masks, query.flip(0)),
        "support image": ask(model, other_images, masks, query),
        "support mask": ask(model, images, other_masks, query),
    }
    spread = (logits - logits.mean()).abs().max()
    for what, other in changed.items():
        assert (logits - other).abs().max() > 0.01 * spread, what


def test_each_of_a_batch_is_answered_as_if_alone(model, shots, query, ask):
    images, masks = shots(2, 2)
    together = ask(model, images, masks, query)
    for b in range(2):
        one = slice(b, b + 1)
        close(together[one], ask(model, images[one], masks[one], query[one]))


def several_ways(images, masks, way_of):
    """Each image shows its own way."""
    labels = masks.clone()
    for k, way in enumerate(way_of):
        labels[:, k][masks[:, k] == 1] = way
    return images, labels


def test_several_ways_with_shots_of_their_own_are_segmented_at_once(model, shots, query):
    images, labels = several_ways(*shots(1, 3), (1, 2, 2))
    with torch.no_grad():
        support = EncodedShots(features=model.extract(images.flatten(0, 1)), masks=labels, way_of=(1, 2, 2))
        logits = model.segment(model.extract(query), model.encode_support(support))
    assert logits.shape == (2, 3, 65, 65)
    assert bool(torch.isfinite(logits).all())
    swapped = EncodedShots(
        features=support.features,
        masks=torch.where(labels == 1, 2, torch.where(labels == 2, 1, labels)).to(labels.dtype),
        way_of=(2, 1, 1),
    )
    with torch.no_grad():
        other = model.segment(model.extract(query), model.encode_support(swapped))
    margins, other = logits[:, 1:] - logits[:, :1], other[:, 1:] - other[:, :1]
    close(other, margins.flip(1))  # the names of the ways do not matter


def test_forward_is_the_three_steps_for_any_b_k_and_n(model, shots, query, ask):
    images, masks = shots(2, 2)
    with torch.no_grad():
        assert torch.equal(model(query, images, masks), ask(model, images, masks, query))
        for_all = model(query, images[:1], masks[:1])
        assert torch.equal(for_all, ask(model, images[:1], masks[:1], query))
        images, labels = several_ways(*shots(2, 3), (1, 2, 2))
        assert model(query, images, labels, (1, 2, 2)).shape == (2, 3, 65, 65)
    with pytest.raises(ValueError, match=r"support_images must be \(B, K, 3, H, W\) and support_masks"):
        model(query, images, masks)


def test_forward_is_the_plain_path(model, shots, query):
    """One image, shot and pair at a time."""
    images, labels = several_ways(*shots(1, 3), (1, 2, 2))
    pictures = {"a": 0, "b": 1, "c": 2}

    def features(name):
        return model.extract(query[:1] if name == "query" else images[0, pictures[name]].unsqueeze(0))

    def masks(name, classes):
        own = labels[0, pictures[name]].unsqueeze(0)
        if len(classes) == 2:
            return own
        return torch.where(own == classes[0], 1, torch.where(own == 255, 255, 0)).to(own.dtype)

    ways = [Way(class_id=1, supports=("a",)), Way(class_id=2, supports=("b", "c"))]
    with torch.no_grad():
        close(
            model(query[:1], images, labels, (1, 2, 2))[0],
            plain_logits(model, ways, "query", features, masks),
        )


def test_masks_of_more_ways_than_were_given_are_refused(model, shots):
    images, masks = shots(1, 2)
    masks[masks == 1] = 2
    support = EncodedShots(features=model.extract(images.flatten(0, 1)), masks=masks)
    with pytest.raises(ValueError, match=r"masks hold \[2\]; with 1 ways they must hold 0 .. 1 and 255"):
        model.encode_support(support)


def test_training_on_several_ways_works_or_is_refused(fresh, episodes):
    if not trainable(fresh):
        pytest.skip("nothing to train")
    batch = episodes(2)
    _, labels = several_ways(batch.support_images, batch.support_masks, (1, 2))
    batch = replace(batch, support_masks=labels, way_of=(1, 2))
    if not fresh.trains_ways:
        with pytest.raises(ValueError, match=r"trained on episodes of one way, got 2: set train.ways to 1"):
            fresh.losses(batch)
        return
    total = fresh.losses(batch).total
    total.backward()
    assert bool(torch.isfinite(total))


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("which", ["all", "one"])
def test_an_empty_or_ignored_mask_gives_finite_logits(model, shots, query, ask, value, which):
    images, masks = shots(1, 2)
    masks[:, : None if which == "all" else 1] = value
    assert bool(torch.isfinite(ask(model, images, masks, query)).all())


@pytest.mark.one_fusion
def test_gradients_reach_exactly_the_trainable_parameters(fresh, episodes, name):
    if not trainable(fresh):
        with pytest.raises(ValueError, match="nothing to train"):
            fresh.losses(episodes(1))
        return
    fresh.eval()  # without dropout every path is open
    fresh.losses(episodes(2)).total.backward()  # two shots: what weighs shots learns nothing from one
    reached = {name for name, p in fresh.named_parameters() if p.grad is not None}
    assert reached == trainable(fresh)
    assert not {n for n in reached if n.startswith("backbone.")} or fresh.backbone.config.trainable
    parts = {n.split(".")[0] for n in reached}
    for part in parts:
        total = sum(float(p.grad.abs().sum()) for n, p in fresh.named_parameters() if n.startswith(part))
        assert total > 0, part


@pytest.mark.parametrize("count", [1, 2])
def test_losses_are_named_finite_scalars_of_any_number_of_shots(fresh, episodes, count):
    if not trainable(fresh):
        pytest.skip("nothing to train")
    found = fresh.train().losses(episodes(count))
    assert isinstance(found, LossTerms)
    assert found.terms
    assert set(found.weights) <= set(found.terms)
    for name, value in found.terms.items():
        assert value.shape == (), name
        assert bool(torch.isfinite(value)), name


@pytest.mark.one_fusion
def test_losses_are_finite_where_every_mask_is_empty(fresh, episodes):
    if not trainable(fresh):
        pytest.skip("nothing to train")
    batch = episodes(1)
    batch = replace(
        batch,
        support_masks=torch.zeros_like(batch.support_masks),
        query_masks=torch.full_like(batch.query_masks, 255),
    )
    total = fresh.losses(batch).total
    total.backward()
    assert bool(torch.isfinite(total))
    for name, p in fresh.named_parameters():
        assert p.grad is None or bool(torch.isfinite(p.grad).all()), name


@pytest.mark.one_fusion
def test_segment_takes_a_query_and_a_state_and_no_mask(model):
    assert list(inspect.signature(model.segment).parameters) == ["query", "state"]
    assert list(inspect.signature(model.encode_support).parameters) == ["support"]
    assert list(inspect.signature(model.extract).parameters) == ["images"]


@pytest.mark.one_fusion
def test_query_masks_reach_the_losses_and_nothing_else(model, episodes):
    batch = episodes(2)
    other = replace(batch, query_masks=1 - batch.query_masks.clamp(max=1))
    answers = []
    with torch.no_grad():
        for each in (batch, other):
            found = model.encode_episodes(each)
            query = model.extract(each.query_images) if model.image_scales else found.query
            answers.append(model.segment(query, model.encode_support(found.support)))
    assert torch.equal(*answers)


@pytest.mark.one_fusion
def test_the_return_types_do_not_depend_on_training(fresh, shots, query, encoded):
    found = []
    for mode in (True, False):
        fresh.train(mode)
        state = fresh.encode_support(encoded(fresh, *shots(1, 2)))
        found.append((type(state), fresh.segment(fresh.extract(query), state).shape))
    assert found[0] == found[1]
    assert issubclass(found[0][0], State)
    assert found[0][1] == (2, 2, 65, 65)


def snapshot(model):
    """Everything that a module holds: attributes by identity, tensors by value."""
    attributes = {
        name: {key: id(value) for key, value in vars(module).items()}
        for name, module in model.named_modules()
    }
    return attributes, {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.one_fusion
@pytest.mark.parametrize("training", [True, False])
def test_nothing_stays_on_the_module(fresh, shots, query, encoded, training):
    fresh.train(training)
    attributes, tensors = snapshot(fresh)
    with torch.no_grad():
        fresh.segment(fresh.extract(query), fresh.encode_support(encoded(fresh, *shots(1, 2))))
    after, values = snapshot(fresh)
    assert after == attributes
    assert all(torch.equal(tensors[key], values[key]) for key in tensors)


@pytest.mark.one_fusion
def test_a_state_is_not_changed_by_the_queries_that_it_serves(model, shots, query, encoded):
    with torch.no_grad():
        state = model.encode_support(encoded(model, *shots(1, 2)))
        features = model.extract(query)
        first = model.segment(features, state)
        model.segment(model.extract(query.flip(0)), state)
        assert torch.equal(model.segment(features, state), first)


@pytest.mark.one_fusion
def test_a_frozen_backbone_stays_in_eval_mode(fresh):
    if fresh.backbone.config.trainable:
        pytest.skip("the backbone is trained")
    fresh.train()
    assert not any(m.training for m in fresh.backbone.modules())
    assert not any(p.requires_grad for p in fresh.backbone.parameters())


def test_a_saved_and_loaded_model_gives_the_same_logits(
    model, config, shots, query, ask, tmp_path, monkeypatch
):
    monkeypatch.setattr(checkpoint, "environment", lambda: Environment(versions={}, hardware=""))
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, Checkpoint(config=config))
    loaded, about = load_checkpoint(path)
    assert about.config == config == loaded.config
    images, masks = shots(1, 2)
    assert torch.equal(ask(loaded, images, masks, query), ask(model, images, masks, query))
