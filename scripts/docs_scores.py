"""Writes the table of methods, with published and measured scores, into README and the site.

``python scripts/docs_scores.py`` writes, ``--check`` reports pages that are out of date. The scores are those
of ``fewseg zoo``: measured ones come from the result files in ``results/voc5i-mini``, published ones from
``reports/published.csv``. On the site the table ends with methods that papers print and fewseg lacks.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from fewseg.methods import list_methods
from fewseg.reports.frame import load_results
from fewseg.reports.zoo import measured, printed_means, published, score_cell

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "docs/methods/", "docs/methods/index.md": ""}
"""Page to what stands before the names of the methods' pages in its links."""
BEGIN, END = "<!-- scores: begin (scripts/docs_scores.py) -->", "<!-- scores: end -->"


@dataclass(frozen=True)
class Row:
    """A method: its label, its name, its source, and its page where that has a different name."""

    label: str
    method: str
    source: str
    page: str = ""


ROWS = (
    Row("SG-One", "sgone", "Zhang 2020"),
    Row("PANet", "panet", "Wang 2019"),
    Row("CANet", "canet", "Zhang 2019"),
    Row("PFENet", "pfenet", "Tian 2020"),
    Row("SCL on CANet", "scl-canet", "Zhang 2021", "scl"),
    Row("SCL on PFENet", "scl-pfenet", "Zhang 2021", "scl"),
    Row("SRPNet", "srpnet", "Ding 2022"),
    Row("SD-AANet", "sdaanet", "Zhao 2022"),
    Row("HSNet", "hsnet", "Min 2021"),
    Row("AMP", "amp", "Siam 2019"),
    Row("PMMs", "pmms", "Yang 2020"),
    Row("RPMMs", "rpmms", "Yang 2020", "pmms"),
    Row("PGNet", "pgnet", "Zhang 2019b"),
    Row("PPNet", "ppnet", "Liu 2020"),
    Row("ASGNet", "asgnet", "Li 2021"),
    Row("CRNet", "crnet", "Liu 2020b"),
    Row("DAN", "dan", "Wang 2020"),
    Row("BAM", "bam", "Lang 2022"),
    Row("RePRI", "repri", "Boudiaf 2021"),
    Row("INSID3-like", "insid3", "Cuttano 2026"),
    Row("Matcher", "matcher", "no training"),
    Row("Fitted head", "fitted", "no training"),
    Row("Combined", "combined", "fewseg"),
)
PRINTED_ONLY = (
    ("OSLSM", "scl", "Zhang 2021"),
    ("FWB", "scl", "Zhang 2021"),
    ("co-FCN", "sd-aanet", "Zhao 2022"),
    ("SimPropNet", "sd-aanet", "Zhao 2022"),
    ("REF", "srpnet", "Ding 2022"),
)
"""Methods that fewseg lacks: the row's name, the paper whose table has it, and how the page names that."""


def table(links: str, sources: bool) -> str:
    """The table in Markdown; with the papers also the methods that are printed only."""
    results = load_results(ROOT / "results" / "voc5i-mini")
    lines = [
        f"method |{' source |' if sources else ''} published, 1 and 5 shots | measured here",
        f"--- |{' --- |' if sources else ''} ---: | ---:",
    ]
    for row in ROWS:
        source = f" {row.source} |" if sources else ""
        scores = f"{score_cell(published(row.method))} | {score_cell(measured(row.method, results))}"
        lines.append(f"[{row.label}]({links}{row.page or row.method}.md) |{source} {scores}")
    for label, paper, source in PRINTED_ONLY if sources else ():
        printed = score_cell(printed_means(paper, label))
        lines.append(f"{label}, not in fewseg | printed in {source} | {printed} | -")
    return "\n".join(lines)


def main() -> int:
    """Writes the table, or with ``--check`` compares it."""
    check, stale = "--check" in sys.argv[1:], []
    if missing := set(list_methods()) - {row.method for row in ROWS}:
        raise SystemExit(f"the table of methods lacks {', '.join(sorted(missing))}: add a Row and a page")
    for page, links in PAGES.items():
        path = ROOT / page
        text = path.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        _, found, after = rest.partition(END)
        if not found:
            raise SystemExit(f"{page} needs the lines {BEGIN} and {END}")
        new = f"{before}{BEGIN}\n{table(links, sources=page != 'README.md')}\n{END}{after}"
        if new != text:
            stale.append(page)
            if not check:
                path.write_text(new, encoding="utf-8")
    if check and stale:
        print(f"out of date: {', '.join(stale)}; run python scripts/docs_scores.py")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
