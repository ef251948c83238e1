"""Metrics, prototypes, and iterative query inference against Eq. 1-6, 12 and 13 written out."""

import math

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.fusion import IterativeInference, MeanVector
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.panet import PANetConfig
from fewseg.methods.prototypical import EMBEDDING, Cosine, Fidelity, SquaredEuclidean, mixed, pool_prototypes
from fewseg.methods.srpnet import SRPNetConfig
from fewseg.types import EncodedEpisodes, EncodedShots, Features, PrototypeState
from small_segmenters import built, small_backbone

SIDE, CELLS, CHANNELS = 17, 3, 6


METRICS = (Cosine(), Fidelity(), SquaredEuclidean())


def make_model(metric=None, fusion=None):
    backbone = small_backbone("layer2", "layer3", trainable=True)
    fields = {"levels": ("layer2", "layer3"), "channels": CHANNELS, "metric": metric or Fidelity()}
    model = built(SRPNetConfig(backbone=backbone, **fields))
    model.fusion = fusion or MeanVector()
    return model


def features(maps):
    return Features(maps={EMBEDDING: maps}, image_size=(SIDE, SIDE))


def make(episodes=2, way_of=(1, 1), seed=0):
    """Embedded support sets, whose classes lean to a direction each, and a query for each."""
    generator = torch.Generator().manual_seed(seed)
    ways, shots = max(way_of), len(way_of)
    coarse = torch.randint(0, ways + 1, (episodes, shots, 3, 3), generator=generator)
    for k, j in enumerate(way_of):
        coarse[:, k, 0, 0], coarse[:, k, 0, 1] = 0, j  # each shot shows its way and background
    masks = coarse.repeat_interleave(6, dim=2).repeat_interleave(6, dim=3)[..., :SIDE, :SIDE]
    masks = masks.to(torch.uint8).contiguous()
    masks[..., SIDE - 1, :] = 255
    lean = torch.randn(ways + 1, CHANNELS, generator=generator)
    maps = lean[coarse].permute(0, 1, 4, 2, 3).flatten(0, 1)
    maps = maps + 0.8 * torch.randn(maps.shape, generator=generator)
    query = torch.randn(episodes, CHANNELS, CELLS, CELLS, generator=generator)
    return EncodedShots(features=features(maps), masks=masks, way_of=tuple(way_of)), features(query)


def plain(maps, masks, way_of, align_corners):
    """SRPNet Eq. 1 and 2, a pixel at a time, on features at image size."""
    episodes, shots, height, width = masks.shape
    full = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=align_corners)
    full = full.unflatten(0, (episodes, shots))
    found = torch.zeros(episodes, 1 + max(way_of), maps.shape[1])
    for b in range(episodes):
        for j in range(1 + max(way_of)):
            means = []
            for k in range(shots):
                if j and way_of[k] != j:
                    continue
                places = [(y, x) for y in range(height) for x in range(width) if int(masks[b, k, y, x]) == j]
                if places:
                    means.append(sum(full[b, k, :, y, x] for y, x in places) / len(places))
            if means:
                found[b, j] = sum(means) / len(means)
    return found


def plain_start(support):
    return plain(support.features[EMBEDDING], support.masks, support.way_of, True)


def plain_scores(maps, prototypes, metric, alpha):
    """Alpha D of maps (n, C, h, w) with one set of prototypes (P, C)."""
    cells = maps.permute(0, 2, 3, 1).unsqueeze(3)
    if metric.kind == "squared-euclidean":
        found = -(cells - prototypes).square().sum(dim=4)
    else:
        found = F.cosine_similarity(cells, prototypes, dim=4)
        found = found.square() if metric.kind == "fidelity" else found
    return alpha * found.permute(0, 3, 1, 2)


def full_size(logits):
    return F.interpolate(logits, size=(SIDE, SIDE), mode="bilinear", align_corners=True)


def plain_rho(labels, masks, ways):
    ious = []
    for j in range(1, ways + 1):
        both = either = 0
        for predicted, true in zip(labels.flatten().tolist(), masks.flatten().tolist(), strict=True):
            if true != 255:
                both += predicted == j and true == j
                either += predicted == j or true == j
        ious.append(both / either if either else 1.0)
    return sum(ious) / ways


def plain_steps(support, b, metric, alpha, steps, rate):
    """Eq. 12: p_1 .. p_N, their losses on the supports and their rho; for one episode."""
    shots = support.shots
    maps = support.features[EMBEDDING].unflatten(0, (-1, shots))[b]
    current = plain_start(support)[b]
    if metric.kind != "squared-euclidean":
        current = torch.stack([p / p.norm() for p in current])
    sets, losses, rhos = [], [], []
    for _ in range(steps):
        current = current.detach().requires_grad_()
        logits = full_size(plain_scores(maps, current, metric, alpha))
        loss = F.cross_entropy(logits, support.masks[b].long(), ignore_index=255)
        (gradient,) = torch.autograd.grad(loss, current)
        current = (current - rate * gradient).detach()
        restored = full_size(plain_scores(maps, current, metric, alpha))
        sets.append(current)
        losses.append(float(F.cross_entropy(restored, support.masks[b].long(), ignore_index=255)))
        rhos.append(plain_rho(restored.argmax(dim=1), support.masks[b], support.ways))
    return torch.stack(sets), losses, rhos


CASES = [
    (Fidelity(), (1,), 0.01),
    (Fidelity(), (1, 2, 1), 0.01),
    (Cosine(), (1, 1), 0.01),
    (SquaredEuclidean(), (2, 1), 0.001),
]


@pytest.mark.parametrize(("metric", "way_of", "rate"), CASES)
def test_the_sets_and_their_weights_are_those_of_eq_12_written_out(metric, way_of, rate):
    support, _ = make(way_of=way_of)
    state = make_model(metric, IterativeInference(steps=4, rate=rate)).encode_support(support)
    assert state.sets.shape == (2, 4, 1 + max(way_of), CHANNELS)
    assert not bool(state.diverged.any())
    for b in range(2):
        sets, losses, rhos = plain_steps(support, b, metric, 20.0, 4, rate)
        torch.testing.assert_close(state.sets[b], sets, atol=1e-4, rtol=1e-3)
        assert state.weights[b].tolist() == pytest.approx(rhos, abs=0.01)
        assert losses[-1] < losses[0]  # the steps do what they are for
        assert min(rhos) > 0
        start = plain_start(support)[b]
        unit = start / start.norm(dim=1, keepdim=True)
        for p_0 in (start, unit):
            assert all(float((found - p_0).abs().max()) > 1e-4 for found in state.sets[b])


@pytest.mark.filterwarnings("ignore:iterative inference")
def test_without_the_guard_a_rate_that_is_too_large_takes_the_printed_steps():
    support, _ = make(way_of=(1, 2, 1))
    printed, guarded = (
        make_model(Fidelity(), IterativeInference(steps=4, rate=0.6, guard=guard)).encode_support(support)
        for guard in (False, True)
    )
    assert bool(guarded.diverged.any())
    assert torch.equal(printed.diverged, guarded.diverged)
    for b in range(2):
        sets, _, rhos = plain_steps(support, b, Fidelity(), 20.0, 4, 0.6)
        torch.testing.assert_close(printed.sets[b], sets, atol=1e-3, rtol=1e-2)
        assert printed.weights[b].tolist() == pytest.approx(rhos, abs=0.02)
        assert torch.equal(printed.sets[b], guarded.sets[b]) != bool(guarded.diverged[b])


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.kind)
def test_segmenting_is_the_rho_weighted_mean_of_the_sets_probabilities(metric):
    support, query = make(way_of=(1, 2, 2))
    model = make_model(metric, IterativeInference(steps=3, rate=0.01))
    state = model.encode_support(support)
    weights = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.9, 0.4]])
    shift = torch.randn(state.sets.shape, generator=torch.Generator().manual_seed(5))
    state = PrototypeState(
        sets=state.sets + 0.5 * shift,  # sets that differ in their answers
        weights=weights,
        present=state.present,
        vanished=state.vanished,
        diverged=state.diverged,
    )
    logits = model.segment(query, state)
    assert logits.shape == (2, 3, SIDE, SIDE)
    at_cells = logits[:, :, ::8, ::8]  # with aligned corners cells fall on pixels
    for b in range(2):
        total = torch.zeros(3, CELLS, CELLS)
        for n in range(3):
            maps = query[EMBEDDING][b : b + 1]
            total += weights[b, n] * plain_scores(maps, state.sets[b, n], metric, 20.0)[0].softmax(dim=0)
        assert torch.equal(at_cells[b].argmax(dim=0), total.argmax(dim=0))
        share = total / weights[b].sum()
        torch.testing.assert_close(at_cells[b].softmax(dim=0), share, atol=1e-4, rtol=1e-3)


def test_mixing_sets_that_rule_a_class_out_stays_finite():
    logits = torch.tensor([[500.0, -500.0], [500.0, -500.0]]).view(1, 2, 2, 1, 1)
    assert bool(torch.isfinite(mixed(logits, torch.ones(1, 2))).all())


def test_plain_inference_compares_with_the_pooled_prototypes():
    support, query = make(way_of=(1, 2, 1))
    model = make_model()
    state = model.encode_support(support)
    assert state.sets.shape == (2, 1, 3, CHANNELS)
    assert state.weights.tolist() == [[1.0], [1.0]]
    for b in range(2):
        torch.testing.assert_close(state.sets[b, 0], plain_start(support)[b], atol=1e-4, rtol=1e-4)
        expected = full_size(
            plain_scores(query[EMBEDDING][b : b + 1], plain_start(support)[b], Fidelity(), 20)
        )
        torch.testing.assert_close(model.segment(query, state)[b], expected[0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_grad_mode_around_changes_nothing_even_of_unembedded_features(mode):
    generator = torch.Generator().manual_seed(0)
    images, query = torch.rand(3, 3, SIDE, SIDE, generator=generator).split([2, 1])
    masks = torch.zeros(1, 2, SIDE, SIDE, dtype=torch.uint8)
    masks[..., 3:12, 2:13] = 1
    model = make_model(fusion=IterativeInference(steps=3, rate=0.01))

    def answer():
        support = EncodedShots(features=model.extract(images), masks=masks.clone())
        return model.segment(model.extract(query), model.encode_support(support))

    expected = answer().detach()
    with mode():
        found = answer()
    assert not found.requires_grad
    torch.testing.assert_close(found.clone(), expected, atol=1e-4, rtol=1e-4)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    "fusion", [MeanVector(), IterativeInference(steps=2, rate=0.01)], ids=lambda f: f.kind
)
@pytest.mark.parametrize(
    ("value", "what"), [(0, "way 2"), (2, "background")], ids=["no foreground", "no background"]
)
def test_a_class_that_no_support_shows_is_reported_once_and_answers_stay_finite(fusion, value, what):
    support, query = make(way_of=(1, 2, 2))
    masks = support.masks.clone()
    if value == 0:
        masks[masks == 2] = 0
    else:
        masks[masks == 0] = 1
    support = EncodedShots(features=support.features, masks=masks, way_of=support.way_of)
    model = make_model(Cosine(), fusion)
    with pytest.warns(RuntimeWarning, match=f"has no pixel of the {what}, which then wins nowhere"):
        state = model.encode_support(support)
    absent = 2 if value == 0 else 0
    assert state.present[:, absent].tolist() == [False, False]
    assert float(state.sets[:, :, absent].abs().max()) == 0  # it stays zero in every step
    shown = model.scores(model.prepared(query), state.sets[:, 0]).argmax(dim=1)
    assert absent in shown.unique().tolist()  # zero is near to signed features: it would win without the rule
    logits = model.segment(query, state)
    assert bool(torch.isfinite(logits).all())
    assert absent not in logits.argmax(dim=1).unique().tolist()  # it wins nowhere


@pytest.mark.parametrize("steps", [0, 2])
def test_centred_resizing_holds_for_pooling_iterating_segmenting_and_losses(steps):
    """PANet's released convention in every place, by torch's own resizing."""
    support, query = make(episodes=1)
    fusion = IterativeInference(steps=steps, rate=0.01)
    backbone = small_backbone("layer3", trainable=True)
    panet = built(PANetConfig(backbone=backbone, level="layer3", align_corners=False, fusion=fusion))

    def full(maps):
        return F.interpolate(maps, size=(SIDE, SIDE), mode="bilinear", align_corners=False)

    maps, masks = full(support.features[EMBEDDING]), support.masks[0]
    pooled = torch.stack(
        [torch.stack([maps[k][:, masks[k] == j].mean(dim=1) for k in (0, 1)]).mean(dim=0) for j in (0, 1)]
    )
    state = panet.encode_support(support)
    if steps == 0:
        torch.testing.assert_close(state.sets[0, 0], pooled, atol=1e-4, rtol=1e-4)
        logits = full(plain_scores(query[EMBEDDING], pooled, Cosine(), 20.0))
        torch.testing.assert_close(panet.segment(query, state), logits, atol=1e-3, rtol=1e-3)
        episodes = EncodedEpisodes(support=support, query=query, query_masks=masks[:1])
        expected = F.cross_entropy(logits, masks[:1].long(), ignore_index=255)
        found = panet.training_losses(episodes).terms["query"]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        return
    current = pooled / pooled.norm(dim=1, keepdim=True)
    for n in range(steps):
        current = current.detach().requires_grad_()
        restored = full(plain_scores(support.features[EMBEDDING], current, Cosine(), 20.0))
        F.cross_entropy(restored, masks.long(), ignore_index=255).backward()
        current = current - 0.01 * current.grad
        torch.testing.assert_close(state.sets[0, n], current.detach(), atol=1e-4, rtol=1e-3)


def test_the_matcher_iterates_too_and_has_the_levels_side_by_side():
    fusion = IterativeInference(steps=2, rate=0.01)
    matcher = built(MatcherConfig(backbone=small_backbone("layer2", "layer3"), fusion=fusion))
    generator = torch.Generator().manual_seed(0)
    maps = {
        "layer2": torch.randn(1, 4, 5, 5, generator=generator),
        "layer3": torch.randn(1, 2, 3, 3, generator=generator),
    }
    found = matcher.embed(Features(maps=maps, image_size=(SIDE, SIDE)))[EMBEDDING]
    deep = maps["layer3"] / maps["layer3"].norm(dim=1, keepdim=True)
    shallow = maps["layer2"] / maps["layer2"].norm(dim=1, keepdim=True)
    shallow = F.interpolate(shallow, size=(3, 3), mode="bilinear", align_corners=True)
    torch.testing.assert_close(found, torch.cat([deep, shallow], dim=1))
    support, query = make()
    state = matcher.encode_support(support)
    sets, _, rhos = plain_steps(support, 0, Cosine(), 20.0, 2, 0.01)
    torch.testing.assert_close(state.sets[0], sets, atol=1e-4, rtol=1e-3)
    assert state.weights[0].tolist() == pytest.approx(rhos, abs=0.01)
    assert matcher.segment(query, state).shape == (2, 2, SIDE, SIDE)


@pytest.fixture
def pair():
    """Two maps of six channels, each with three prototypes of its own, of all lengths."""
    generator = torch.Generator().manual_seed(0)
    maps = 3 * torch.randn(2, 6, 4, 5, generator=generator)
    return maps, 0.2 * torch.randn(2, 3, 6, generator=generator)


def compared(metric, maps, prototypes):
    return metric.compare(metric.prepare(maps), prototypes)


def cell_by_cell(maps, prototypes, distance):
    """One cell and one prototype at a time."""
    n, _, height, width = maps.shape
    found = torch.zeros(n, prototypes.shape[1], height, width)
    for i in range(n):
        for j in range(prototypes.shape[1]):
            for y in range(height):
                for x in range(width):
                    found[i, j, y, x] = distance(maps[i, :, y, x], prototypes[i, j])
    return found


def by_density_matrices(f, p):
    """SRPNet Eq. 5-6: F (p^T p) F^T of unit row vectors."""
    f, p = (f / f.norm()).view(1, -1), (p / p.norm()).view(1, -1)
    return float(f @ (p.T @ p) @ f.T)


def angle(f, p):
    return float((f * p).sum()) / math.sqrt(float((f * f).sum()) * float((p * p).sum()))


def negated_square(f, p):
    return -sum((a - b) ** 2 for a, b in zip(f, p, strict=True))


@pytest.mark.parametrize(
    ("metric", "distance"),
    [(Fidelity(), by_density_matrices), (Cosine(), angle), (SquaredEuclidean(), negated_square)],
)
def test_a_metric_is_that_of_each_cell_with_each_prototype(pair, metric, distance):
    found = compared(metric, *pair)
    torch.testing.assert_close(found, cell_by_cell(*pair, distance), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.kind)
def test_zero_prototypes_and_zero_cells_are_finite_with_finite_gradients(metric, pair):
    maps, prototypes = pair[0].clone(), pair[1].clone()
    maps[0, :, 0, 0] = 0
    prototypes[0, 1] = 0
    maps.requires_grad_()
    prototypes.requires_grad_()
    found = compared(metric, maps, metric.start(prototypes))
    assert bool(torch.isfinite(found).all())
    found.sum().backward()
    assert bool(torch.isfinite(maps.grad).all())
    assert bool(torch.isfinite(prototypes.grad).all())
    if metric.kind != "squared-euclidean":
        assert float(found.detach()[0, 1].abs().max()) == 0


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.kind)
def test_iteration_starts_where_nothing_has_changed(metric, pair):
    maps, prototypes = pair
    start = metric.start(prototypes)
    torch.testing.assert_close(compared(metric, maps, start), compared(metric, maps, prototypes))
    if metric.kind != "squared-euclidean":  # Eq. 5
        torch.testing.assert_close(start.norm(dim=2), torch.ones(2, 3))


SIZE = (17, 13)
GRID = (3, 4)
BOTH = pytest.mark.parametrize("align_corners", [True, False])


@pytest.fixture
def cases():
    """(ways, way_of) -> two episodes of random features and masks of every label, 255 included."""

    def make(ways, way_of, seed=0):
        generator = torch.Generator().manual_seed(seed)
        shots = len(way_of)
        maps = torch.randn(2 * shots, 5, *GRID, generator=generator)
        labels = torch.tensor([*range(1 + ways), 255], dtype=torch.uint8)
        coarse = torch.randint(0, len(labels), (2, shots, 6, 5), generator=generator)
        masks = labels[coarse].repeat_interleave(3, dim=2).repeat_interleave(3, dim=3)
        return maps, masks[..., : SIZE[0], : SIZE[1]].contiguous()

    return make


@BOTH
@pytest.mark.parametrize(
    ("ways", "way_of"), [(1, (1,)), (1, (1, 1, 1)), (2, (1, 2)), (2, (2, 1, 1)), (3, (1, 2, 2, 3, 2))]
)
def test_prototypes_of_any_ways_and_shots_are_the_plain_means(cases, ways, way_of, align_corners):
    maps, masks = cases(ways, way_of)
    found = pool_prototypes(maps, masks, way_of, align_corners=align_corners)
    torch.testing.assert_close(found.vectors, plain(maps, masks, way_of, align_corners), atol=1e-4, rtol=1e-4)
    assert bool(found.present.all())


def test_ignored_pixels_count_nowhere():
    maps = torch.zeros(1, 1, 3, 3)
    maps[..., 2] = 1000
    masks = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    masks[..., :4, :] = 1
    masks[..., 5:] = 255  # all that the last column of cells reaches
    found = pool_prototypes(maps, masks, (1,))
    assert float(found.vectors.abs().max()) == 0
    everything = pool_prototypes(maps, torch.full_like(masks, 255), (1,))
    assert float(everything.vectors.abs().max()) == 0
    assert not bool(everything.present.any())
    assert not bool(everything.vanished.any())


@pytest.mark.parametrize("lost", [0, 1])
def test_a_shot_without_a_class_takes_no_part_in_it_but_in_the_other(cases, lost):
    maps, masks = cases(1, (1, 1, 1))
    masks[:, 1][masks[:, 1] == lost] = 1 - lost
    found = pool_prototypes(maps, masks, (1, 1, 1))
    torch.testing.assert_close(found.vectors, plain(maps, masks, (1, 1, 1), True), atol=1e-4, rtol=1e-4)
    assert bool(found.present.all())


def test_what_no_image_shows_is_absent_and_zero():
    maps = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 2, 9, 9, dtype=torch.uint8)
    masks[0, 0, :4] = 1
    masks[0, 1, :4] = 2
    masks[1, 0] = (
        1  # no background in this image, nor in the next; way 2 is shown by the image of way 1 alone
    )
    masks[1, 0, :3] = 2
    masks[1, 1] = 255
    found = pool_prototypes(maps, masks, (1, 2))
    assert found.present.tolist() == [[True, True, True], [False, True, False]]
    assert float(found.vectors[1, [0, 2]].abs().max()) == 0
    assert float(found.vectors[1, 1].abs().max()) > 0


def test_one_pixel_pools_the_feature_around_it():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 4, 9, 9, generator=generator)
    masks = torch.zeros(1, 1, 65, 65, dtype=torch.uint8)
    masks[0, 0, 20, 35] = 1  # between the cells (2, 4), (2, 5), (3, 4) and (3, 5)
    found = pool_prototypes(maps, masks, (1,))
    y, x = 20 / 8 - 2, 35 / 8 - 4
    corners = [(2, 4, (1 - y) * (1 - x)), (2, 5, (1 - y) * x), (3, 4, y * (1 - x)), (3, 5, y * x)]
    expected = sum(weight * maps[0, :, row, column] for row, column, weight in corners)
    torch.testing.assert_close(found.vectors[0, 1], expected, atol=1e-4, rtol=1e-4)
    assert found.vanished.tolist() == [[True]]
    assert found.present.tolist() == [[True, True]]


def test_vanished_tells_too_small_things_shot_by_shot():
    maps = torch.zeros(6, 1, 9, 9)
    masks = torch.zeros(1, 6, 65, 65, dtype=torch.uint8)
    masks[0, 0, 10:14, 10:14] = 1  # between all cells
    masks[0, 1, 12:21, 12:21] = 1  # around the cell (2, 2)
    masks[0, 2, :, 30:60] = 1
    masks[0, 4, 12:18, 12:18] = 1  # a third of the cell (2, 2)
    masks[0, 5, 11:19, 11:19] = 1  # a little more than half of it
    found = pool_prototypes(maps, masks, (1,) * 6)  # the fourth has nothing that could vanish
    assert found.vanished.tolist() == [[True, False, False, False, True, False]]


def test_gradients_reach_the_features_and_bfloat16_is_pooled_in_float32(cases):
    maps, masks = cases(1, (1, 1))
    maps.requires_grad_()
    pool_prototypes(maps, masks, (1, 1)).vectors.sum().backward()
    assert bool((maps.grad.abs().sum(dim=1) > 0).any())
    assert pool_prototypes(maps.detach().bfloat16(), masks, (1, 1)).vectors.dtype == torch.float32
