"""``fewseg report figures``, ``report site``."""

from __future__ import annotations

from rich.console import Console

from fewseg.reports.options import SOME_MISSING, FiguresOptions, SiteOptions


def figures(options: FiguresOptions, console: Console) -> int:
    """Makes the figures; the status is ``SOME_MISSING`` where one cannot be made."""
    from fewseg.reports.figures.run import FIGURES, make_figures

    if options.figure == ("list",):
        for name, kind in FIGURES.items():
            console.out(f"{name}: {kind.shows}; needs {kind.needs}", highlight=False)
        return 0
    result = make_figures(options)
    for claim in result.claims:
        value = claim.estimate
        number = f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}] of {claim.count}"
        line = f"{claim.claim}, {claim.where}: {claim.quantity} {number}: {claim.verdict}"
        console.out(line, highlight=False)
    for remark in result.remarks:
        console.out(f"note: {remark}", highlight=False)
    for problem in result.problems:
        console.out(f"missing: {problem}", highlight=False)
    count = len([path for path in result.files if path.suffix == ".png"])
    console.out(f"figures: {count}, in {options.out}", highlight=False)
    return SOME_MISSING if result.problems else 0


def site(options: SiteOptions, console: Console) -> int:
    """Makes the site; the status is ``SOME_MISSING`` where something given could not be used."""
    from fewseg.reports.site.build import write_site

    page = write_site(options)
    for problem in page.problems:
        console.out(f"missing: {problem}", highlight=False)
    console.out(f"written: {page.path} ({page.results} results, {page.size / 1e6:.1f} MB)", highlight=False)
    return 0 if page.all_used else SOME_MISSING
