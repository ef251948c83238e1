"""SRPNet's Fig. 7 and SD-AANet's Fig. 13: failures by rule, how often each occurs, and a few of each.

Each rule uses only the pixel counts of an episode. Source of the kinds: SRPNet
(Ding et al. 2022), Fig. 7 (a similar object; all but the monotonous background is kept), SD-AANet (Zhao et
al. 2022), Fig. 13 (a very small target, a target missed). The papers show pictures and give no rule; these
rules are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from fewseg.data.draws import Draws
from fewseg.data.episodes import EpisodeSpec
from fewseg.metrics import EpisodeCounts
from fewseg.reports.figures.base import CheckpointFigure, GridRow, Record
from fewseg.reports.figures.drawing import LEGEND, Groups, bar_chart, overlay, unit_range
from fewseg.reports.figures.intervals import rate_estimate
from fewseg.reports.figures.maps import Attention, attention_maps, has_attention
from fewseg.reports.figures.model import FigureModel, SeededEpisode, Support, episode_record, question_of
from fewseg.reports.marked_pictures import Bools, judged, spotlight
from fewseg.types import IGNORE

FAILED = 0.5
"""An episode has failed when its IoU is below this."""
MISSED = 0.1
KEPT = 0.25
SIMILAR = 0.5
TINY = 0.02
_PER_RULE = 2

Ints = npt.NDArray[np.int64]
PIXELS = ("hit", "wrong", "lost", "clear", "other")
"""Columns of a frame of outcomes, one row per episode, in pixels without ignored ones.

hit: true positives; wrong: false positives; lost: false negatives; clear: true negatives; other: false
positives on labelled objects of other classes, which are missing where only counts are known.
"""


def outcomes_of(counts: EpisodeCounts) -> pd.DataFrame:
    """The outcomes of the counts of 1-way episodes: all columns but ``other``."""
    hit = counts.fg_inter
    columns = (hit, counts.fg_pred - hit, counts.fg_true - hit, counts.bg_inter)
    return pd.DataFrame(dict(zip(PIXELS, columns, strict=False)))


def pixel_outcome(predicted: Bools, labels: Ints, class_id: int) -> tuple[int, int, int, int, int]:
    """``PIXELS`` of one prediction (H, W) on class ids (H, W)."""
    known, target = labels != IGNORE, labels == class_id
    wrong = predicted & known & ~target
    return (
        int((predicted & target).sum()),
        int(wrong.sum()),
        int((~predicted & target).sum()),
        int((~predicted & known & ~target).sum()),
        int((wrong & (labels != 0)).sum()),
    )


RULES = ("missed target", "similar class", "background kept", "tiny target")
KINDS = {name: name for name in ("failed", *RULES, "none of these")}


def failures(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Which outcomes match each rule, which failed, and which failed without matching any: one column each.

    An episode fails with an IoU below ``FAILED``; only failed ones match a rule. The rule "similar class"
    needs the column ``other``.
    """
    target = outcomes.hit + outcomes.lost
    matches = {"missed target": _share(outcomes.hit, target) < MISSED}
    if "other" in outcomes:
        matches["similar class"] = _share(outcomes.other, outcomes.hit + outcomes.wrong) >= SIMILAR
    background = outcomes.wrong - outcomes.get("other", 0)  # without objects of other classes
    matches["background kept"] = _share(background, background + outcomes.clear) >= KEPT
    matches["tiny target"] = _share(target, target + outcomes.wrong + outcomes.clear) < TINY
    failed = iou_of(outcomes) < FAILED
    rules = pd.DataFrame({name: failed & match for name, match in matches.items()})
    return pd.DataFrame({"failed": failed, **rules, "none of these": failed & ~rules.any(axis=1)})


def iou_of(outcomes: pd.DataFrame) -> pd.Series:
    """IoU of each episode; 0 where nothing is predicted or true."""
    return _share(outcomes.hit, outcomes.hit + outcomes.wrong + outcomes.lost)


def _share(part: pd.Series, whole: pd.Series) -> pd.Series:
    return (part / whole).fillna(0)


class Failures(CheckpointFigure[pd.DataFrame]):
    """A plot of how often each rule matches, and pictures of a few episodes of each."""

    name = "failures"
    shows = "failures by rule, how often and a few of each (SRPNet 7, SD-AANet 13)"
    needs = "any checkpoint; 1-shot results for the rules that counts can show"

    def make(self) -> None:
        """Applies the rules to the checkpoints' predictions, and to the counts of all 1-shot results."""
        super().make()
        records: list[Record] = []
        for key, row in self.context.one_shot().iterrows():
            records += rate_records(
                failures(outcomes_of(self.context.results.counts[key])),
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

    def measure(self, model: FigureModel) -> pd.DataFrame:
        """Evaluates all 1-shot episodes, each distinct one once, and shows some."""
        episodes = model.episodes()
        outcomes = {}
        for question, mask in model.predictions([spec for _, spec in episodes]):
            labels = model.data.source.read_labels(question.target).numpy().astype(np.int64)
            outcomes[question] = pixel_outcome(mask, labels, question.ways[0].class_id)
        frame = pd.DataFrame([outcomes[question_of(spec)] for _, spec in episodes], columns=PIXELS)
        matches, ious = failures(frame), iou_of(frame)
        chosen: list[tuple[str, int]] = []
        shown: set[str] = set()
        for rule in RULES:
            draws = Draws("figure", self.name, self.options.seed, model.fold, rule)
            matching = np.flatnonzero(matches[rule])
            chosen += [(rule, i) for i in examples(draws, matching, episodes, shown)]
        if chosen:
            self._pictures(model, [(rule, *episodes[i], float(ious[i])) for rule, i in chosen])
        self.records += rate_records(matches, **model.columns)
        return matches

    def _pictures(self, model: FigureModel, shown: Sequence[tuple[str, int, EpisodeSpec, float]]) -> None:
        """Draws the predictions of (rule, seed, episode, IoU), and the attention of SAAM."""
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

    def draw_all(self, measured: Mapping[FigureModel, pd.DataFrame]) -> None:
        """Draws the rates with Wilson's 95 % intervals: a panel per fold, a group of bars per method."""
        by_fold: dict[str, Groups] = {}
        for model, matches in measured.items():
            rates = {rule: rate_estimate(int(m.sum()), len(m)) for rule, m in matches.items()}
            by_fold[f"fold {model.fold}"] = {**by_fold.get(f"fold {model.fold}", {}), model.label: rates}
        title = f"{self.context.dataset}: failures by rule, 1-shot episodes, from the predictions"
        self.context.save(draw(by_fold, title), "failure-rates", self.records)


def rate_records(matches: pd.DataFrame, **columns: str | int) -> list[Record]:
    """How often each rule matches, as rows of a table."""
    records = []
    for name, matching in matches.items():
        rate = rate_estimate(int(matching.sum()), len(matching))
        numbers = {"episodes": len(matching), "matching": int(matching.sum()), "rate": rate.value}
        records.append({**columns, "rule": name, **numbers, "low": rate.low, "high": rate.high})
    return records


def examples(draws: Draws, matching: Ints, episodes: Sequence[SeededEpisode], shown: set[str]) -> list[int]:
    """Draws a few of the matching episodes with queries not in ``shown``, and adds these queries to it."""
    chosen: list[int] = []
    for i in draws.sample(matching.tolist(), len(matching)):
        query = episodes[i][1].query
        if len(chosen) < _PER_RULE and query not in shown:
            chosen.append(i)
            shown.add(query)
    return chosen


def draw(by_fold: Mapping[str, Groups], title: str) -> Figure:
    """Draws the rates of each rule: a panel per fold, a group of bars per method."""
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
