"""How each number was made: protocol, config, training and software, a fold-out block a row."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence

from fewseg.engine.results import RunResult
from fewseg.reports.html import Cell, Markup, element, table
from fewseg.reports.site.sections import Setting, row_name
from fewseg.reports.table import FoldRow


def provenance_section(settings: Sequence[Setting], names: Mapping[int, str]) -> list[Cell]:
    """Protocols and the files of each row.

    Args:
        settings: tables with their rows.
        names: id() of a result to the name of its file.
    """
    if not settings:
        return []
    parts: list[Cell] = [
        element("h2", "How each was made", id="made-title"),
        element("p", "Each result file as it lies in the folder; scores in it are fractions.", class_="soft"),
    ]
    for setting in settings:
        first = next(iter(setting.table.rows[0].results.values()))
        parts += [
            element("h3", setting.title),
            _json("Protocol", first.protocol, f"Protocol of {setting.title}"),
            *(_row(row, names) for row in setting.table.rows),
        ]
    return [element("section", *parts, id="made", aria_labelledby="made-title")]


def _row(row: FoldRow, names: Mapping[int, str]) -> Markup:
    runs = [row.results[f] for f in sorted(row.results)]
    recipes = ", ".join(sorted({r.recipe for r in runs if r.recipe})) or "no recipe"
    rows = [
        [
            str(r.fold),
            r.checkpoint or "-",
            str(r.training.get("step", "-")),
            f"{r.wall_seconds:.0f}",
            r.hardware,
            str(r.versions.get("revision", "-")),
        ]
        for r in runs
    ]
    headings = ["fold", "checkpoint", "steps", "test (s)", "hardware", "code"]
    files = [_json(names[id(r)], r.content(), f"Content of {names[id(r)]}") for r in runs]
    return element(
        "details",
        element("summary", row_name(row), element("small", f" {recipes}")),
        table(headings, rows, f"{row_name(row)}: its folds."),
        *files,
    )


def _json(name: str, value: Mapping[str, object], label: str) -> Markup:
    """JSON in a block of its own; quotes stay as they are, which halves its size."""
    text = Markup(html.escape(json.dumps(value, indent=1, ensure_ascii=False), quote=False))
    block = element("pre", text, tabindex="0", role="region", aria_label=label)
    return element("details", element("summary", name), block)


def versions_of(results: Sequence[RunResult]) -> str:
    """The versions of fewseg and torch behind some results, as one line."""
    found = {(r.versions.get("fewseg", "?"), r.versions.get("torch", "?")) for r in results}
    return "; ".join(f"fewseg {fewseg} with torch {torch}" for fewseg, torch in sorted(found))
