"""PMMs' mixtures and maps by hand; the contract suite takes it up by its registration."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.fusion import AllVectors
from fewseg.methods.losses import cross_entropy_full_size
from fewseg.methods.pmms import PMMsConfig, far_apart, maximisation, mixture, p_conv, p_match
from fewseg.methods.rpmms import RPMMsConfig
from small_segmenters import episodes_of


@pytest.fixture
def pmms(make_method):
    return make_method(PMMsConfig)


def test_a_mixture_is_fitted_as_by_plain_steps():
    torch.manual_seed(0)
    cells, weights = torch.rand(1, 9, 4), torch.tensor([[1.0, 1, 0, 1, 0.5, 1, 1, 0, 1]])
    unit = F.normalize(cells[0], dim=1)
    vectors = far_apart(unit[None], weights, 2)[0]
    for step in range(4):
        sums, totals, source = [0, 0], [0, 0], unit if step < 3 else cells[0]
        for p in range(9):
            density = torch.stack([torch.exp(20 * F.cosine_similarity(unit[p], v, dim=0)) for v in vectors])
            share = density / density.sum() * weights[0, p]
            for k in range(2):
                sums[k], totals[k] = sums[k] + share[k] * source[p], totals[k] + share[k]
        vectors = torch.stack([s / t for s, t in zip(sums, totals, strict=True)])
    torch.testing.assert_close(mixture(cells, weights, 2, 20.0, 4)[0], vectors)


def test_more_components_than_cells_and_no_cell_at_all_are_finite():
    cells = torch.rand(3, 5, 4)
    weights = torch.tensor([[0.0, 1, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]])
    found = mixture(cells, weights, 3, 20.0, 5)
    torch.testing.assert_close(found[0], cells[0, 1].expand(3, -1))
    assert bool(found.isfinite().all())
    assert bool((found[2] == 0).all())


def test_an_empty_component_keeps_its_vector():
    belongs = torch.tensor([[[1.0, 0], [1, 0]]])
    vectors = torch.tensor([[[9.0, 9], [5, 5]]])
    found = maximisation(torch.tensor([[[1.0, 2], [3, 4]]]), belongs, vectors)
    assert found.tolist() == [[[2, 3], [5, 5]]]


def test_components_start_far_apart():
    cells = F.normalize(torch.tensor([[[1.0, 0], [1, 0.1], [1, 0.2], [0, 1], [0.5, 0.5]]]), dim=2)
    start = far_apart(cells, torch.tensor([[1.0, 1, 1, 1, 0]]), 2)[0]
    assert torch.equal(start[0], cells[0, 2])
    assert torch.equal(start[1], cells[0, 3])


def test_every_foreground_vector_is_matched_and_the_matches_added(pmms, shots):
    images, masks = shots(1, 2)
    features = pmms.extract(images[0])
    maps, vectors = pmms.encode_query(features).mid, pmms.encode_shots(features, masks[0])["vectors"]
    each = sum(pmms.comparison(maps, vectors[:, k : k + 1]) for k in range(3))
    for repeated in (vectors, vectors.repeat(1, 2, 1)):
        found = p_match(pmms.comparison, maps, repeated, 3)
        torch.testing.assert_close(found, each, atol=1e-5, rtol=1e-4)


def test_the_components_classify_each_cell_of_the_query():
    torch.manual_seed(0)
    maps, background, foreground = torch.rand(1, 8, 5, 6), torch.rand(1, 2, 8), torch.rand(1, 3, 8)
    found = p_conv(maps, background.repeat(1, 2, 1)[:, :3], foreground, 20.0)
    for i, j in ((0, 0), (4, 5)):
        every = torch.cat([background[0], background[0, :1], foreground[0]])
        chance = torch.softmax(20 * F.cosine_similarity(every, maps[:, :, i, j], dim=1), dim=0)
        torch.testing.assert_close(found[0, :, i, j], torch.stack([chance[:3].sum(), chance[3:].sum()]))


def test_each_stage_reads_the_answer_before_it_and_adds_to_it(make_method, shots):
    model = make_method(RPMMsConfig, earlier=(1, 2), components=3)
    images, masks = shots(1, 1)
    features = model.extract(images[0])
    query, guides = model.encode_query(features), model.encode_shots(features, masks[0])
    assert [guides[f"vectors{name}"].shape[1] for name in ("_0", "_1", "")] == [1, 2, 3]
    for trunk in (*model.trunks, model.trunk):
        torch.nn.init.normal_(trunk.classifier[-1].bias)  # or all stages would answer nearly alike
    answer = None
    stages = [("_0", model.comparisons[0], model.trunks[0]), ("_1", model.comparisons[1], model.trunks[1])]
    stages.append(("", model.comparison, model.trunk))
    for k, (name, comparison, trunk) in enumerate(stages):
        vectors, background = guides[f"vectors{name}"], guides[f"background{name}"]
        matched = sum(comparison(query.mid, vectors[:, i : i + 1]) for i in range(k + 1))
        extra = [p_conv(query.mid, background, vectors, 20.0)]
        extra += [] if answer is None else [torch.softmax(answer, dim=1)]
        entered = trunk.entry(matched, torch.cat(extra, dim=1))
        own = trunk.classifier(trunk.aspp(trunk.blocks(entered)))
        answer = own if answer is None else answer + own
        torch.testing.assert_close(model.stages(query, guides)[k], answer, atol=1e-5, rtol=1e-4)
    assert torch.equal(model.score(query, guides), model.stages(query, guides)[-1])


def test_every_stage_of_the_stack_has_a_loss(make_method, shots):
    model = make_method(RPMMsConfig, deep_weight=0.5)
    encoded = model.encode_episodes(episodes_of(*shots(2, 3)))
    found = model.training_losses(encoded)
    joined = AllVectors().join(
        model.encode_shots(encoded.support.features, encoded.support.masks.flatten(0, 1)), 2
    )
    one, two, last = (
        cross_entropy_full_size(logits, encoded.query_masks)
        for logits in model.stages(model.encode_query(encoded.query), joined)
    )
    torch.testing.assert_close(found.total, last + 0.5 * (one + two) / 2)


def test_numbers_out_of_range_are_refused():
    for name in ("components", "iterations"):
        with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
            PMMsConfig(**{name: 0})
    with pytest.raises(ValueError, match="kappa must be above 0, got nan"):
        PMMsConfig(kappa=float("nan"))
    with pytest.raises(ValueError, match="earlier must be one or more numbers of prototypes from 1"):
        RPMMsConfig(earlier=(0,))
