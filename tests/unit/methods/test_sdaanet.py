"""SD-AANet: gates, teachers, attention and losses, each as its equation has it."""

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.fusion import MeanVector
from fewseg.methods.sdaanet import (
    AffinityModule,
    ChannelGate,
    CompoundedGate,
    IntegralTeacher,
    NoAttention,
    NoDistillation,
    NoGate,
    PrintedIntegralTeacher,
    PrintedSeparateTeachers,
    PrototypeTeacher,
    PyramidPooling,
    SDAANetConfig,
    SeparateTeachers,
    SupervisedAttention,
    UnitTeachers,
)
from fewseg.ops.masks import foreground_cells
from fewseg.types import Guides
from small_segmenters import episodes_of


@pytest.fixture
def make(make_method):
    return lambda **changes: make_method(SDAANetConfig, **changes)


def pooled(maps, masks):
    """Mean over the foreground cells, with the area's constant."""
    cells = foreground_cells(masks, tuple(maps.shape[-2:]))
    return (maps * cells).sum((2, 3)) / (cells.sum((2, 3)) + 5e-4)


def kl(teacher, student):
    return (teacher * (teacher / student.softmax(-1)).log()).sum(-1)


def test_the_query_is_the_mean_of_the_queries_gated_by_each_shot(make, shots):
    """Eq. 3 and 8, on maps, against the multiplier that the model uses."""
    method = make()
    images, masks = shots(1, 4)
    features = method.extract(images[0])
    found = method.pool(features, masks[0])
    query = method.encode_query(features).mid[:1]
    state = method.encode_support(
        method.encode_episodes(episodes_of(images[:, [0, 1, 2, 3, 3]], masks[:, [0, 1, 2, 3, 3]])).support
    )
    each = [(v[None, :, None, None] * query + query) / 2 for v in found.values]
    multiplier = method.query_multiplier(state.guides)
    torch.testing.assert_close(query * multiplier[..., None, None], sum(each) / 4)
    assert float(found.values.detach().std()) > 1e-3


def test_a_prototype_is_pooled_from_the_gated_support_feature(make, shots):
    method = make()
    images, masks = shots(1, 2)
    found = method.pool(method.extract(images[0]), masks[0])
    torch.testing.assert_close(found.raw, pooled(found.mid, masks[0]))
    torch.testing.assert_close(found.values, method.gate(found.raw))
    gated = (found.values[..., None, None] * found.mid + found.mid) / 2
    torch.testing.assert_close(found.prototypes, pooled(gated, masks[0]))


@pytest.mark.parametrize("count", [1, 3])
def test_the_compounded_gate_multiplies_by_every_shot_and_by_their_mean_again(count):
    values = torch.rand(count, 6)
    gate = CompoundedGate()
    found = gate.multiplier(MeanVector().join(Guides(maps=gate.kept(values)), count))[0]
    expected = torch.ones(6)
    for v in values:
        expected = expected * (v + 1) / 2
    expected = expected * (((values + 1) / 2).mean(dim=0) + 1) / 2
    torch.testing.assert_close(found, expected)


TEACHERS = [SeparateTeachers, IntegralTeacher, PrintedSeparateTeachers, PrintedIntegralTeacher]


def teaching(shots=3):
    generator = torch.Generator().manual_seed(0)
    gates = 0.5 + 0.5 * torch.rand(2, shots, 5, generator=generator)
    students = torch.randn(2, shots, 5, generator=generator)
    return students, gates, torch.randn(2, 5, generator=generator)


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_teacher_is_of_each_shot_or_of_all_and_as_printed_of_the_query_alone(kind):
    students, gates, query = teaching()
    own = students.softmax(-1)
    if kind in (IntegralTeacher, PrintedIntegralTeacher):
        own, gates = (values.mean(1, keepdim=True).expand_as(values) for values in (own, gates))
    losses = []
    for b, k in itertools.product(range(2), range(3)):
        seen = (gates[b, k] * query[b]).softmax(-1)
        printed = kind in (PrintedSeparateTeachers, PrintedIntegralTeacher)
        losses.append(kl(seen if printed else (own[b, k] + seen) / 2, students[b, k]))
    torch.testing.assert_close(kind().loss(students, teaching()[1], query), sum(losses) / 6)


def test_the_attentions_bottleneck_drops_whole_channels_of_its_output_in_training_only(make):
    module = make(attention=SupervisedAttention(dropout=1.0)).attention.train()
    maps, prototypes = torch.randn(2, 8, 9, 9), torch.randn(2, 8)
    empty = module.query_head.bias.view(1, 1, 1, 1).expand(2, 1, 9, 9)
    torch.testing.assert_close(module.query_map(maps, prototypes, learn=False), empty)
    answer = module.eval().query_map(maps, prototypes, learn=False)
    plain = make(attention=SupervisedAttention(dropout=0.0)).attention.train()
    assert torch.equal(plain.query_map(maps, prototypes, learn=False), answer)
    assert SupervisedAttention().dropout == 0.1


def test_the_released_teacher_is_the_mean_of_prototypes():
    students, gates, query = teaching()
    taught = (students + query[:, None]) / 2
    expected = F.kl_div((students / 5).log_softmax(-1), (taught / 5).softmax(-1), reduction="sum") / 30
    torch.testing.assert_close(PrototypeTeacher().loss(students, gates, query), 22.5 * expected)


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_detached_teacher_learns_nothing_from_the_query(kind):
    students, gates, query = teaching()
    for detach in (False, True):
        found = query.clone().requires_grad_()
        teacher = kind(detach=True) if detach else kind()
        teacher.loss(students.clone().requires_grad_(), gates, found).backward()
        assert (found.grad is None) == detach


def test_unit_teachers_see_directions_alone():
    students, gates, query = torch.randn(2, 3, 6), torch.rand(2, 3, 6), torch.randn(2, 6)
    teacher = UnitTeachers(length=4.0)
    found = teacher.loss(students, gates, query)
    expected = []
    for b, k in itertools.product(range(2), range(3)):
        student = 4 * students[b, k] / students[b, k].norm()
        gated = gates[b, k] * query[b]
        taught = (student.softmax(-1) + (4 * gated / gated.norm()).softmax(-1)) / 2
        expected.append(kl(taught, student))
    torch.testing.assert_close(found, torch.stack(expected).mean())
    torch.testing.assert_close(teacher.loss(0.01 * students, gates, 100 * query), found)


@pytest.mark.parametrize("count", [1, 3])
def test_the_losses_are_those_of_equation_12(make, shots, count):
    method = make(
        deep_weight=0.25, attention=SupervisedAttention(dropout=0.0), mid_dropout=0.0, head_dropout=0.0
    )
    images, masks = shots(2, count + 1)
    encoded = method.encode_episodes(episodes_of(images, masks))
    found = method.training_losses(encoded)
    logits = method.segment(encoded.query, method.encode_support(encoded.support))
    expected = F.cross_entropy(logits, masks[:, -1].long(), ignore_index=255)
    torch.testing.assert_close(found.terms["query"], expected, atol=1e-5, rtol=1e-4)
    support = method.pool(encoded.support.features, masks[:, :-1].flatten(0, 1))
    each = method.attention.support_logits(support.mid, support.raw, learn=False)
    full = F.interpolate(each, size=(65, 65), mode="bilinear", align_corners=True).unflatten(0, (2, count))
    each = [F.cross_entropy(full[:, k], masks[:, k].long(), ignore_index=255) for k in range(count)]
    torch.testing.assert_close(found.terms["support_attention"], sum(each) / count, atol=1e-5, rtol=1e-4)
    mid = method.encode_query(encoded.query).mid
    students, gates = (v.unflatten(0, (2, count)) for v in (support.prototypes, (support.values + 1) / 2))
    teachers = [(gates[:, k, :, None, None] * mid, students[:, k]) for k in range(count)]
    taught = [kl((s.softmax(-1) + pooled(m, masks[:, -1]).softmax(-1)) / 2, s).mean() for m, s in teachers]
    torch.testing.assert_close(found.terms["distillation"], sum(taught) / count, atol=1e-6, rtol=1e-3)
    terms = found.terms
    total = terms["query"] + 0.25 * terms["query_deep"]
    total = total + 50 * terms["distillation"] + 0.5 * terms["support_attention"]
    torch.testing.assert_close(found.total, total)


def test_training_watches_the_length_and_the_contrast_of_the_gated_prototypes(make, shots):
    method = make()
    images, masks = shots(2, 3)
    encoded = method.encode_episodes(episodes_of(images, masks))
    found = method.training_losses(encoded).watched
    prototypes = method.pool(encoded.support.features, masks[:, :-1].flatten(0, 1)).prototypes.detach()
    assert float(found["prototype_length"]) == pytest.approx(float(prototypes.norm(dim=1).mean()))
    entropy = torch.distributions.Categorical(logits=prototypes).entropy().mean()
    expected = 1 - float(entropy) / math.log(prototypes.shape[1])
    assert float(found["prototype_contrast"]) == pytest.approx(expected, abs=1e-6)
    assert not any(size.requires_grad for size in found.values())


def test_the_decoder_merges_prototype_gated_query_prior_and_attention(make, shots, encode):
    method = make()
    query = method.encode_query(method.extract(shots(1, 1, seed=1)[0][0]))
    guides = method.encode_support(encode(method, *shots(1, 2))).guides
    attention = method.attention.query_map(query.mid, guides["ungated"], learn=False)
    torch.testing.assert_close(method.attention_map(query, guides), attention)
    planes = torch.cat([method.query.prior_map(query, guides), attention], dim=1)
    maps = query.mid * method.query_multiplier(guides)[..., None, None]
    joined = torch.cat([maps, guides["vectors"][:, 0, :, None, None].expand_as(maps), planes], dim=1)
    first = F.relu(F.conv2d(joined, method.query.merge.convs[0].weight))  # the scale of the map itself
    merged = method.query.merge(maps, guides["vectors"], planes)
    torch.testing.assert_close(merged[0], first, atol=1e-5, rtol=1e-4)
    expected = method.trunk(merged, query.size, deep=False).logits
    torch.testing.assert_close(method.score(query, guides), expected)


def test_what_training_saw_of_a_query_mask_is_not_kept_for_an_answer(make, shots):
    """In training mode, without dropout: only statistics of the features may change, which have no mask."""
    images, masks = shots(2, 3)
    answers = []
    for query_masks in (masks[:, -1], 1 - masks[:, -1].clamp(max=1)):
        method = make(attention=SupervisedAttention(dropout=0.0), mid_dropout=0.0, head_dropout=0.0).train()
        batch = replace(episodes_of(images, masks), query_masks=query_masks)
        encoded = method.encode_episodes(batch)
        method.training_losses(encoded)
        answers.append(method.segment(encoded.query, method.encode_support(encoded.support)))
    assert torch.equal(*answers)


def test_a_query_without_its_class_teaches_nothing(make, shots):
    method = make()
    images, masks = shots(2, 3)
    masks[1, -1] = 0
    both = method.training_losses(method.encode_episodes(episodes_of(images, masks)))
    alone = method.training_losses(method.encode_episodes(episodes_of(images[:1], masks[:1])))
    torch.testing.assert_close(both.terms["distillation"], alone.terms["distillation"])
    masks[:, -1] = 0
    none = method.training_losses(method.encode_episodes(episodes_of(images, masks)))
    assert none.terms["distillation"] == 0


ABLATIONS = {
    "no attention": ({"attention": NoAttention()}, {"support_attention"}, {"attention"}),
    "no distillation": ({"distillation": NoDistillation()}, {"distillation"}, set()),
    "neither gate nor distillation": (
        {"gate": NoGate(), "distillation": NoDistillation()},
        {"distillation"},
        {"gate"},
    ),
    "integral teacher": ({"distillation": IntegralTeacher()}, set(), set()),
    "separate, as printed": ({"distillation": PrintedSeparateTeachers()}, set(), set()),
    "integral, as printed": ({"distillation": PrintedIntegralTeacher()}, set(), set()),
    "released": ({"gate": CompoundedGate(), "distillation": PrototypeTeacher()}, set(), set()),
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_row_of_tables_3_and_5_trains_and_segments_without_what_it_lacks(make, shots, name):
    changes, lost_terms, lost_parts = ABLATIONS[name]
    method, whole = make(**changes), make()
    encoded = method.encode_episodes(episodes_of(*shots(2, 3)))
    found, full = method.training_losses(encoded), whole.training_losses(encoded)
    assert set(full.terms) - set(found.terms) == lost_terms
    assert set(found.weights) <= set(found.terms)
    logits = method.segment(encoded.query, method.encode_support(encoded.support))
    assert logits.shape == (2, 2, 65, 65)
    assert bool(torch.isfinite(logits).all())
    if name == "neither gate nor distillation":
        guides = method.encode_support(encoded.support).guides
        assert torch.equal(guides["vectors"][:, 0], guides["ungated"])
        assert torch.equal(method.query_multiplier(guides), torch.ones(2, 8))
    parts = {name.split(".")[0] for name, _ in whole.named_parameters()}
    assert parts - {name.split(".")[0] for name, _ in method.named_parameters()} == lost_parts


def test_the_attentions_statistics_are_learned_by_losses_in_training_only(make, shots):
    method = make()
    batch = episodes_of(*shots(2, 2))
    norm = method.attention.pyramid.bottleneck_norm
    method.losses(batch)
    assert norm.running_mean.abs().max() == 0
    method.train().losses(batch)
    assert norm.running_mean.abs().max() > 0


def test_in_training_the_attention_learns_of_the_queries_and_then_of_the_supports(make, shots):
    method = make(attention=SupervisedAttention(dropout=0.0), mid_dropout=0.0, head_dropout=0.0).train()
    images, masks = shots(2, 3)
    encoded = method.encode_episodes(episodes_of(images, masks))
    expected = copy.deepcopy(method)
    found = method.training_losses(encoded)
    guides = expected.encode_support(encoded.support).guides
    support = expected.pool(encoded.support.features, masks[:, :-1].flatten(0, 1))
    query = expected.encode_query(encoded.query)
    expected.attention.query_map(query.mid, guides["ungated"], learn=True)
    mid, raw = (values.unflatten(0, (2, 2)) for values in (support.mid, support.raw))
    losses = []
    for k in range(2):  # the shots one after another, as in the released code
        logits = expected.attention.support_logits(mid[:, k], raw[:, k], learn=True)
        full = F.interpolate(logits, size=(65, 65), mode="bilinear", align_corners=True)
        losses.append(F.cross_entropy(full, masks[:, k].long(), ignore_index=255))
    torch.testing.assert_close(found.terms["support_attention"], sum(losses) / 2, atol=1e-5, rtol=1e-4)
    for (name, found), statistics in zip(method.named_buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(found, statistics, msg=name)


def test_a_gate_is_two_layers_and_a_sigmoid():
    torch.manual_seed(0)
    gate, prototypes = ChannelGate(8, reduction=4), torch.randn(3, 8)
    hidden = (prototypes @ gate.reduce.weight.T + gate.reduce.bias).clamp(min=0)
    expected = 1 / (1 + torch.exp(-(hidden @ gate.expand.weight.T + gate.expand.bias)))
    torch.testing.assert_close(gate(prototypes), expected)
    assert gate.reduce.weight.shape == (2, 8)
    assert ChannelGate(2).reduce.weight.shape == (1, 2)


def test_the_pyramid_joins_the_map_and_its_pooled_versions():
    torch.manual_seed(0)
    pooling, maps = PyramidPooling(4, 3).eval(), torch.randn(2, 4, 7, 9)
    for norm in (*pooling.norms, pooling.bottleneck_norm):
        torch.nn.init.normal_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    joined = [maps]
    for side, conv, norm in zip((1, 2, 3, 6), pooling.convs, pooling.norms, strict=True):
        pooled = conv(F.adaptive_avg_pool2d(maps, side))
        scale = (norm.running_var + 1e-5).rsqrt()
        pooled = (pooled - norm.running_mean[:, None, None]) * scale[:, None, None]
        joined.append(F.interpolate(F.relu(pooled), size=(7, 9), mode="bilinear", align_corners=True))
    found = F.conv2d(torch.cat(joined, 1), pooling.bottleneck.weight, padding=1)
    norm = pooling.bottleneck_norm
    expected = (found - norm.running_mean[:, None, None]) / (norm.running_var + 1e-5).sqrt()[:, None, None]
    torch.testing.assert_close(pooling(maps, learn=False), F.relu(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_the_pyramid_learns_the_statistics_of_its_batch(count):
    torch.manual_seed(0)
    pooling, maps = PyramidPooling(4, 3), torch.randn(count, 4, 7, 9)
    joined = [maps]
    for side, conv in zip((1, 2, 3, 6), pooling.convs, strict=True):
        pooled = conv(F.adaptive_avg_pool2d(maps, side))
        if count * side > 1:  # of one value there are no statistics: mean 0 and variance 1 are stored
            pooled = torch.nn.BatchNorm2d(3)(pooled)
        joined.append(F.interpolate(F.relu(pooled), size=(7, 9), mode="bilinear", align_corners=True))
    expected = torch.nn.BatchNorm2d(3)(F.conv2d(torch.cat(joined, 1), pooling.bottleneck.weight, padding=1))
    torch.testing.assert_close(pooling(maps, learn=True), F.relu(expected), atol=1e-4, rtol=1e-4)


def test_both_heads_read_the_same_affinity_of_map_and_prototype():
    torch.manual_seed(0)
    module, maps, prototypes = AffinityModule(4).eval(), torch.randn(2, 4, 6, 6), torch.randn(2, 4)
    joined = torch.cat([maps, prototypes[..., None, None].expand(-1, -1, 6, 6)], 1)
    hidden = F.relu(F.conv2d(joined, module.conv.weight, module.conv.bias, padding=1))
    assert hidden.shape[1] == 16
    found = module.pyramid(hidden, learn=False)
    support, query = module.support_head(found), module.query_head(found)
    assert (support.shape[1], query.shape[1]) == (2, 1)
    torch.testing.assert_close(module.support_logits(maps, prototypes, learn=False), support)
    torch.testing.assert_close(module.query_map(maps, prototypes, learn=False), query)
    one = module.query_map(maps[:1], prototypes, learn=False)
    torch.testing.assert_close(one[:1], query[:1])
