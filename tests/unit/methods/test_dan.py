"""DAN's attention by hand; the contract suite takes it up by its registration."""

import pytest
import torch

from fewseg.methods.dan import DANConfig, democratic
from fewseg.methods.pgnet import edge_weights


def test_attention_is_divided_by_what_a_cell_gets_in_all():
    torch.manual_seed(0)
    weights = torch.rand(2, 5, 4).softmax(dim=2)
    found = democratic(weights, 0.5)
    for n in range(2):
        for q in range(5):
            row = [weights[n, q, p] / weights[n, :, p].mean() ** 0.5 for p in range(4)]
            torch.testing.assert_close(found[n, q], torch.stack(row) / sum(row))
    torch.testing.assert_close(democratic(weights, 0.0), weights)


def test_a_cell_that_all_attend_to_loses_to_the_others():
    weights = torch.tensor([[[0.8, 0.15, 0.05], [0.7, 0.1, 0.2]]])
    shares = [democratic(weights, power)[0].mean(dim=0) for power in (0.0, 0.5, 1.0)]
    assert shares[0][0] > shares[1][0] > shares[2][0]
    assert shares[2][2] > shares[0][2]


def test_cells_outside_of_the_object_get_nothing_and_no_object_is_finite():
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    inside = torch.tensor([[0.0, 1, 0.5, 0, 1], [0, 0, 0, 0, 0]])
    found = democratic(edge_weights(queries, keys, inside), 1.0)
    assert bool((found[0][:, inside[0] == 0] == 0).all())
    torch.testing.assert_close(found.sum(dim=2), torch.ones(2, 3))


def test_the_levels_are_joined_from_the_highest_down(make_method, shots):
    dan = make_method(DANConfig, mid_levels=("layer2", "layer3"), democracy=1.0)
    images, masks = shots(1, 1)
    features = dan.extract(images[0])
    query, guides = dan.encode_query(features.select([0])), dan.encode_shots(features, masks[0])
    inside = (masks[0, 0, ::8, ::8] == 1).flatten()
    found = {}
    for level in ("layer2", "layer3"):
        graph, maps = dan.graphs[level], dan.mids[level](features[level])
        cells = maps[0].flatten(1).T
        keys, values = graph.key(cells[inside]), graph.value(cells[inside])
        weights = torch.softmax(graph.query(cells) @ keys.T / 8**0.5, dim=1)
        weights = weights / weights.mean(dim=0)
        weights = weights / weights.sum(dim=1, keepdim=True)
        attended = (weights @ values).T.reshape(1, 8, 9, 9)
        found[level] = graph.join(torch.cat([maps, attended], dim=1))
    joined = dan.joins["layer2"](torch.cat([found["layer2"], found["layer3"]], dim=1))
    torch.testing.assert_close(dan.score(query, guides), dan.trunk(joined), atol=1e-5, rtol=1e-4)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"democracy in \[0, 1\], got .* and 1.5"):
        DANConfig(democracy=1.5)
    with pytest.raises(ValueError, match="mid_levels must be one or more levels"):
        DANConfig(mid_levels=())
