"""A paper's table as LaTeX: booktabs, a tabular for each section, notes below."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from fewseg.reports.paper_tables.grid import Grid, GridCell, grids, notes_of
from fewseg.reports.paper_tables.model import PaperTable

PACKAGES = r"% needs \usepackage{booktabs,graphicx}"

_SIGNS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': "''",
    "±": r"$\pm$",
    "†": r"\dag{}",
    "⁰": "$^0$",
    "¹": "$^1$",
    "²": "$^2$",
    "³": "$^3$",
    "\n": " ",
}


def latex_text(text: str) -> str:
    """Text with every sign that LaTeX would read as a command escaped."""
    return "".join(_SIGNS.get(sign, sign) for sign in text)


def latex_paper_table(table: PaperTable, told: Sequence[str] = ()) -> str:
    r"""A ``table*`` for ``\input``, scaled to the width of the text.

    Args:
        table: which.
        told: what a reader should know besides, such as which results were left out.
    """
    shown, footnotes = grids(table)
    sentences, sources = notes_of(table, footnotes)
    lines = [PACKAGES, r"\begin{table*}", r"\centering\footnotesize"]
    lines.append(rf"\caption{{{latex_text(table.name)}: {latex_text(table.caption)}}}")
    lines.append(rf"\label{{tab:{table.slug}}}")
    for grid in shown:
        if grid.heading:
            lines.append(rf"\par\medskip\textbf{{{latex_text(grid.heading)}}}\par\smallskip")
        lines += [r"\resizebox{\textwidth}{!}{%", *_tabular(grid), "}"]
    lines.append(r"\par\medskip\begin{minipage}{\textwidth}\scriptsize\raggedright")
    lines += [rf"{latex_text(sentence)}\par" for sentence in [*sentences, *told]]
    lines += [rf"\textsuperscript{{{letter}}} {latex_text(text)}\par" for letter, text in sources]
    return "\n".join([*lines, r"\end{minipage}", r"\end{table*}"]) + "\n"


def _tabular(grid: Grid) -> list[str]:
    places = "".join("l" if column.words else "r" for column in grid.columns)
    groups = [
        rf"\multicolumn{{{len(block.columns)}}}{{c}}{{{latex_text(block.heading)}}}" for block in grid.blocks
    ]
    ends = [0]
    for block in grid.blocks:
        ends.append(ends[-1] + len(block.columns))
    rules = [
        rf"\cmidrule(lr){{{start + 1}-{end}}}"
        for block, (start, end) in zip(grid.blocks, pairwise(ends), strict=True)
        if block.heading
    ]
    headings = [latex_text(column.heading) for column in grid.columns]
    return [
        rf"\begin{{tabular}}{{{places}}}",
        r"\toprule",
        " & ".join(groups) + r" \\",
        "".join(rules),
        " & ".join(headings) + r" \\",
        r"\midrule",
        *(" & ".join(map(_cell, row)) + r" \\" for row in grid.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _cell(cell: GridCell) -> str:
    text = latex_text(cell.text.strip())
    if cell.text.startswith(" "):
        text = rf"\quad {text}"
    if cell.note:
        text += rf"\textsuperscript{{{cell.note}}}"
    return rf"{text} {{\tiny {latex_text(cell.interval)}}}" if cell.interval else text
