"""The spread over seeds, and the smallest difference that a number of episodes finds."""

from dataclasses import replace
from math import sqrt

import pytest

from fewseg.data.protocols import HSNET
from fewseg.reports.frame import results_of
from fewseg.reports.tables import spread_line
from result_files import make_counts, make_result


@pytest.fixture
def result(result_of, counts_of_fold):
    return result_of(counts_of_fold(0))


def protocol_line(run):
    return results_of({"a": run}).frame.protocol_line.iloc[0]


def seeds(mean, spread):
    """Two seeds with this mean and sample deviation."""
    run = make_result(make_counts())
    ends = (mean - spread / 2**0.5, mean + spread / 2**0.5)
    return tuple(replace(s, miou=end) for s, end in zip(run.seeds, ends, strict=True))


def test_the_line_has_the_deviation_over_seeds_and_the_smallest_difference(result):
    line = spread_line(replace(result, seeds=seeds(0.5, 0.0123), miou_ci95=(0.49, 0.51)))
    smallest = 100 * (1.959964 + 0.841621) * sqrt(2) * 0.01 / 1.959964
    assert f"mIoU 50.0 (+- 1.2 over {len(result.seeds)} seeds)" in line
    assert f"find differences from {smallest:.1f} points, unpaired" in line
    assert f"{sum(s.episodes for s in result.seeds)} episodes" in line


def test_one_seed_has_no_spread(result):
    assert "(one seed)" in spread_line(replace(result, seeds=result.seeds[:1]))


def test_the_protocol_is_reported_in_one_line_with_its_digest(result_of, counts_of_fold):
    line = protocol_line(result_of(counts_of_fold(0), protocol=HSNET))
    assert line == f"protocol {HSNET.line()}"
    assert f"[{HSNET.digest()}]" in line


def test_a_protocol_that_is_not_the_programs_has_its_name_and_digest(result):
    assert protocol_line(result) == f"protocol mini [{result.protocol_digest}]"
