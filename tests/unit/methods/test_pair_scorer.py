"""What all pair scorers share: pairs, fused scores, several ways, one state for many queries."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.backbones import BackboneConfig
from fewseg.methods.canet import CANetConfig
from fewseg.methods.fusion import CrossGuided, MeanVector, ScoreAverage
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.scl import SCLCANetConfig, SCLPFENetConfig, SelfGuided
from fewseg.methods.sdaanet import SDAANetConfig
from fewseg.types import EncodedEpisodes, EncodedShots, WaysState

PAIR_CONFIGS = (PFENetConfig, SCLPFENetConfig, CANetConfig, SCLCANetConfig, SDAANetConfig)
FUSIONS = (MeanVector(), ScoreAverage(), CrossGuided())


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
            predicted = pfenet.segment(features.select(slice(i, i + 1)), one)[0].argmax(dim=0) == 1
            counted, true = masks[0, i] != 255, masks[0, i] == 1
            union = int(((predicted | true) & counted).sum())
            ious.append(int((predicted & true).sum()) / union if union else 1.0)
        expected.append(sum(ious) / 3 / 3)
    assert state.weights[0].tolist() == pytest.approx(expected, abs=1e-3)
    assert len({round(u, 3) for u in expected}) == 3  # three weights that differ


def test_queries_and_support_sets_that_do_not_match_are_refused(pfenet, shots, encode):
    state = pfenet.encode_support(encode(pfenet, *shots(2, 1)))
    queries = pfenet.extract(shots(1, 3)[0][0])
    with pytest.raises(ValueError, match="got 3 queries for a state of 2 support sets"):
        pfenet.segment(queries, state)


def test_a_method_without_a_support_path_says_so(pfenet, shots, encode):
    pfenet.fusion = CrossGuided(path="support")
    with pytest.raises(ValueError, match=r"PFENet has no support path: use CrossGuided\(path='query'\)"):
        pfenet.encode_support(encode(pfenet, *shots(1, 2)))


@pytest.mark.parametrize("rule", ["touched", "sampled"])
@pytest.mark.parametrize("config", PAIR_CONFIGS)
def test_an_object_without_half_a_cell_has_the_cells_it_touches_or_a_vector_of_zeros(
    make_method, shots, encode, config, rule
):
    method = make_method(config, small_objects=rule)
    images, masks = shots(2, 1)
    masks.zero_()
    masks[:, 0, 3, 20] = 1  # bilinear sampling at 9 x 9 cells does not see it
    support, query = encode(method, images, masks), method.extract(shots(2, 1, seed=1)[0][:, 0])
    with torch.no_grad():
        guides = method.encode_shots(support.features, masks[:, 0])
        logits = method.segment(query, method.encode_support(support))
    found = guides["vectors"].abs().sum() + guides.keys.abs().sum()
    assert bool(guides.valid.any()) == (rule == "touched" and guides.keys.shape[-1] > 0)
    assert bool(found > 0) == (rule == "touched")
    assert bool(logits.isfinite().all())
    losses = method.losses(EncodedEpisodes(support=support, query=query, query_masks=masks[:, 0]))
    assert bool(losses.total.isfinite())
    if config is SDAANetConfig:  # a query without a cell has no prototype to teach with
        assert bool(losses.terms["distillation"] > 0) == (rule == "touched")


@pytest.mark.parametrize(
    ("make", "options", "error"),
    [
        (PFENetConfig, {"small_objects": "none"}, "small_objects must be one of .*sampled.*, got 'none'"),
        (SDAANetConfig, {"rounding": "up"}, "rounding must be one of .*nearest.*, got 'up'"),
        (CANetConfig, {"initialisation": "zeros"}, "initialisation must be one of .*normal.*, got 'zeros'"),
        (SelfGuided, {"second_pass": "none"}, "second_pass must be one of .*released.*, got 'none'"),
        (SelfGuided, {"losses": ("third",)}, "losses must be any of 'first' and 'second', got"),
        (SelfGuided, {"vectors": ("query",)}, "vectors must be one or more of"),
        (CrossGuided, {"iou": "background"}, "iou must be one of .*mean.*, got 'background'"),
        (BackboneConfig, {"bn": "frozen"}, "bn must be one of .*train.*, got 'frozen'"),
    ],
)
def test_an_option_without_such_a_value_is_refused_by_name(make, options, error):
    with pytest.raises(ValueError, match=error):
        make(**options)


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -0.5), (60, 2.5)])
def test_pyramid_scales_are_fractions_or_whole_cells(make_method, scales):
    with pytest.raises(ValueError, match=r"scales must be one or more fractions .* got"):
        make_method(PFENetConfig, scales=scales)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("regions", ["foreground", "mean"])
def test_the_iou_is_of_the_argmax_of_the_logits_resized_as_the_method_does(make_method, regions, aligned):
    method = make_method(CANetConfig, cross_iou_align_corners=aligned)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 2, 7, 7, generator=generator)
    masks = torch.randint(0, 3, (4, 49, 49), generator=generator, dtype=torch.uint8)
    masks[masks == 2] = 255
    found = method.predicted_iou(logits, masks, CrossGuided(iou=regions))
    large = F.interpolate(logits, size=(49, 49), mode="bilinear", align_corners=aligned).argmax(dim=1)
    for i in range(4):
        counted = masks[i] != 255
        predicted, true = (large[i] == 1) & counted, (masks[i] == 1) & counted
        ious = [(predicted & true).sum() / (predicted | true).sum()]
        if regions == "mean":
            ious.append((~predicted & ~true & counted).sum() / ((~predicted | ~true) & counted).sum())
        assert float(found[i]) == pytest.approx(float(torch.stack(ious).mean()), abs=1e-6)


def test_equal_logits_are_background(pfenet):
    logits, masks = torch.zeros(1, 2, 3, 3), torch.ones(1, 3, 3, dtype=torch.uint8)
    assert pfenet.predicted_iou(logits, masks, CrossGuided()).item() == 0


@pytest.fixture
def support(pfenet, shots):
    """(way_of) -> two support sets; each image shows its own way, and another way in a corner."""

    def make(way_of):
        images, masks = shots(2, len(way_of))
        for k, j in enumerate(way_of):
            own = masks[:, k] == 1
            masks[:, k][own] = j
            masks[:, k, 50:62, 50:62] = 1 + j % max(way_of)
        return EncodedShots(features=pfenet.extract(images.flatten(0, 1)), masks=masks, way_of=way_of)

    return make


@pytest.fixture
def query(pfenet, shots):
    return pfenet.extract(shots(1, 2, seed=1)[0][0])


@pytest.mark.parametrize("fusion", FUSIONS, ids=lambda f: f.kind)
@pytest.mark.parametrize("way_of", [(1, 2), (2, 1, 1), (1, 2, 3, 3)])
def test_each_ways_odds_are_those_of_its_own_two_class_answer(pfenet, support, query, fusion, way_of):
    pfenet.fusion = fusion
    sets = support(way_of)
    state = pfenet.encode_support(sets)
    assert isinstance(state, WaysState)
    logits = pfenet.segment(query, state)
    ways = max(way_of)
    assert logits.shape == (2, 1 + ways, 65, 65)
    margins = []
    for j in range(1, ways + 1):
        own = pfenet.segment(query, pfenet.encode_support(sets.one_way(j)))
        assert own.shape == (2, 2, 65, 65)
        margins.append(own[:, 1] - own[:, 0])
        torch.testing.assert_close(logits[:, j] - logits[:, 0], margins[-1], atol=1e-4, rtol=1e-3)
    best = torch.stack(margins).amax(dim=0)
    clear = best.abs() > 1e-3
    assert torch.equal((logits.argmax(dim=1) == 0)[clear], (best < 0)[clear])
    assert not torch.allclose(margins[0], margins[1], atol=1e-4)


def test_the_ways_keep_their_shots_and_a_single_shot_is_judged_by_none(pfenet, support):
    pfenet.fusion = CrossGuided()
    state = pfenet.encode_support(support((2, 1, 2)))
    assert [way.weights.shape for way in state.ways] == [(2, 1), (2, 2)]
    assert state.ways[0].weights.tolist() == [[1.0], [1.0]]
