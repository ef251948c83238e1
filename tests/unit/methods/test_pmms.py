"""PMMs' mixtures and maps by hand; the contract suite takes it up by its registration."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.pmms import PMMsConfig, far_apart, maximisation, mixture
from fewseg.types import Guides


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
    query, guides = pmms.encode_query(features), pmms.encode_shots(features, masks[0])
    each = [pmms.comparison(query.mid, guides["vectors"][:, k : k + 1]) for k in range(3)]
    torch.testing.assert_close(pmms.matched(query, guides), sum(each), atol=1e-5, rtol=1e-4)
    twice = Guides(maps={k: v.repeat(1, 2, 1) for k, v in guides.maps.items()})
    torch.testing.assert_close(pmms.matched(query, twice), sum(each), atol=1e-5, rtol=1e-4)


def test_the_components_classify_each_cell_of_the_query(pmms, shots):
    images, masks = shots(1, 1)
    features = pmms.extract(images[0])
    query, guides = pmms.encode_query(features), pmms.encode_shots(features, masks[0])
    found = pmms.classified(query, guides)
    for i, j in ((0, 0), (4, 5)):
        cell = query.mid[0, :, i, j]
        every = torch.cat([guides["background"][0], guides["vectors"][0]])
        chance = torch.softmax(20 * F.cosine_similarity(every, cell[None], dim=1), dim=0)
        torch.testing.assert_close(found[0, :, i, j], torch.stack([chance[:3].sum(), chance[3:].sum()]))


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="components and iterations must be 1 or more and kappa above 0"):
        PMMsConfig(components=0)
