"""SRPNet's Fig. 7 and SD-AANet's Fig. 13: failures by rule, how often each occurs, and a few of each.

Each rule looks at the pixels of an episode alone, so that it can be counted. Source of the kinds: SRPNet
(Ding et al. 2022), Fig. 7 (a similar object; all but the monotonous background is kept), SD-AANet (Zhao et
al. 2022), Fig. 13 (a very small target, a target missed). The papers show pictures and give no rule; these
rules are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from fewseg.data.draws import Draws
from fewseg.data.episodes import EpisodeSpec
from fewseg.metrics import EpisodeCounts
from fewseg.reports.figures.context import Record
from fewseg.reports.figures.drawing import LEGEND, Groups, bar_chart, overlay, unit_range
from fewseg.reports.figures.intervals import rate_estimate
from fewseg.reports.figures.maps import Attention, attention_maps, has_attention
from fewseg.reports.figures.model import FigureModel, SeededEpisode, Support, episode_record, question_of
from fewseg.reports.figures.runner import CheckpointFigure, GridRow
from fewseg.reports.marked_pictures import Bools, judged, spotlight
from fewseg.types import IGNORE

FAILED = 0.5
"""An episode has failed when its own IoU is below this."""
MISSED = 0.1
KEPT = 0.25
SIMILAR = 0.5
TINY = 0.02
_PER_RULE = 2

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """The pixels of n episodes; ignored ones count nowhere."""

    hit: Ints  # of the target, predicted
    wrong: Ints  # predicted, not of the target
    lost: Ints  # of the target, not predicted
    clear: Ints  # neither
    # of ``wrong``, those on labelled objects of other classes; None where only counts are known
    other: Ints | None = None

    @classmethod
    def from_counts(cls, counts: EpisodeCounts) -> Outcomes:
        """What the counts of 1-way episodes show."""
        return cls(
            hit=counts.fg_inter,
            wrong=counts.fg_pred - counts.fg_inter,
            lost=counts.fg_true - counts.fg_inter,
            clear=counts.bg_inter,
        )

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """IoU of each episode; 0 where nothing is predicted or true."""
        return _share(self.hit, self.hit + self.wrong + self.lost)

    @property
    def failed(self) -> Bools:
        """IoU below ``FAILED``."""
        return np.asarray(self.iou < FAILED)


def pixel_outcome(predicted: Bools, labels: Ints, class_id: int) -> tuple[int, int, int, int, int]:
    """Pixels of one prediction (H, W) on class ids (H, W): hit, wrong, lost, clear, other."""
    known, target = labels != IGNORE, labels == class_id
    wrong = predicted & known & ~target
    return (
        int((predicted & target).sum()),
        int(wrong.sum()),
        int((~predicted & target).sum()),
        int((~predicted & known & ~target).sum()),
        int((wrong & (labels != 0)).sum()),
    )


def _share(part: Ints, whole: Ints) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def missed_target(found: Outcomes) -> Bools:
    """Failed, and less than a tenth (``MISSED``) of the target is predicted."""
    return found.failed & (_share(found.hit, found.hit + found.lost) < MISSED)


def similar_class(found: Outcomes) -> Bools:
    """Failed, and half (``SIMILAR``) or more of the prediction lies on labelled objects of other classes."""
    if found.other is None:
        raise ValueError("counts do not show what is predicted wrongly: this rule needs the predictions")
    predicted = found.hit + found.wrong
    return found.failed & (predicted > 0) & (_share(found.other, predicted) >= SIMILAR)


def background_kept(found: Outcomes) -> Bools:
    """Failed, and a quarter (``KEPT``) or more of all that is not the target is predicted.

    Predicted pixels of other classes' objects are left out on both sides of the share, where they are known.
    """
    kept = found.wrong if found.other is None else found.wrong - found.other
    return found.failed & (_share(kept, kept + found.clear) >= KEPT)


def tiny_target(found: Outcomes) -> Bools:
    """Failed, and the target covers less than 2 % (``TINY``) of the pixels that count."""
    target = found.hit + found.lost
    return found.failed & (_share(target, target + found.wrong + found.clear) < TINY)


RULES: Mapping[str, Callable[[Outcomes], Bools]] = {
    "missed target": missed_target,
    "similar class": similar_class,
    "background kept": background_kept,
    "tiny target": tiny_target,
}
KINDS = {name: name for name in ("failed", *RULES, "none of these")}


def failures(found: Outcomes) -> dict[str, Bools]:
    """Which episodes match each rule, which failed, and which failed without matching any."""
    rules = {
        name: rule(found)
        for name, rule in RULES.items()
        if rule is not similar_class or found.other is not None
    }
    matched = np.logical_or.reduce(list(rules.values()))
    return {"failed": found.failed, **rules, "none of these": found.failed & ~matched}


Found = Mapping[str, Bools]
"""A rule to which episodes match it."""


class Failures(CheckpointFigure[Found]):
    """A plot of how often each rule matches, and pictures of a few episodes of each."""

    name = "failures"
    shows = "failures by rule, how often and a few of each (SRPNet 7, SD-AANet 13)"
    needs = "any checkpoint; 1-shot results for the rules that counts can show"
    summary = "failure-rates"

    def make(self) -> None:
        """Looks at the checkpoints' predictions, and at the counts of all 1-shot results."""
        super().make()
        records: list[Record] = []
        for key, row in self.context.one_shot().iterrows():
            records += rate_records(
                failures(Outcomes.from_counts(self.context.results.counts[key])),
                dataset=row.dataset,
                protocol=row.protocol_digest,
                recipe=row.recipe,
                fusion=row.fusion,
                fold=row.fold,
                training_seed=row.train_seed or 0,
            )
        if records:
            self.context.save(None, "failure-rates-from-counts", records)
        else:
            missing = "no 1-shot result given, so nothing is counted from results"
            self.context.problems.append(f"{self.name}: {missing}")

    def measure(self, model: FigureModel) -> Found:
        """Evaluates all 1-shot episodes, each distinct question once, and shows some."""
        episodes = model.episodes()
        outcomes = {}
        for question, mask in model.predictions([spec for _, spec in episodes]):
            labels = model.data.source.read_labels(question.target).numpy().astype(np.int64)
            outcomes[question] = pixel_outcome(mask, labels, question.ways[0].class_id)
        columns = np.array([outcomes[question_of(spec)] for _, spec in episodes], dtype=np.int64).T
        names = ("hit", "wrong", "lost", "clear", "other")
        of_fold = Outcomes(**dict(zip(names, columns, strict=True)))
        found = failures(of_fold)
        chosen: list[tuple[str, int]] = []
        shown: set[str] = set()
        for rule in RULES:
            draws = Draws("figure", self.name, self.options.seed, model.fold, rule)
            matching = np.flatnonzero(found[rule])
            chosen += [(rule, place) for place in examples(draws, matching, episodes, shown)]
        if chosen:
            self._pictures(model, [(rule, *episodes[i], float(of_fold.iou[i])) for rule, i in chosen])
        self.records += rate_records(found, **model.columns)
        return found

    def _pictures(self, model: FigureModel, shown: Sequence[tuple[str, int, EpisodeSpec, float]]) -> None:
        """The predictions of (rule, seed, episode, IoU); of SAAM its attention too."""
        specs = [spec for _, _, spec, _ in shown]
        masks = dict(model.predictions(specs))
        attention = attention_maps(model, specs) if has_attention(model) else {}
        rows: list[GridRow] = []
        for rule, seed, spec, iou in shown:
            query, truth = model.picture(spec.query, spec.class_id)
            pictures = [(model.marked(spec.supports[0], spec.class_id), ""), (spotlight(query, truth), "")]
            if attention:
                values = model.on_pixels(spec.query, attention[Support.first_of(spec), spec.query])
                pictures.append((overlay(model.network_view(spec.query), unit_range(values)), ""))
            pictures.append((judged(query, masks[question_of(spec)], truth), f"IoU {100 * iou:.0f} %"))
            record = {"rule": rule, **episode_record(seed, spec), "iou": iou}
            rows.append((f"{rule}:\n{model.class_name(spec.class_id)}", pictures, record))
        columns = ["support", "truth", *(["attention"] if attention else []), "prediction"]
        title = f"{model.label}, {model.data.dataset} fold {model.fold}\n{LEGEND}"
        name = f"{self.name}-{model.variant}-fold{model.fold}"
        self.save_grid(name, rows, columns, title, scale=Attention.scale if attention else "")

    def plot(self, found: Mapping[FigureModel, Found]) -> Figure:
        """Rates with Wilson's 95 % intervals: a panel a fold, in it a group of bars a method."""
        by_fold: dict[str, Groups] = {}
        for model, one in found.items():
            rates = {rule: rate_estimate(int(match.sum()), len(match)) for rule, match in one.items()}
            by_fold[f"fold {model.fold}"] = {**by_fold.get(f"fold {model.fold}", {}), model.label: rates}
        return draw(
            by_fold, f"{self.context.dataset}: failures by rule, 1-shot episodes, from the predictions"
        )


def rate_records(found: Found, **columns: str | int) -> list[Record]:
    """How often each rule matches, as rows of a table."""
    records = []
    for name, match in found.items():
        rate = rate_estimate(int(match.sum()), len(match))
        numbers = {"episodes": len(match), "matching": int(match.sum()), "rate": rate.value}
        records.append({**columns, "rule": name, **numbers, "low": rate.low, "high": rate.high})
    return records


def examples(draws: Draws, matching: Ints, episodes: Sequence[SeededEpisode], shown: set[str]) -> list[int]:
    """Draws a few of the matching episodes, of queries that were not ``shown`` yet; adds theirs to it."""
    chosen: list[int] = []
    for place in draws.sample(matching.tolist(), len(matching)):
        query = episodes[place][1].query
        if len(chosen) < _PER_RULE and query not in shown:
            chosen.append(place)
            shown.add(query)
    return chosen


def draw(by_fold: Mapping[str, Groups], title: str) -> Figure:
    """Rates of each rule: a panel a fold, in it a group of bars a method."""
    most = max(map(len, by_fold.values()))
    return bar_chart(
        (max(3.0 + 1.2 * most, 6.5), 2.3 * len(by_fold) + 1.2),
        by_fold,
        KINDS,
        title=title,
        unit="% of the episodes",
        limits=(0, None),
        title_size=8,
        legend_columns=6 if most > 4 else 3,
    )
