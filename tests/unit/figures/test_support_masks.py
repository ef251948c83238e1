"""Which cells v_s, v_pri and v_aux are pooled over, and which of them lie on the edge."""

import numpy as np
import pandas as pd
import pytest
import torch

from fewseg.reports.figures.support_masks import (
    COVERAGE,
    ON_EDGE,
    distance_to_boundary,
    mostly_primary,
    region_counts,
    region_shares,
    support_regions,
)


def counts_of(*regions):
    return region_counts(np.stack(regions))


def mask(*rows):
    return np.array([[c == "#" for c in row] for row in rows])


def plain_distance(foreground):
    h, w = foreground.shape
    zeros = [(y, x) for y in range(h) for x in range(w) if not foreground[y, x]]
    return np.array(
        [
            [min((max(abs(y - a), abs(x - b)) for a, b in zeros), default=h + w) for x in range(w)]
            for y in range(h)
        ]
    )


def test_the_distance_is_counted_in_steps_of_a_king_and_the_rim_of_the_grid_is_no_boundary():
    generator = np.random.default_rng(0)
    for share in (0.5, 0.9, 0.98):
        foreground = generator.random((9, 12)) < share
        assert np.array_equal(distance_to_boundary(foreground), plain_distance(foreground))
    foreground = np.ones((6, 6), dtype=bool)
    assert (distance_to_boundary(foreground) == 12).all()
    foreground[:, 0] = False
    assert distance_to_boundary(foreground)[0].tolist() == [0, 1, 2, 3, 4, 5]


def test_regions_are_what_the_prediction_covers_and_what_it_misses():
    cells = torch.tensor([[[[1.0, 0.6, 0.4], [0.0, 1.0, 0.0]]]])
    logits = torch.zeros(1, 2, 2, 3)
    logits[0, 1, 0, 0] = logits[0, 1, 0, 2] = logits[0, 1, 1, 0] = 1.0
    found = support_regions(cells, logits)
    foreground, primary, auxiliary = found[0].tolist()
    assert foreground == [[True, True, False], [False, True, False]]
    assert primary == [[True, False, False], [False, False, False]]
    assert auxiliary == [[False, True, False], [False, True, False]]


def test_cells_of_a_region_are_counted_by_their_distance():
    foreground = mask(".......", ".#####.", ".#####.", ".#####.", ".#####.", ".#####.", ".......")
    primary = mask(".......", ".......", "..###..", "..###..", "..###..", ".......", ".......")
    found = counts_of(foreground, primary, foreground & ~primary)
    assert found == {
        "foreground": 25,
        "foreground_within_1": 16,
        "foreground_within_2": 24,
        "primary": 9,
        "primary_within_1": 0,
        "primary_within_2": 8,
        "auxiliary": 16,
        "auxiliary_within_1": 16,
        "auxiliary_within_2": 16,
    }


def test_shares_are_summed_over_supports_and_the_gain_of_the_edge_is_paired():
    square = np.zeros((9, 9), dtype=bool)
    square[1:8, 1:8] = True
    inner = np.zeros((9, 9), dtype=bool)
    inner[2:7, 2:7] = True
    empty = np.zeros((9, 9), dtype=bool)
    counts = [
        counts_of(square, inner, square & ~inner),
        counts_of(square, square, empty),
        counts_of(empty, empty, empty),
    ]
    found = region_shares(pd.DataFrame(counts))
    assert found.supports == 2
    shares = {what: {k: e.value for k, e in of.items()} for what, of in found.shares.items()}
    assert shares[COVERAGE] == pytest.approx({"primary": (25 / 49 + 1) / 2, "auxiliary": (24 / 49) / 2})
    assert found.empty == {"primary": 0, "auxiliary": 1}
    assert shares[ON_EDGE[1]] == pytest.approx({"auxiliary": 1, "foreground": 48 / 98, "primary": 24 / 74})
    assert found.edge_gain[1, "primary"].value == pytest.approx(1 - 24 / 74)
    assert found.edge_gain[2, "foreground"].value == pytest.approx(1 - 80 / 98)


def test_a_region_that_no_support_has_is_reported():
    square = np.zeros((5, 5), dtype=bool)
    square[1:4, 1:4] = True
    nothing = np.zeros((5, 5), dtype=bool)
    with pytest.raises(ValueError, match="no support has a cell of v_aux"):
        region_shares(pd.DataFrame([counts_of(square, square, nothing)]))
    with pytest.raises(ValueError, match="no support has a foreground cell"):
        region_shares(pd.DataFrame([counts_of(nothing, nothing, nothing)]))


def test_supports_that_v_pri_covers_half_of_are_reported_from_the_others():
    rows = [{"foreground": 4, "primary": p, "auxiliary": 4 - p} for p in range(5)]
    none = {"foreground": 0, "primary": 0, "auxiliary": 0}
    assert mostly_primary(pd.DataFrame([*rows, none])).to_dict("records") == rows[2:]
