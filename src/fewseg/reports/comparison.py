"""Two results side by side: what differs in how they were made, and the paired difference of their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fewseg.data.protocols import ADDED
from fewseg.engine.results import RunResult, load_with_counts
from fewseg.metrics import (
    EpisodeCounts,
    PairedDifference,
    TrainingsDifference,
    bootstrap_score,
    minimum_detectable_difference,
    paired_difference,
    trainings_difference,
)
from fewseg.metrics.statistics import same_episodes
from fewseg.reports.frame import entries_that_differ, made_as, results_of
from fewseg.reports.numbers import Estimate, estimate_of, gain_with_interval, percent, points, with_interval
from fewseg.reports.options import CompareOptions


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Result ``b`` against result ``a``."""

    a: RunResult  # the first result, the one b is measured against
    b: RunResult  # the second
    # how their protocols and tasks differ, one sentence each; empty when comparable
    differences: tuple[str, ...]
    made_differently: tuple[str, ...]  # differences that belong to the methods, such as the precision
    # the difference on the same episodes, or None where the episodes are not the same
    paired: PairedDifference | None
    over_queries: PairedDifference | None  # the same, with resampled query images instead of episodes
    unpaired: Estimate  # b less a with an interval that adds both errors
    detectable: float  # smallest true difference that ``planned`` episodes find with 80 % probability
    planned: int  # episodes, all seeds together
    trainings: TrainingsDifference | None  # over several trainings, if several are given

    @property
    def difference(self) -> Estimate:
        """The paired difference if there is one, otherwise the unpaired."""
        return self.unpaired if self.paired is None else estimate_of(self.paired)


def run(options: CompareOptions, console: Console) -> None:
    """Prints a comparison."""
    comparison = compare(options)
    console.print(comparison_table(comparison))
    console.print("\n".join(comparison_lines(comparison)), highlight=False, markup=False)


def compare(options: CompareOptions) -> Comparison:
    """Compares two result files."""
    (a, counts_a), (b, counts_b) = load_with_counts(options.a), load_with_counts(options.b)
    differences, planned = what_differs(a, b), options.episodes
    if differences and not options.allow_different_protocols:
        raise ValueError(
            f"{options.a} and {options.b} are not comparable: {'; '.join(differences)}. Evaluate both alike, "
            "or allow different protocols explicitly"
        )
    alike = set(a.classes) == set(b.classes) and same_episodes(counts_a, counts_b)
    if not alike and not options.allow_different_protocols:
        raise ValueError(
            f"{options.a} and {options.b} have one protocol but not the same episodes: their image lists or "
            "the program that drew them differ. Evaluate both on one list, or allow different protocols"
        )
    if planned is not None and planned < 1:
        raise ValueError(f"planned episodes must be 1 or more, got {planned}")
    paired = paired_difference(counts_a, counts_b, a.classes) if alike else None
    over_queries = paired_difference(counts_a, counts_b, a.classes, over="queries") if alike else None
    error = paired.interval.standard_error if paired else _unpaired_error((a, counts_a), (b, counts_b))
    trainings = None
    if options.more_a or options.more_b:
        of_a = [(a, counts_a), *_further_trainings(a, options.a, options.more_a)]
        of_b = [(b, counts_b), *_further_trainings(b, options.b, options.more_b)]
        weights = [[run.checkpoint for run, _ in runs] for runs in (of_a, of_b)]
        all_a, all_b = ([counts for _, counts in runs] for runs in (of_a, of_b))
        same = weights[0] == weights[1] and all(weights[0])
        trainings = trainings_difference(all_a, all_b, a.classes, same=same)
    parts = (("precision", a.precision, b.precision), ("size", a.sizes_text, b.sizes_text))
    return Comparison(
        a=a,
        b=b,
        differences=tuple(differences),
        made_differently=tuple(
            f"{name} {first or 'unknown'} and {second or 'unknown'}"
            for name, first, second in parts
            if first != second
        ),
        paired=paired,
        over_queries=over_queries,
        unpaired=_unpaired(a, b),
        detectable=minimum_detectable_difference(error, episodes=counts_a.episodes, planned=planned),
        planned=planned or counts_a.episodes,
        trainings=trainings,
    )


def _further_trainings(
    first: RunResult, path: Path, more: Sequence[Path]
) -> list[tuple[RunResult, EpisodeCounts]]:
    """Results of other trainings of the same method; raises a ValueError if more than the seed differs."""
    seeds, trainings = {first.train_seed}, []
    for other_path in more:
        other, counts = load_with_counts(other_path)
        differ = what_differs(first, other) + entries_that_differ("its", made_as(first), made_as(other))
        if other.train_seed in seeds:
            differ.append(f"both, or two of these files, are of training seed {other.train_seed}")
        if differ:
            raise ValueError(
                f"{other_path} is not another training of {path}: {'; '.join(differ)}. Give results of one "
                "recipe that differ in the training seed alone"
            )
        seeds.add(other.train_seed)
        trainings.append((other, counts))
    return trainings


def what_differs(a: RunResult, b: RunResult) -> list[str]:
    """How two results differ in ways that make their scores incomparable."""
    differences = [
        f"{name} {getattr(a, name)!r} and {getattr(b, name)!r}"
        for name in ("dataset", "fold", "ways", "shots", "on")
        if getattr(a, name) != getattr(b, name)
    ]
    parts = entries_that_differ("protocol", {**ADDED, **a.protocol}, {**ADDED, **b.protocol})
    if not parts and a.protocol_digest != b.protocol_digest:
        parts = [f"protocol digest {a.protocol_digest} and {b.protocol_digest}"]
    return differences + parts + entries_that_differ("class split", a.class_split, b.class_split)


def _unpaired_error(*runs: tuple[RunResult, EpisodeCounts]) -> float:
    errors = [bootstrap_score(counts, result.classes).standard_error for result, counts in runs]
    return sqrt(sum(error**2 for error in errors))


def _unpaired(a: RunResult, b: RunResult) -> Estimate:
    """Difference of two independent estimates; the ends of a work against those of b."""
    value = b.miou_mean - a.miou_mean
    below = sqrt((b.miou_mean - b.miou_ci95[0]) ** 2 + (a.miou_ci95[1] - a.miou_mean) ** 2)
    above = sqrt((b.miou_ci95[1] - b.miou_mean) ** 2 + (a.miou_mean - a.miou_ci95[0]) ** 2)
    return Estimate(value=value, low=value - below, high=value + above)


def comparison_table(comparison: Comparison) -> Table:
    """The comparison for a terminal: scores in percent, differences in points."""
    a, b = comparison.a, comparison.b
    table = Table(title=f"{_name(b)} against {_name(a)}")
    table.add_column("score (%)")
    for heading in (f"{a.method} {a.fusion}", f"{b.method} {b.fusion}", "difference"):
        table.add_column(heading, justify="right")
    estimates = [Estimate(value=r.miou_mean, low=r.miou_ci95[0], high=r.miou_ci95[1]) for r in (a, b)]
    table.add_row("mIoU", *map(with_interval, estimates), gain_with_interval(comparison.difference))
    rows = [
        ("FB-IoU", a.fb_iou_mean, b.fb_iou_mean),
        ("per-class Dice", a.dice_mean, b.dice_mean),
        ("2m/(1+m) of mIoU", a.dice_of_miou_mean, b.dice_of_miou_mean),
    ]
    of_a, of_b, names = a.per_class_mean, b.per_class_mean, a.class_names | b.class_names
    rows += [(f"IoU {names.get(c, c)}", of_a[c], of_b[c]) for c in of_a if c in of_b]
    for label, first, second in rows:
        table.add_row(label, percent(first), percent(second), points(second - first))
    return table


def _name(run: RunResult) -> str:
    ways = f"{run.ways}-way " if run.ways > 1 else ""
    on = " on the supports" if run.on == "support" else ""
    return f"{run.method} {run.fusion}, {ways}{run.shots}-shot{on}, {run.dataset} fold {run.fold}"


def comparison_lines(comparison: Comparison) -> list[str]:
    """The lines below the table: the protocol, what differs, and how certain the difference is."""
    paired, over_queries = comparison.paired, comparison.over_queries
    frame = results_of({"a": comparison.a, "b": comparison.b}).frame
    lines = list(dict.fromkeys(frame.protocol_line))
    lines += [f"different: {text}" for text in comparison.differences]
    lines += [f"also different, and not of the protocol: {text}" for text in comparison.made_differently]
    if paired is None or over_queries is None:
        lines.append("NOT paired: the episodes are not the same; the interval adds both errors")
    else:
        lines += [
            f"paired over the same episodes; 95 % bootstrap interval; share of resamples against the sign, "
            f"twice: {paired.p_like:.3f}",
            f"over query images, each with all its episodes: {gain_with_interval(estimate_of(over_queries))}"
            f"; against the sign, twice: {over_queries.p_like:.3f}",
        ]
    trainings = comparison.trainings
    if trainings is not None:
        error, needed = trainings.training_error, trainings.trainings_needed()

        lines.append(
            f"over {trainings.trainings[0]} and {trainings.trainings[1]} trainings and over query images: "
            f"{gain_with_interval(estimate_of(trainings))}; the standard deviation of the difference between "
            f"two trainings is {100 * error:.1f} points"
        )
        lines.append(
            f"trainings of each that show a difference of this size 8 times of 10: {needed}"
            if needed
            else "no number of trainings shows a difference of this size: the query images are too few"
        )
    elif comparison.a.train_seed is not None or comparison.b.train_seed is not None:
        lines.append("one training of each: no interval holds the noise of training; see --more-a, --more-b")
    lines.append(
        f"smallest difference that {comparison.planned} episodes of these images find 8 times of 10: "
        f"{100 * comparison.detectable:.2f} points"
    )
    return lines
