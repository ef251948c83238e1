"""Makes the page: reads what is there, says what is not, and writes one file in one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from fewseg.engine.results import RunResult
from fewseg.metrics import EpisodeCounts
from fewseg.ops.files import atomic_write_text
from fewseg.ops.progress import tracked
from fewseg.reports.gains import CountsOf, Gain, baseline_pairs, paired_gain
from fewseg.reports.html import page
from fewseg.reports.site.found import FoundResult, find_results
from fewseg.reports.site.gaps import missing_folds, mixed_protocols
from fewseg.reports.site.learning import learning_section
from fewseg.reports.site.papers import papers_section
from fewseg.reports.site.pictures import Pictures, pictures_section, read_pictures
from fewseg.reports.site.provenance import provenance_section
from fewseg.reports.site.sections import Setting, setting_section, settings_named
from fewseg.reports.site.top import Part, top
from fewseg.reports.site.training_runs import read_runs
from fewseg.reports.table import FOLDS, FoldTable, fold_tables


@dataclass(frozen=True, kw_only=True)
class Site:
    """What was written.

    Attributes:
        path: the page.
        size: of the page, in bytes.
        results: how many results it shows.
        problems: what could not be used or is missing, one sentence each; the page says the same.
        all_used: whether all that was given could be used, though results may be missing.
    """

    path: Path
    size: int
    results: int
    problems: tuple[str, ...]
    all_used: bool


def write_site(
    folder: Path,
    path: Path,
    *,
    runs: Path | None = None,
    figures: Path | None = None,
    photographs: bool = False,
    folds: int = FOLDS,
    progress: bool = False,
) -> Site:
    """Writes the page of a folder of results.

    Args:
        folder: of results, at any depth.
        path: the HTML file.
        runs: folder of training runs, for learning curves.
        figures: folder of PNG and SVG files to put into the page.
        photographs: also those of its subfolder ``pictures``, as far as there is room.
        folds: how many folds the data sets have.
        progress: show bars.

    Raises:
        OSError: the page cannot be written; an earlier one is still there.
        ValueError: the folder of results does not exist.
    """
    found, problems = find_results(folder, folds)
    trained, unread = read_runs(runs, found, progress=progress) if runs else ([], [])
    pictures = read_pictures(figures, photographs=photographs) if figures else Pictures()
    tables = fold_tables([each.result for each in found], folds=folds) if found else []
    settings, not_paired = _settings(tables, found, progress=progress)
    unused = [*problems, *unread, *pictures.problems]
    problems += [*mixed_protocols(tables), *missing_folds(tables)]
    problems += [*not_paired, *unread, *pictures.problems]
    parts = [Part(s.id, s.title, [setting_section(s)]) for s in settings]
    parts += [
        Part(
            "papers",
            "The papers' tables",
            papers_section(found, folds, [gain for s in settings for gain in s.gains]),
        ),
        Part("learning", "Learning curves", learning_section(trained)),
        Part("figures", "Figures", pictures_section(pictures)),
        Part(
            "made", "How each was made", provenance_section(settings, {id(f.result): f.name for f in found})
        ),
    ]
    text = _page(folder, found, [part for part in parts if part.content], problems)
    atomic_write_text(path, text)
    return Site(
        path=path,
        size=len(text.encode()),
        results=len(found),
        problems=tuple(problems),
        all_used=not unused,
    )


def _settings(
    tables: Sequence[FoldTable], found: Sequence[FoundResult], *, progress: bool
) -> tuple[list[Setting], list[str]]:
    """The tables with their gains, and one sentence for each pair that cannot be compared."""
    counts = {id(each.result): each.counts for each in found}

    def counts_of(result: RunResult) -> EpisodeCounts:
        return counts[id(result)]

    pairs = [(i, a, b) for i, table in enumerate(tables) for a, b in baseline_pairs(table)]
    gains: list[list[Gain]] = [[] for _ in tables]
    problems = []
    for i, a, b in tracked(progress, "pairing results", pairs):
        try:
            gains[i].append(paired_gain(a, b, tables[i].folds, counts_of))
        except ValueError as error:
            problems.append(
                f"{tables[i].heading}: no gain of {b.label} {b.fusion} over {a.label} {a.fusion}: {error}"
            )
    return _joined(tables, gains, counts_of), problems


def _joined(
    tables: Sequence[FoldTable], gains: Sequence[Sequence[Gain]], counts_of: CountsOf
) -> list[Setting]:
    return [
        Setting(id=id, title=title, table=table, gains=tuple(of_table), counts_of=counts_of)
        for (id, title), table, of_table in zip(settings_named(tables), tables, gains, strict=True)
    ]


def _page(folder: Path, found: Sequence[FoundResult], parts: Sequence[Part], problems: Sequence[str]) -> str:
    name = folder.resolve().name
    head = top(name, [each.result for each in found], parts, problems)
    content = [cell for part in parts for cell in part.content]
    return page(f"fewseg: {name}", *head, *content, style=_asset("site.css"), script=_asset("site.js"))


def _asset(name: str) -> str:
    return resources.files("fewseg.reports").joinpath(f"assets/{name}").read_text(encoding="utf-8")
