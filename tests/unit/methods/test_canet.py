"""CANet: dense comparison, attention over shots, refinement, and a training history."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewseg.methods.canet import (
    ASPP,
    CANetConfig,
    GuidedConv,
    IterativeTrunk,
    PredictionHistory,
    Refinement,
    ResidualBlock,
    ShotWeights,
)
from fewseg.methods.fusion import MeanVector, ScoreAverage, ShotAttention
from fewseg.methods.scl import SCLCANetConfig
from fewseg.ops.masks import foreground_cells
from fewseg.types import RaggedShots
from small_segmenters import episodes_of


@pytest.fixture
def make(make_method):
    return lambda **changes: make_method(CANetConfig, **changes)


def test_query_and_support_share_a_dilated_3x3_mid_level_of_layers_2_and_3(make, shots):
    method = make()
    images, masks = shots(1, 2)
    features = method.extract(images[0])
    joined = torch.cat([features["layer2"], features["layer3"]], dim=1)
    conv = method.mid[0]
    expected = F.relu(F.conv2d(joined, conv.weight, conv.bias, padding=2, dilation=2))
    torch.testing.assert_close(method.encode_query(features).mid, expected)
    cells = foreground_cells(masks[0], (9, 9))
    for k, guide in enumerate(method.encode_shots(features, masks[0])["vectors"]):
        pooled = expected[k][:, cells[k, 0] > 0].sum(1) / (float(cells[k].sum()) + 5e-4)
        torch.testing.assert_close(guide[0], pooled, atol=1e-5, rtol=1e-4)


def test_a_score_is_comparison_then_refinement_and_ends_at_the_images_size(make, shots, encode):
    method = make(refinement=Refinement(iterations=2))
    images, masks = shots(1, 1)
    query = method.extract(shots(1, 1, seed=1)[0][0])
    state = method.encode_support(encode(method, images, masks))
    mid, conv = method.mid.of(query), method.comparison.conv
    joined = concatenated(mid, state.guides["vectors"])
    compared = F.relu(F.conv2d(joined, conv.weight, conv.bias, padding=2, dilation=2))
    logits = method.trunk(compared)
    for _ in range(2):
        logits = method.trunk(compared, logits.softmax(1))
    expected = F.interpolate(logits, size=(65, 65), mode="bilinear", align_corners=True)
    torch.testing.assert_close(method.segment(query, state), expected, atol=1e-5, rtol=1e-4)


def test_attention_weighs_the_compared_maps_of_the_shots(make, shots, encode):
    method = make(fusion=ShotAttention(), refinement=Refinement(iterations=0))
    images, masks = shots(1, 3)
    query = method.extract(shots(1, 1, seed=1)[0][0])
    state = method.encode_support(encode(method, images, masks))
    assert state.scored == 1
    mid = method.mid.of(query)
    vectors = method.encode_shots(method.extract(images[0]), masks[0])["vectors"]
    weights = method.attention(mid.expand(3, -1, -1, -1), vectors, 3)[0]
    assert float(weights.detach().std()) > 0
    compared = sum(weights[k] * method.comparison(mid, vectors[[k]]) for k in range(3))
    expected = F.interpolate(method.trunk(compared), size=(65, 65), mode="bilinear", align_corners=True)
    torch.testing.assert_close(method.segment(query, state), expected, atol=1e-5, rtol=1e-4)


def test_a_method_without_attention_refuses_the_fusion_that_needs_it(make, pfenet, shots, encode):
    for method in (make(), pfenet):
        method.fusion = ShotAttention()
        with pytest.raises(
            ValueError, match=f"{type(method).__name__} cannot use the fusion 'attention': choose"
        ):
            method.encode_support(encode(method, *shots(1, 2)))


def test_the_loss_is_the_cross_entropy_of_one_decoding_from_the_pairs_history(make, shots):
    method = make(history_reset=0.0, mid_dropout=0.0, head_dropout=0.0).train()
    images, masks = shots(2, 2)
    ids = torch.tensor([11, 12])
    batch = method.encode_episodes(episodes_of(images, masks, ids))
    vectors = method.encode_shots(batch.support.features, masks[:, 0])["vectors"]
    compared = method.comparison(method.mid.of(batch.query), vectors)
    history = None
    for _ in range(3):
        logits = method.trunk(compared, history)
        full = F.interpolate(logits, size=(65, 65), mode="bilinear", align_corners=True)
        expected = F.cross_entropy(full, masks[:, 1].long(), ignore_index=255)
        found = method.training_losses(batch)
        assert set(found.terms) == {"query"}
        torch.testing.assert_close(found.total, expected, atol=1e-4, rtol=1e-4)
        history = logits.softmax(1)
    assert len(method.history) == 2


@pytest.mark.parametrize("fusion", [MeanVector(), ScoreAverage(), ShotAttention()], ids=lambda f: f.kind)
def test_several_shots_train_as_they_are_joined(make, shots, fusion):
    method = make(fusion=fusion, refinement=Refinement(iterations=0))
    images, masks = shots(1, 3)
    batch = method.encode_episodes(episodes_of(images, masks))
    method.fusion = fusion if isinstance(fusion, ShotAttention) else MeanVector()
    logits = method.segment(batch.query, method.encode_support(batch.support))
    expected = F.cross_entropy(logits, masks[:, 2].long(), ignore_index=255)
    torch.testing.assert_close(method.training_losses(batch).total, expected, atol=1e-5, rtol=1e-4)


def concatenated(maps, vectors):
    size = maps.shape[-2:]
    expanded = [v[..., None, None].expand(-1, -1, *size) for v in vectors.unbind(1)]
    return torch.cat([maps.expand(len(vectors), -1, -1, -1), *expanded], dim=1)


@pytest.mark.parametrize(("vectors", "dilation", "size"), [(1, 1, (5, 7)), (2, 2, (6, 5)), (3, 2, (2, 1))])
def test_a_guided_convolution_is_that_of_the_concatenated_maps(vectors, dilation, size):
    torch.manual_seed(0)
    conv = GuidedConv(4, 6, vectors=vectors, dilation=dilation)
    maps, guide = torch.randn(3, 4, *size), torch.randn(3, vectors, 4)
    joined = concatenated(maps, guide)
    expected = F.conv2d(joined, conv.weight, conv.bias, padding=dilation, dilation=dilation)
    torch.testing.assert_close(conv(maps, guide), expected, atol=1e-5, rtol=1e-5)
    one = F.conv2d(concatenated(maps[:1], guide), conv.weight, conv.bias, padding=dilation, dilation=dilation)
    torch.testing.assert_close(conv(maps[:1], guide), one, atol=1e-5, rtol=1e-5)


def test_shots_weigh_by_a_softmax_of_the_pooled_branch():
    torch.manual_seed(0)
    branch = ShotWeights(4)
    maps, guide = torch.randn(6, 4, 5, 5), 3 * torch.randn(6, 1, 4)
    found = branch(maps, guide, 3)
    assert found.shape == (2, 3)
    for b in range(2):
        strengths = []
        for k in range(3):
            one = concatenated(maps[[3 * b + k]], guide[[3 * b + k]])
            hidden = F.relu(F.conv2d(one, branch.conv.weight, branch.conv.bias, padding=1))
            hidden = F.max_pool2d(F.pad(hidden, (1, 1, 1, 1), value=float("-inf")), 3, stride=1)
            strengths.append(branch.weigh(hidden).mean())
        expected = torch.stack(strengths).exp() / torch.stack(strengths).exp().sum()
        torch.testing.assert_close(found[b], expected, atol=1e-5, rtol=1e-5)
    assert float(found.detach().std()) > 1e-3  # weights that differ


@pytest.fixture
def trunk():
    torch.manual_seed(0)
    trunk = IterativeTrunk(4, dropout=0.0).eval()
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return trunk


def conv(layer, maps, rate=1):
    return F.conv2d(maps, layer.weight, layer.bias, padding=rate * (layer.kernel_size[0] // 2), dilation=rate)


def test_a_residual_block_adds_two_convolutions_with_a_relu_before_each():
    torch.manual_seed(0)
    block, maps, history = ResidualBlock(4, extra=2), torch.randn(2, 4, 5, 5), torch.rand(2, 2, 5, 5)
    inner = conv(block.first, F.relu(torch.cat([maps, history], dim=1)))
    torch.testing.assert_close(block(maps, history), maps + conv(block.second, F.relu(inner)))


def test_the_pyramid_is_global_then_1x1_then_the_rates():
    torch.manual_seed(0)
    aspp, maps = ASPP(3), torch.randn(2, 3, 20, 21)
    parts = aspp(maps).split(3, dim=1)
    pooled = conv(aspp.branches[0], maps.mean((2, 3), keepdim=True))
    torch.testing.assert_close(parts[0], F.relu(pooled).expand(-1, -1, 20, 21))
    for part, layer, rate in zip(parts[1:], aspp.branches[1:], (1, 6, 12, 18), strict=True):
        torch.testing.assert_close(part, F.relu(conv(layer, maps, rate)))


def test_dropout_of_the_pyramid_falls_on_each_of_its_five_branches_alone(make):
    torch.manual_seed(0)
    method = make(aspp_dropout=0.5, head_dropout=0.0, mid_dropout=0.0)
    aspp, maps = method.trunk.aspp, torch.rand(40, 8, 5, 5) + 1
    for branch in aspp.branches:
        nn.init.constant_(branch.weight, 1.0)
    plain, dropped = aspp.eval()(maps), aspp.train()(maps)
    kept = dropped != 0
    assert torch.equal(kept.flatten(2).all(dim=2), kept.flatten(2).any(dim=2))  # whole channels
    torch.testing.assert_close(dropped[kept], 2 * plain[kept])
    branches = kept[:, :, 0, 0].unflatten(1, (5, 8)).float()
    assert bool(((branches.mean(dim=(0, 2)) - 0.5).abs() < 0.15).all())
    assert not torch.equal(branches[:, 1], branches[:, 2])


def test_normal_initial_weights_have_a_deviation_of_a_hundredth_in_the_head_and_there_alone(make_method):
    fusion = ShotAttention()
    normal = make_method(CANetConfig, channels=64, initialisation="normal", fusion=fusion)
    usual = make_method(CANetConfig, channels=64, fusion=fusion)
    for name, weight in normal.named_parameters():
        if not name.startswith("backbone.") and weight.numel() > 1000:
            assert float(weight.std()) == pytest.approx(0.01, rel=0.1), name
            assert abs(float(weight.mean())) < 0.002, name
    for (name, one), two in zip(usual.state_dict().items(), normal.state_dict().values(), strict=True):
        assert torch.equal(one, two) == (name.startswith("backbone.") or not name.endswith("weight")), name


def plain_feedback(method, image, supports, weights, iterations, scales):
    """Every iteration segments each scale under each shot; the softmax of the sum is fed back."""
    history = None
    for _ in range(iterations + 1):
        total = 0
        for scale in scales:
            scaled = F.interpolate(image, scale_factor=scale, mode="bilinear", align_corners=False)
            maps = method.encode_query(method.backbone(scaled))
            each = [method.iterate(maps, guide, history) for guide in supports]
            fused = sum(weight * logits for weight, logits in zip(weights, each, strict=True))
            total = total + F.interpolate(fused, size=image.shape[-2:], mode="bilinear", align_corners=False)
        history = total.softmax(dim=1)
    return total


@pytest.mark.parametrize("config", [CANetConfig, SCLCANetConfig])
@pytest.mark.parametrize("scales", [(0.7, 1.0, 1.3), (0.5,)])
def test_with_scales_the_sum_over_shots_and_scales_is_fed_back(make_method, shots, encode, config, scales):
    refinement = Refinement(iterations=2, image_scales=scales)
    method = make_method(config, refinement=refinement, fusion=ScoreAverage())
    torch.manual_seed(0)
    for module in method.trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # so that what is fed back shows
    images, masks = shots(2, 3)
    queries = shots(2, 1, seed=1)[0][:, 0, :, :60]
    with torch.no_grad():
        found = method(queries, images, masks)
        for b in range(2):
            guides = method.encode_shots(method.backbone(images[b]), masks[b])
            each = [guides.select(slice(k, k + 1)) for k in range(3)]
            expected = plain_feedback(method, queries[b : b + 1], each, [1 / 3] * 3, 2, scales)
            torch.testing.assert_close(found[b : b + 1], expected, atol=1e-5, rtol=1e-4)
        assert found.shape == (2, 2, 60, 65)


def test_each_of_several_ways_is_fed_back_on_its_own(make_method, shots):
    method = make_method(SCLCANetConfig, refinement=Refinement(iterations=1, image_scales=(0.7, 1.0)))
    images, masks = shots(1, 2)
    query, own = shots(1, 1, seed=1)[0][0], torch.tensor([1, 2], dtype=torch.uint8).view(1, 2, 1, 1)
    with torch.no_grad():
        together = method(query, images, torch.where(masks == 1, own, masks), way_of=(1, 2))
        for way in (0, 1):
            alone = method(query, images[:, way : way + 1], masks[:, way : way + 1])
            margin = alone[:, 1] - alone[:, 0]
            torch.testing.assert_close(together[:, 1 + way] - together[:, 0], margin, atol=1e-5, rtol=1e-4)


def test_images_of_a_support_set_may_differ_in_size(make_method, shots, encode):
    method = make_method(SCLCANetConfig, refinement=Refinement(iterations=0, image_scales=(1.0,)))
    images, masks = shots(1, 3)
    same = method.encode_support(encode(method, images, masks))
    each = [encode(method, images[:, k : k + 1], masks[:, k : k + 1]) for k in range(3)]
    ragged = method.encode_support(RaggedShots(shots=tuple(each)))
    torch.testing.assert_close(ragged.weights, same.weights)
    torch.testing.assert_close(ragged.guides["vectors"], same.guides["vectors"])
    smaller = encode(method, images[:, 1:2, :, :50, :41], masks[:, 1:2, :50, :41])
    mixed = method.encode_support(RaggedShots(shots=(each[0], smaller)))
    assert torch.equal(mixed.guides["vectors"][0], ragged.guides["vectors"][0])
    assert mixed.weights.shape == (1, 2)
    with pytest.raises(ValueError, match="in sets of one image"):
        RaggedShots(shots=(encode(method, images, masks),))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_scales": (0.0, 1.0)}, "refinement.image_scales must be different numbers above 0"),
        ({"image_scales": (1.0, 1.0)}, "refinement.image_scales must be different numbers above 0"),
        ({"image_scales": (0.7,), "stop_early": True}, "give it or image_scales"),
    ],
)
def test_scales_that_cannot_be_used_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Refinement(**fields)


def test_features_without_the_scales_are_refused(make_method, shots, encode):
    method = make_method(CANetConfig, refinement=Refinement(image_scales=(0.7,)))
    state = method.encode_support(encode(method, *shots(1, 1)))
    with pytest.raises(ValueError, match=r"not read at scale 0\.7 of their images: take them from"):
        method.segment(method.backbone(shots(1, 1)[0][0]), state)


def test_an_iteration_hears_the_history_at_the_maps_size_and_zeros_without(trunk):
    compared = torch.randn(2, 4, 7, 7)
    history = torch.rand(2, 2, 13, 13)
    small = F.interpolate(history, size=(7, 7), mode="bilinear", align_corners=True)
    expected = trunk.after_entry(trunk.entry(compared, small))
    torch.testing.assert_close(trunk(compared, history), expected)
    zeros = trunk.after_entry(trunk.entry(compared, torch.zeros(2, 2, 7, 7)))
    torch.testing.assert_close(trunk(compared), zeros)
    assert not torch.allclose(zeros, expected)


def by_hand(trunk, compared, iterations):
    logits = [trunk(compared)]
    for _ in range(iterations):
        logits.append(trunk(compared, logits[-1].softmax(1)))
    return logits


@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_refinement_feeds_each_answer_back(trunk, iterations):
    compared = torch.randn(3, 4, 6, 6)
    with torch.no_grad():
        expected = by_hand(trunk, compared, iterations)[-1]
        torch.testing.assert_close(Refinement(iterations=iterations).run(trunk, compared), expected)


def test_an_early_stop_keeps_the_scores_of_the_pairs_whose_mask_stays(trunk):
    compared = torch.linspace(0.3, 12, 12).view(-1, 1, 1, 1) * torch.randn(12, 4, 6, 6)
    with torch.no_grad():
        trunk.entry.first.weight[:, 4:] *= 3  # make it listen to its history, and undecided
        logits = trunk(compared)
        trunk.classifier[-1].bias[1] -= (logits[:, 1] - logits[:, 0]).median()
        answers = by_hand(trunk, compared, 4)
        found = Refinement(iterations=4, stop_early=True).run(trunk, compared)
    last = []
    for i in range(12):
        stop = 0
        while stop < 4:
            stop += 1
            if torch.equal(answers[stop][i].argmax(0), answers[stop - 1][i].argmax(0)):
                break
        last.append(stop)
        torch.testing.assert_close(found[i], answers[stop][i], atol=1e-4, rtol=1e-4)
    assert len(set(last)) > 1  # some pairs stopped before others


IDS = torch.tensor([5, 2**62, 7])
LIKE = torch.zeros(3, 4, 6, 5)


def answers(seed=0):
    return 3 * torch.randn(3, 2, 6, 5, generator=torch.Generator().manual_seed(seed))


def filled(reset=0.0):
    history = PredictionHistory(reset)
    history.remember(IDS, answers())
    return history


def test_an_unknown_or_unnamed_pair_has_a_history_of_zeros():
    history = filled()
    assert history.recall(torch.tensor([1, 2, 3]), LIKE).abs().max() == 0
    assert history.recall(None, LIKE).shape == (3, 2, 6, 5)
    assert history.recall(None, LIKE).abs().max() == 0


def test_the_history_is_the_softmax_of_the_pairs_last_answer_at_the_maps_size_and_of_a_copy_its_own():
    history = filled()
    torch.testing.assert_close(history.recall(IDS, LIKE), answers().softmax(1), atol=1e-3, rtol=0)
    copied = copy.deepcopy(history)
    history.remember(IDS[1:], answers(1)[1:])
    torch.testing.assert_close(copied.recall(IDS, LIKE), answers().softmax(1), atol=1e-3, rtol=0)
    expected = torch.cat([answers()[:1], answers(1)[1:]]).softmax(1)
    torch.testing.assert_close(history.recall(IDS, LIKE), expected, atol=1e-3, rtol=0)
    large = F.interpolate(expected, size=(11, 9), mode="bilinear", align_corners=True)
    torch.testing.assert_close(history.recall(IDS, torch.zeros(3, 4, 11, 9)), large, atol=1e-3, rtol=0)
    back = IDS.flip(0)
    torch.testing.assert_close(history.recall(back, LIKE), expected.flip(0), atol=1e-3, rtol=0)
    assert len(history) == 3


@pytest.mark.parametrize("reset", [0.0, 0.7, 0.9, 1.0])
def test_a_history_is_reset_with_the_given_probability(reset):
    history = filled(reset)
    torch.manual_seed(0)
    zeros = sum(int((history.recall(IDS, LIKE).abs().amax(dim=(1, 2, 3)) == 0).sum()) for _ in range(400))
    assert zeros / 1200 == pytest.approx(reset, abs=0.04)


def test_resets_follow_torchs_seed_and_do_not_happen_in_eval_mode():
    history = filled(0.5)
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(torch.stack([history.recall(IDS, LIKE) for _ in range(5)]))
    assert torch.equal(*draws)
    assert len(draws[0].amax(dim=(2, 3, 4)).unique()) > 2
    history.eval()
    assert bool((history.recall(IDS, LIKE).amax(dim=(1, 2, 3)) > 0).all())


def test_nothing_is_kept_in_eval_mode_or_without_names():
    history = PredictionHistory(0.7).eval()
    history.remember(IDS, answers())
    history.train().remember(None, answers())
    assert len(history) == 0
    assert history.state_dict() == {}


def test_a_state_dict_carries_the_history_exactly():
    history = filled()
    other = torch.nn.ModuleDict({"history": PredictionHistory(0.0)})
    other.load_state_dict({f"history.{key}": value for key, value in history.state_dict().items()})
    assert torch.equal(other["history"].recall(IDS, LIKE), history.recall(IDS, LIKE))
    other.load_state_dict({})
    assert len(other["history"]) == 0


def test_iterations_below_0_and_a_reset_that_is_no_probability_are_refused():
    with pytest.raises(ValueError, match="iterations must be 0 or more, got -1"):
        Refinement(iterations=-1)
    with pytest.raises(ValueError, match=r"probability in \[0, 1\], got 1.5"):
        PredictionHistory(1.5)
