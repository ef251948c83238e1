"""Writes the table of methods, with published and measured scores, into README and the site.

``python scripts/docs_scores.py`` writes, ``--check`` reports pages that are out of date. Measured values come
from the result files in ``results/voc5i-mini``, published ones from ``reports/published.csv``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from fewseg.methods import list_methods
from fewseg.methods.registry import method_name
from fewseg.recipes.registry import recipe
from fewseg.reports.frame import load_results
from fewseg.reports.published import published_values

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "docs/methods/", "docs/methods/index.md": ""}
"""Page to what stands before the names of the methods' pages in its links."""
BEGIN, END = "<!-- scores: begin (scripts/docs_scores.py) -->", "<!-- scores: end -->"


@dataclass(frozen=True)
class Row:
    """A method: its label, page, source, recipe on the small set, and where a paper prints it."""

    label: str
    page: str
    source: str
    recipe: str
    fusions: tuple[str, str]  # of 1 and 5 shots
    printed: tuple[str, str, str] | None = None  # paper, table, row


ROWS = (
    Row("SG-One", "sgone", "Zhang 2020", "voc5i_mini_sgone", ("mean", "mean"), ("scl", "1", "SG-One")),
    Row("PANet", "panet", "Wang 2019", "voc5i_mini_panet", ("mean", "mean"), ("scl", "1", "PANet")),
    Row("CANet", "canet", "Zhang 2019", "voc5i_mini_canet", ("average", "average"), ("scl", "1", "CANet")),
    Row("PFENet", "pfenet", "Tian 2020", "voc5i_mini_pfenet", ("mean", "mean"), ("scl", "1", "PFENet")),
    Row(
        "SCL on CANet",
        "scl",
        "Zhang 2021",
        "voc5i_mini_scl_canet",
        ("average", "cross-guided"),
        ("scl", "1", "SCL (CANet)"),
    ),
    Row(
        "SCL on PFENet",
        "scl",
        "Zhang 2021",
        "voc5i_mini_scl",
        ("average", "cross-guided"),
        ("scl", "1", "SCL (PFENet)"),
    ),
    Row(
        "SRPNet",
        "srpnet",
        "Ding 2022",
        "voc5i_mini_srpnet",
        ("iterative", "iterative"),
        ("srpnet", "2", "SRPNet"),
    ),
    Row(
        "SD-AANet",
        "sdaanet",
        "Zhao 2022",
        "voc5i_mini_sdaanet",
        ("mean", "mean"),
        ("sd-aanet", "1", "SD-AANet"),
    ),
    Row("HSNet", "hsnet", "Min 2021", "voc5i_mini_hsnet", ("vote", "vote")),
    Row("AMP", "amp", "Siam 2019", "voc5i_mini_amp", ("mean", "mean"), ("sd-aanet", "1", "AMP")),
    Row("PMMs", "pmms", "Yang 2020", "voc5i_mini_pmms", ("all", "all")),
    Row("RPMMs", "pmms", "Yang 2020", "voc5i_mini_rpmms", ("all", "all"), ("scl", "1", "RPMMs")),
    Row("PGNet", "pgnet", "Zhang 2019b", "voc5i_mini_pgnet", ("all", "all"), ("scl", "1", "PGNet")),
    Row("PPNet", "ppnet", "Liu 2020", "voc5i_mini_ppnet", ("all", "all"), ("scl", "1", "PPNet")),
    Row("ASGNet", "asgnet", "Li 2021", "voc5i_mini_asgnet", ("all", "all"), ("sd-aanet", "1", "ASGNet")),
    Row("CRNet", "crnet", "Liu 2020b", "voc5i_mini_crnet", ("average", "average"), ("scl", "1", "CRNet")),
    Row("DAN", "dan", "Wang 2020", "voc5i_mini_dan", ("all", "all"), ("scl", "1", "DAN")),
    Row("BAM", "bam", "Lang 2022", "voc5i_mini_bam", ("all", "all")),
    Row("RePRI", "repri", "Boudiaf 2021", "voc5i_mini_repri", ("fit", "fit")),
    Row("INSID3-like", "insid3", "Cuttano 2026", "voc5i_mini_insid3", ("all", "all")),
    Row("Matcher", "matcher", "no training", "voc5i_mini_matcher", ("mean", "mean")),
    Row("Fitted head", "fitted", "no training", "voc5i_mini_fitted", ("fit", "fit")),
    Row("Combined", "combined", "fewseg", "voc5i_mini_fewseg", ("average", "cross-guided")),
)


def table(links: str, sources: bool) -> str:
    """The table in Markdown, with or without the papers."""
    frame = load_results(ROOT / "results" / "voc5i-mini").frame
    frame = frame[(frame.ways == 1) & (frame.on == "query") & ~frame.multi_scale.astype(bool)]
    lines = [
        f"method |{' source |' if sources else ''} published, 1 and 5 shots | measured here",
        f"--- |{' --- |' if sources else ''} ---: | ---:",
    ]
    for row in ROWS:
        measured, printed = [], []
        for shots, fusion in zip((1, 5), row.fusions, strict=True):
            own = frame[(frame.recipe == row.recipe) & (frame.shots == shots) & (frame.fusion == fusion)]
            seeds = [part.miou.mean() for _, part in own.groupby("train_seed") if part.fold.nunique() == 4]
            measured.append(f"{100 * sum(seeds) / len(seeds):.1f}" if seeds else "-")
            values = [
                v
                for v in published_values()
                if (v.paper, v.table, v.row) == row.printed
                and (v.dataset, v.shots, v.column) == ("pascal-5i", shots, "mean")
            ]
            printed.append(f"{values[0].percent:.1f}" if values else "-")
        cells = ["-" if set(pair) == {"-"} else ", ".join(pair) for pair in (printed, measured)]
        source = f" {row.source} |" if sources else ""
        lines.append(f"[{row.label}]({links}{row.page}.md) |{source} {cells[0]} | {cells[1]}")
    return "\n".join(lines)


def main() -> int:
    """Writes the table, or with ``--check`` compares it."""
    check, stale = "--check" in sys.argv[1:], []
    if missing := set(list_methods()) - {method_name(recipe(row.recipe).method) for row in ROWS}:
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
