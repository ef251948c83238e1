"""What ``fewseg label``, ``export``, ``serve``, ``demo`` and ``import-checkpoint`` print."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from fewseg.demo import DemoOptions
    from fewseg.inference import ExportOptions, LabelOptions
    from fewseg.recipes.options import ImportOptions
    from fewseg.serve import ServeOptions

SOME_FAILED = 3
"""Exit status of a run that could not use some of the images."""


def label(options: LabelOptions, console: Console) -> int:
    """Labels a folder of images."""
    if options.ray:
        from fewseg.inference.cluster import label_on_ray as label_folder
    else:
        from fewseg.inference import label as label_folder
    report = label_folder(options)
    before = f", {report.before} were labelled before" if report.before else ""
    lines = [f"labelled: {report.done}{before}; skipped: {len(report.problems)}", *report.summary]
    console.out("\n".join([*lines, f"output: {options.out}"]), highlight=False)
    return SOME_FAILED if report.problems else 0


def export(options: ExportOptions, console: Console) -> None:
    """Writes ONNX graphs."""
    from fewseg.inference import export as export_graphs

    done = export_graphs(options)
    console.out(
        f"written: {done.folder}\nONNX Runtime differs from torch by {done.extract_error:.1e} (extract) and "
        f"{done.segment_error:.1e} (segment) of the largest value",
        highlight=False,
    )


def serve(options: ServeOptions, console: Console) -> None:
    """Serves the page."""
    from fewseg.serve import serve as run_server

    run_server(options, partial(console.out, highlight=False))


def demo(options: DemoOptions, console: Console) -> None:
    """Runs the demo."""
    from fewseg.demo import rich_table, run_demo

    result = run_demo(options)
    console.print(rich_table(result.results))
    spent = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in result.seconds.items())
    console.out(f"time: {spent}\nreport: {result.report}", highlight=False)


def import_checkpoint(options: ImportOptions, console: Console) -> None:
    """Writes a checkpoint of released weights."""
    from fewseg.data.folds import pascal_5i
    from fewseg.engine import released

    split = None if options.fold is None else pascal_5i(options.fold)
    imported = released.import_checkpoint(
        options.source, options.target, scales=options.scales, class_split=split
    )
    console.print(f"{imported.method}: {imported.report.summary()}\nwritten: {options.target}")
