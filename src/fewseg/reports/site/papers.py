"""The papers' tables, printed values with ours beside them."""

from __future__ import annotations

from collections.abc import Sequence

from fewseg.reports.gains import Gain
from fewseg.reports.html import Cell, element
from fewseg.reports.paper_tables import html_table, paper_tables
from fewseg.reports.site.found import FoundResult


def papers_section(found: Sequence[FoundResult], folds: int, gains: Sequence[Gain] = ()) -> list[Cell]:
    """Every table of the three papers; a row that was not run says so.

    Args:
        found: the results.
        folds: how many there are.
        gains: in mIoU, that were computed before.
    """
    made = paper_tables(
        [(each.result, each.counts) for each in found],
        paths=[each.name for each in found],
        folds=folds,
        gains=gains,
    )
    links = [element("li", element("a", table.name, href=f"#{table.slug}")) for table in made]
    parts = [
        element("h2", "The papers' tables", id="papers-title"),
        element("nav", element("ul", *links), aria_label="Tables of the papers"),
        *(html_table(table) for table in made),
    ]
    return [element("section", *parts, id="papers", aria_labelledby="papers-title")]
