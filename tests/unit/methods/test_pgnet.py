"""PGNet's graphs by hand; the contract suite takes it up by its registration."""

import pytest
import torch

from fewseg.methods.pgnet import PGNetConfig, attended, edge_weights


def test_each_query_node_sums_the_objects_nodes_by_its_edges():
    torch.manual_seed(0)
    queries, keys, values = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    inside = torch.tensor([[1.0, 0, 0.5, 1, 0], [0, 1, 0, 0, 0]])
    found = attended(edge_weights(queries, keys, inside), values, inside)
    for n in range(2):
        for i in range(3):
            weights = torch.stack(
                [inside[n, j] * torch.exp(queries[n, i] @ keys[n, j] / 2) for j in range(5)]
            )
            expected = (weights[:, None] * values[n]).sum(dim=0) / weights.sum()
            torch.testing.assert_close(found[n, i], expected)


def test_without_an_object_nothing_is_attended_to():
    cells, nowhere = torch.randn(1, 3, 4), torch.zeros(1, 3)
    assert bool((attended(edge_weights(cells, cells, nowhere), cells, nowhere) == 0).all())


def test_every_grid_has_a_graph_and_they_are_added(make_method, shots):
    pgnet = make_method(PGNetConfig, scales=(1.0, 0.5))
    images, masks = shots(1, 1)
    features = pgnet.extract(images[0])
    query, guides = pgnet.encode_query(features), pgnet.encode_shots(features, masks[0])
    nodes, inside = guides["nodes"], guides["inside"].squeeze(2)
    half = torch.nn.functional.adaptive_avg_pool2d(query.mid, 4)
    coarse = torch.nn.functional.interpolate(
        pgnet.graphs[1](half, nodes, inside), (9, 9), mode="bilinear", align_corners=True
    )
    expected = pgnet.trunk(pgnet.graphs[0](query.mid, nodes, inside) + coarse)
    torch.testing.assert_close(pgnet.score(query, guides), expected, atol=1e-5, rtol=1e-4)


def test_scales_must_be_above_0():
    with pytest.raises(ValueError, match=r"scales must be one or more numbers above 0, got \(\)"):
        PGNetConfig(scales=())
