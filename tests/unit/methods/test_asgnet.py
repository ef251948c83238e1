"""ASGNet's clusters and allocation by hand; the contract suite takes it up by its registration."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.asgnet import ASGNetConfig, allocated, clustered, number_of_regions, spread_seeds


@pytest.fixture
def asgnet(make_method):
    return make_method(ASGNetConfig, region_cells=2, regions=3)


def test_a_larger_object_has_more_prototypes_up_to_a_number():
    assert [number_of_regions(cells, 100, 5) for cells in (0, 99, 250, 5000)] == [0, 0, 2, 5]
    assert all(number_of_regions(cells, 1, 5) <= cells for cells in range(10))


def test_seeds_lie_deep_in_the_object_and_far_from_each_other():
    inside = torch.zeros(9, 13, dtype=torch.bool)
    inside[2:7, 1:12] = True
    places = inside.nonzero().float()
    seeds = places[spread_seeds(places, (~inside).nonzero().float(), 3)].tolist()
    assert [y for y, _ in seeds] == [4, 4, 4]
    columns = [x for _, x in seeds]
    assert min(abs(a - b) for i, a in enumerate(columns) for b in columns[:i]) >= 3


def test_a_centroid_is_the_mean_of_its_cells_by_the_distance_in_features_and_places():
    torch.manual_seed(0)
    cells, places, seeds = torch.rand(7, 3), torch.rand(7, 2) * 8, torch.tensor([1, 5])
    joined = torch.cat([cells, places / 4], dim=1)
    centroids = joined[seeds]
    for _ in range(3):
        q = torch.stack([torch.exp(-((joined - centroid) ** 2).sum(dim=1)) for centroid in centroids])
        centroids = torch.stack([(row[:, None] * joined).sum(dim=0) / row.sum() for row in q])
    torch.testing.assert_close(clustered(cells, places, seeds, 3, 4.0), centroids[:, :3])


def test_features_that_are_far_apart_leave_no_centroid_empty():
    cells = 1e3 * torch.eye(4)
    found = clustered(cells, torch.zeros(4, 2), torch.tensor([0, 2]), 10, 1.0)
    torch.testing.assert_close(found, cells[[0, 2]])


def test_each_query_cell_gets_the_prototype_of_the_largest_cosine():
    torch.manual_seed(1)
    query, vectors = torch.randn(1, 4, 2, 3), torch.randn(2, 3, 4)
    found = torch.tensor([[1.0, 1, 1], [1, 1, 0]]).unsqueeze(2)
    guide, total = allocated(query, vectors, found)
    for n, count in enumerate((3, 2)):
        for i in range(2):
            for j in range(3):
                cosine = F.cosine_similarity(vectors[n, :count], query[0, :, i, j], dim=1)
                torch.testing.assert_close(guide[n, :, i, j], vectors[n, cosine.argmax()])
                torch.testing.assert_close(total[n, 0, i, j], cosine.sum())


def test_a_small_object_has_the_mean_and_a_large_one_several_prototypes(asgnet, shots):
    images, masks = shots(1, 2)
    masks[0, 1] = 0
    masks[0, 1, 30:38, 30:38] = 1
    guides = asgnet.encode_shots(asgnet.extract(images[0]), masks[0])
    assert guides["found"].squeeze(2).tolist() == [[1, 1, 1], [1, 0, 0]]
    assert bool((guides["vectors"][1, 1:] == 0).all())
    maps = asgnet.mid.of(asgnet.extract(images[0]))
    torch.testing.assert_close(guides["vectors"][1, 0], maps[1, :, 4, 4], atol=1e-4, rtol=1e-3)


def test_numbers_out_of_range_are_refused():
    for name in ("region_cells", "regions", "iterations"):
        with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
            ASGNetConfig(**{name: 0})
    with pytest.raises(ValueError, match="spread must be above 0, got"):
        ASGNetConfig(spread=0.0)
