"""The data behind a plot as a CSV file that the page itself holds."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence

from fewseg.reports.html import Markup, element


def csv_link(
    name: str, headings: Sequence[str], rows: Sequence[Sequence[object]], what: str = "Data behind it"
) -> Markup:
    """Returns a link that saves rows as ``<name>.csv``; it asks nobody and needs no script.

    Args:
        name: of the file, without suffix.
        headings: first line.
        rows: values; floats are written in full, None as nothing.
        what: the words before the link.
    """
    text = csv_text(headings, rows)
    uri = "data:text/csv;base64," + base64.b64encode(text.encode()).decode()
    link = element("a", f"{name}.csv", href=uri, download=f"{name}.csv")
    return element("p", f"{what}: ", link, f" ({len(rows)} lines)", class_="download")


def csv_text(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The content of a CSV file."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(rows)
    return file.getvalue()
