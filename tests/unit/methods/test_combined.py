"""The combined model: SCL on PFENet where its parts are left out, and what each part adds."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.combined import CombinedConfig, NoPrototypeScore, PrototypeScore
from fewseg.methods.fusion import ScoreAverage
from fewseg.methods.prototypical import Fidelity
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.methods.sdaanet import NoAttention
from small_segmenters import episodes_of

NEITHER = {"attention": NoAttention(), "prototypes": NoPrototypeScore()}


@pytest.fixture
def combined(make_method):
    return lambda **changes: make_method(CombinedConfig, **changes)


def scores(method, encode, images, masks):
    """Logits (n, 2, h, w) of the last image of each row under its first."""
    shots = encode(method, images[:, :1], masks[:, :1])
    guides = method.encode_shots(shots.features, masks[:, 0])
    return method.score(method.encode_query(method.extract(images[:, -1])), guides)


def test_without_its_parts_it_is_scl_on_pfenet(combined, make_method, shots):
    scl, plain = make_method(SCLPFENetConfig), combined(**NEITHER)
    assert scl.state_dict().keys() == plain.state_dict().keys()
    images, masks = shots(2, 4)
    arguments = (images[:, -1], images[:, :-1], masks[:, :-1])
    torch.testing.assert_close(plain(*arguments), scl(*arguments))
    batch = episodes_of(images[:, :2], masks[:, :2])
    found, expected = plain.losses(batch), scl.losses(batch)
    assert found.terms.keys() == expected.terms.keys()
    assert found.weights == expected.weights
    torch.testing.assert_close(found.total, expected.total)


def cosines(support, mask, query):
    """PANet Eq. 1 to 3, a prototype at a time: features are pooled at image size."""
    large = F.interpolate(support[None], size=mask.shape, mode="bilinear", align_corners=True)[0]
    means = [large[:, mask == label].mean(dim=1) for label in (0, 1)]
    return torch.stack([F.cosine_similarity(query, mean[:, None, None], dim=0) for mean in means])


@pytest.mark.parametrize("metric", [None, Fidelity()])
def test_the_prototype_score_is_added_to_the_decoders_logits(combined, encode, shots, metric):
    part = PrototypeScore(alpha=7.0, level="layer2", **({"metric": metric} if metric else {}))
    images, masks = shots(2, 2)
    with_score = scores(combined(attention=NoAttention(), prototypes=part), encode, images, masks)
    plain = combined(**NEITHER)
    maps = plain.extract(images.flatten(0, 1))["layer2"].unflatten(0, (2, 2))
    found = with_score - scores(plain, encode, images, masks)
    for row in range(2):
        expected = cosines(maps[row, 0], masks[row, 0], maps[row, 1])
        expected = 7.0 * (expected.square() if metric else expected)
        torch.testing.assert_close(found[row], expected, atol=1e-3, rtol=1e-3)


def test_the_prototype_score_has_no_weights_of_its_own(combined):
    assert combined().state_dict().keys() == combined(prototypes=NoPrototypeScore()).state_dict().keys()


def test_the_attention_reads_the_pooled_support_and_is_one_more_plane(combined, encode, shots):
    method = combined(prototypes=NoPrototypeScore())
    images, masks = shots(1, 2)
    query = method.encode_query(method.extract(images[:, 1]))
    guides = method.encode_shots(method.extract(images[:, 0]), masks[:, 0])
    attention = method.attention.query_map(query.mid, guides["pooled"], learn=False)
    torch.testing.assert_close(
        guides["pooled"], method.first_pass(method.extract(images[:, 0]), masks[:, 0]).initial
    )
    planes = torch.cat([method.prior_map(query, guides), attention], dim=1)
    expected = method.trunk(method.query.merge(query.mid, guides["vectors"], planes), query.size, deep=False)
    torch.testing.assert_close(method.score(query, guides), expected.logits)


def test_the_attentions_own_loss_is_that_of_the_supports_and_weighted(combined, shots):
    method = combined(attention_weight=0.25)
    batch = method.encode_episodes(episodes_of(*shots(2, 3)))
    found = method.training_losses(batch)
    masks = batch.support.masks.flatten(0, 1)
    first = method.first_pass(batch.support.features, masks)
    logits = method.attention.support_logits(first.mid, first.initial, learn=False)
    full = F.interpolate(logits, size=(65, 65), mode="bilinear", align_corners=True)
    expected = F.cross_entropy(full, masks.long(), ignore_index=255)
    torch.testing.assert_close(found.terms["support_attention"], expected, atol=1e-5, rtol=1e-4)
    assert found.weights["support_attention"] == 0.25
    assert "support_attention" not in combined(attention=NoAttention()).training_losses(batch).terms


def test_the_attentions_statistics_are_learned_by_losses_in_training_alone(combined, shots):
    method, (images, masks) = combined(fusion=ScoreAverage()), shots(2, 2)
    before = {k: v.clone() for k, v in method.attention.state_dict().items() if "running" in k}

    def moved():
        return [k for k, v in method.attention.state_dict().items() if k in before and not v.equal(before[k])]

    method.losses(episodes_of(images, masks))
    method.train()(images[:, 1], images[:, :1], masks[:, :1])
    assert not moved()
    method.losses(episodes_of(images, masks))
    assert set(moved()) == set(before)


def test_a_level_that_the_backbone_does_not_give_is_refused(combined):
    with pytest.raises(ValueError, match="layer4"):
        combined(prototypes=PrototypeScore(level="layer4"))
