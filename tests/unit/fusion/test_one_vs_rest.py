"""The answers of N two-class problems as one answer of 1 + N classes."""

import torch

from fewseg.methods.fusion import one_vs_rest


def some(ways):
    return 2 * torch.randn(2, ways, 2, 4, 5, generator=torch.Generator().manual_seed(0))


def test_background_is_where_no_way_wins_and_else_the_largest_margin_is():
    scores = some(3)
    found = one_vs_rest(scores)
    assert found.shape == (2, 4, 4, 5)
    for i in range(2):
        for y in range(4):
            for x in range(5):
                margins = [float(scores[i, j, 1, y, x] - scores[i, j, 0, y, x]) for j in range(3)]
                expected = 1 + margins.index(max(margins)) if max(margins) > 0 else 0
                assert int(found[i, :, y, x].argmax()) == expected


def test_the_odds_of_each_way_against_the_background_are_its_own():
    scores = some(2)
    shares = one_vs_rest(scores).softmax(dim=1)
    for j in range(2):
        own = scores[:, j].softmax(dim=1)
        torch.testing.assert_close(shares[:, 1 + j] / shares[:, 0], own[:, 1] / own[:, 0])


def test_one_way_keeps_its_probabilities():
    scores = some(1)
    torch.testing.assert_close(one_vs_rest(scores).softmax(dim=1), scores[:, 0].softmax(dim=1))
