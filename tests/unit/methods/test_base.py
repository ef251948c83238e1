"""What all pair scorers share: pairs, fused scores, one state for many queries."""

import pytest
import torch

from fewseg.methods.fusion import CrossGuided, MeanVector, ScoreAverage
from fewseg.methods.pair_scorer import cross_pairs, fuse_scores, predicted_iou
from fewseg.types import ImageEpisodes, LossTerms

FUSIONS = (MeanVector(), ScoreAverage(), CrossGuided())


def test_the_target_runs_fastest_then_the_guide_then_the_episode():
    of_guide, of_target = cross_pairs(2, 2)
    assert of_guide.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert of_target.tolist() == [0, 1, 0, 1, 2, 3, 2, 3]


def test_fused_scores_are_the_weighted_sum():
    generator = torch.Generator().manual_seed(0)
    scores, weights = torch.randn(2, 3, 2, 4, 5, generator=generator), torch.rand(2, 3, generator=generator)
    found = fuse_scores(scores, weights)
    for i in range(2):
        expected = sum(float(weights[i, s]) * scores[i, s] for s in range(3))
        torch.testing.assert_close(found[i], expected)


def test_the_iou_of_logits_is_that_of_their_full_size_argmax():
    logits = torch.zeros(1, 2, 2, 2)
    logits[:, 1] = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    masks = torch.zeros(1, 4, 4, dtype=torch.uint8)
    masks[:, :1] = 1
    # rows of the upsampled difference: 1, 1/3, -1/3, -1: two rows are predicted, one is true
    assert float(predicted_iou(logits, masks, CrossGuided())[0]) == pytest.approx(0.5)
    assert float(predicted_iou(logits, masks, CrossGuided(iou="mean"))[0]) == pytest.approx(
        (1 / 2 + 2 / 3) / 2
    )


@pytest.mark.parametrize("fusion", FUSIONS, ids=lambda f: f.kind)
def test_one_state_serves_many_queries_as_separate_calls_would(pfenet, shots, encode, fusion):
    pfenet.fusion = fusion
    state = pfenet.encode_support(encode(pfenet, *shots(1, 3)))
    queries = pfenet.extract(shots(1, 4, seed=1)[0][0])
    together = pfenet.segment(queries, state)
    assert together.shape == (4, 2, 65, 65)
    for i in range(4):
        alone = pfenet.segment(queries.select(slice(i, i + 1)), state)
        torch.testing.assert_close(together[i], alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS, ids=lambda f: f.kind)
def test_a_batch_of_support_sets_answers_each_its_own_query(pfenet, shots, encode, fusion):
    pfenet.fusion = fusion
    images, masks = shots(2, 3)
    queries = pfenet.extract(shots(1, 2, seed=1)[0][0])
    together = pfenet.segment(queries, pfenet.encode_support(encode(pfenet, images, masks)))
    for b in range(2):
        state = pfenet.encode_support(encode(pfenet, images[b : b + 1], masks[b : b + 1]))
        alone = pfenet.segment(queries.select(slice(b, b + 1)), state)
        torch.testing.assert_close(together[b], alone[0], atol=1e-5, rtol=1e-4)


def test_the_score_average_is_the_mean_of_the_one_shot_answers(pfenet, shots, encode):
    pfenet.fusion = ScoreAverage()
    images, masks = shots(1, 3)
    query = pfenet.extract(shots(1, 1, seed=1)[0][0])
    fused = pfenet.segment(query, pfenet.encode_support(encode(pfenet, images, masks)))
    alone = [
        pfenet.segment(
            query, pfenet.encode_support(encode(pfenet, images[:, k : k + 1], masks[:, k : k + 1]))
        )
        for k in range(3)
    ]
    torch.testing.assert_close(fused, sum(alone) / 3, atol=1e-5, rtol=1e-4)


def test_cross_guided_weights_are_the_one_shot_models_ious(pfenet, shots, encode, undecided):
    """SCL Eq. 15-17, one pair at a time through the public interface."""
    images, masks = shots(1, 3)
    undecided(pfenet, images, masks)
    pfenet.fusion = CrossGuided()
    state = pfenet.encode_support(encode(pfenet, images, masks))
    pfenet.fusion = ScoreAverage()
    features = pfenet.extract(images[0])
    expected = []
    for k in range(3):
        one = pfenet.encode_support(encode(pfenet, images[:, k : k + 1], masks[:, k : k + 1]))
        ious = []
        for i in range(3):
            said = pfenet.segment(features.select(slice(i, i + 1)), one)[0].argmax(dim=0) == 1
            counted, true = masks[0, i] != 255, masks[0, i] == 1
            union = int(((said | true) & counted).sum())
            ious.append(int((said & true).sum()) / union if union else 1.0)
        expected.append(sum(ious) / 3 / 3)
    assert state.weights[0].tolist() == pytest.approx(expected, abs=1e-3)
    assert len({round(u, 3) for u in expected}) == 3  # three weights that can be told apart


def test_queries_and_support_sets_that_do_not_match_are_refused(pfenet, shots, encode):
    state = pfenet.encode_support(encode(pfenet, *shots(2, 1)))
    queries = pfenet.extract(shots(1, 3)[0][0])
    with pytest.raises(ValueError, match="got 3 queries for a state of 2 support sets"):
        pfenet.segment(queries, state)


def test_a_method_without_a_support_path_says_so(pfenet, shots, encode):
    pfenet.fusion = CrossGuided(path="support")
    with pytest.raises(ValueError, match=r"PFENet has no support path: use CrossGuided\(path='query'\)"):
        pfenet.encode_support(encode(pfenet, *shots(1, 2)))


def test_losses_are_the_same_from_images_and_from_features(pfenet, shots):
    images, masks = shots(2, 3)
    episodes = ImageEpisodes(
        support_images=images[:, :2],
        support_masks=masks[:, :2],
        query_images=images[:, 2],
        query_masks=masks[:, 2],
    )
    direct, encoded = pfenet.losses(episodes), pfenet.losses(pfenet.encode_episodes(episodes))
    assert direct.terms.keys() == encoded.terms.keys()
    for name, value in direct.terms.items():
        torch.testing.assert_close(value, encoded.terms[name])


def test_the_total_weighs_the_terms():
    terms = LossTerms(terms={"a": torch.tensor(2.0), "b": torch.tensor(3.0)}, weights={"b": 0.5})
    assert float(terms.total) == 3.5
