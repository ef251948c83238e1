"""SCL on CANet: one scale, shared parts, the same self-guided module, and CANet's history."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.canet import Refinement
from fewseg.methods.fusion import CrossGuided, ScoreAverage
from fewseg.methods.scl import SCLCANetConfig, SelfGuided, primary_and_auxiliary
from fewseg.types import ImageEpisodes


@pytest.fixture
def make(make_method):
    return lambda **changes: make_method(SCLCANetConfig, **changes)


def episodes_of(images, masks, pair_ids=None):
    return ImageEpisodes(
        support_images=images[:, :-1],
        support_masks=masks[:, :-1],
        query_images=images[:, -1],
        query_masks=masks[:, -1],
        pair_ids=pair_ids,
    )


def test_the_support_path_is_comparison_own_first_block_and_the_shared_rest(make, shots):
    scl = make()
    images, masks = shots(1, 2)
    features = scl.extract(images[0])
    first = scl.first_pass(features, masks[0])
    mid = scl.mid.of(features)
    torch.testing.assert_close(scl.encode_query(features).mid, mid)
    guide = torch.stack([first.initial, first.initial], dim=1)
    expected = scl.trunk.after_entry(scl.support_entry(scl.comparison(mid, guide)))
    torch.testing.assert_close(first.first.logits, expected)
    assert scl.comparison.conv.weight.shape[1] == 3 * 8
    assert (scl.trunk.entry.first.weight.shape[1], scl.support_entry.first.weight.shape[1]) == (10, 8)


def test_the_guides_are_the_self_guided_modules_vectors(make, shots):
    scl = make()
    images, masks = shots(1, 2)
    features = scl.extract(images[0])
    first = scl.first_pass(features, masks[0])
    expected = primary_and_auxiliary(first.mid, first.cells, first.first.logits)
    guides = scl.encode_shots(features, masks[0])
    torch.testing.assert_close(guides["vectors"], torch.stack(expected, dim=1))


def test_a_score_refines_the_query_path(make, shots):
    scl = make(refinement=Refinement(iterations=2))
    images, masks = shots(1, 2)
    guides = scl.encode_shots(scl.extract(images[0]), masks[0])
    query = scl.encode_query(scl.extract(shots(1, 2, seed=1)[0][0]))
    logits = scl.iterate(query, guides)
    for _ in range(2):
        logits = scl.iterate(query, guides, logits.softmax(1))
    torch.testing.assert_close(scl.score(query, guides), logits)


def test_the_three_losses_are_the_cross_entropies_of_the_three_passes(make, shots):
    scl = make(fusion=ScoreAverage(), refinement=Refinement(iterations=0))
    images, masks = shots(2, 2)
    encoded = scl.encode_episodes(episodes_of(images, masks))
    found = scl.training_losses(encoded)
    first = scl.first_pass(encoded.support.features, masks[:, 0])
    second = scl.second_pass(first, scl.second_vectors(first))
    query = scl.segment(encoded.query, scl.encode_support(encoded.support))
    answers = {
        "support_first": (first.first.logits, masks[:, 0]),
        "support_second": (second.logits, masks[:, 0]),
        "query": (query, masks[:, 1]),
    }
    assert set(found.terms) == set(answers)
    for name, (logits, truth) in answers.items():
        full = F.interpolate(logits, size=(65, 65), mode="bilinear", align_corners=True)
        expected = F.cross_entropy(full, truth.long(), ignore_index=255)
        torch.testing.assert_close(found.terms[name], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.total, sum(found.terms.values()))


@pytest.mark.parametrize("losses", [(), ("first",), ("second",)], ids=lambda names: " ".join(names) or "none")
def test_every_row_of_table_6_has_its_terms(make, shots, losses):
    scl = make(self_guided=SelfGuided(losses=losses))
    found = scl.losses(episodes_of(*shots(1, 2)))
    assert set(found.terms) == {"query"} | {f"support_{name}" for name in losses}


def test_a_pairs_history_is_the_mean_of_its_shots_scores(make, shots):
    scl = make(history_reset=0.0, mid_dropout=0.0, head_dropout=0.0).train()
    images, masks = shots(1, 3)
    batch = scl.encode_episodes(episodes_of(images, masks, torch.tensor([5])))
    guides = scl.encode_shots(batch.support.features, masks[0, :2])
    maps = scl.encode_query(batch.query)
    scl.training_losses(batch)
    each = scl.iterate(maps, guides)
    history = each.mean(dim=0, keepdim=True).softmax(1)
    torch.testing.assert_close(scl.history.recall(batch.pair_ids, maps.mid), history, atol=1e-3, rtol=0)
    logits = scl.iterate(maps, guides, history.expand(2, -1, -1, -1))
    full = F.interpolate(logits, size=(65, 65), mode="bilinear", align_corners=True)
    expected = F.cross_entropy(full, masks[0, [2, 2]].long(), ignore_index=255)
    torch.testing.assert_close(scl.training_losses(batch).terms["query"], expected, atol=1e-4, rtol=1e-4)


def test_each_episode_of_a_batch_trains_on_its_own_shots_query_and_history(make, shots):
    images, masks = shots(2, 3)
    ids = torch.tensor([5, 6])
    learner = {"history_reset": 0.0, "mid_dropout": 0.0, "head_dropout": 0.0}

    def losses(rows):
        """Of a second look, which hears what the first one said."""
        scl = make(**learner).train()
        with torch.no_grad():  # what random weights make of a guide and of a history is lost in rounding
            scl.comparison.conv.weight[:, scl.config.channels :] *= 30
            scl.trunk.entry.first.weight[:, scl.config.channels :] *= 100
        for _ in range(2):
            found = scl.losses(episodes_of(images[rows], masks[rows], ids[rows]))
        return found.terms

    together, alone = losses([0, 1]), [losses([0]), losses([1])]
    for name, found in together.items():
        torch.testing.assert_close(found, (alone[0][name] + alone[1][name]) / 2, atol=1e-5, rtol=1e-4)
    assert abs(float(alone[0]["query"].detach() - alone[1]["query"].detach())) > 1e-3


def test_the_support_path_of_the_cross_guided_module_has_no_history(make, shots, encode):
    scl = make(fusion=CrossGuided(path="support"))
    images, masks = shots(1, 2)
    support = encode(scl, images, masks)
    guides = scl.encode_shots(support.features, masks[0])
    found = scl.cross_logits(support, guides, "support")
    first = scl.first_pass(support.features, masks[0])
    for pair, (k, i) in enumerate(itertools.product(range(2), range(2))):
        compared = scl.comparison(first.mid[[i]], guides["vectors"][[k]])
        expected = scl.trunk.after_entry(scl.support_entry(compared))
        torch.testing.assert_close(found[[pair]], expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found, scl.cross_logits(support, guides, "query"))


def test_the_second_pass_of_the_released_pfenet_is_refused():
    with pytest.raises(ValueError, match="on CANet give 'paper'"):
        SCLCANetConfig(self_guided=SelfGuided(second_pass="released"))
