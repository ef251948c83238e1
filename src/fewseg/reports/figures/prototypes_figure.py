"""SD-AANet's Fig. 9: support prototypes of the novel classes by t-SNE, and how compact they are.

The paper draws 5 000 supports a fold. Many of those are the same image of the same class, whose prototype is
one point however often it is drawn: points are the different ones, and the data say how often each was drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fewseg.methods.pair_scorer import PairScorer
from fewseg.methods.prototypical import PrototypeSegmenter
from fewseg.reports.figures.bars import grouped_bars
from fewseg.reports.figures.data_files import Row
from fewseg.reports.figures.embedding import Embedding, embed, scatter, separation_row
from fewseg.reports.figures.silhouette import MetricName, silhouette_gain
from fewseg.reports.figures.study import Study
from fewseg.reports.figures.style import new_figure
from fewseg.reports.figures.subjects import NAMES, Opened, Shot, Subject, distinct_shots
from fewseg.types import EncodedShots, Features

NAME = "prototype-tsne"
STEMS = ("sdaanet_baseline", "sdaanet_saam", "sdaanet_sdpm", "sdaanet")
_METRIC: MetricName = "cosine"  # of SD-AANet's Eq. 13
_CLAIMS = (
    ("SDPM makes prototypes more compact", "sdaanet_baseline", "sdaanet_sdpm"),
    ("SDPM makes prototypes more compact, with SAAM", "sdaanet_saam", "sdaanet"),
    ("SAAM makes prototypes more discriminative", "sdaanet_baseline", "sdaanet_saam"),
)


def fits(subject: Subject) -> bool:
    """Whether it is a row of SD-AANet's Table III."""
    return subject.stem in STEMS


def make(study: Study) -> None:
    """Makes a figure for each fold, and one of the silhouettes of all folds."""
    rows: list[Row] = []
    by_fold: dict[int, dict[str, Embedding]] = {}
    dataset = ""
    for fold, subjects in study.wanted(
        NAME, fits, "checkpoint of SD-AANet's Table III (baseline, + SAAM, + SDPM, both)"
    ):
        missing = [NAMES[stem] for stem in STEMS if stem not in {s.stem for s in subjects}]
        if missing:
            study.problems.append(f"{NAME}, fold {fold}: no checkpoint of {', '.join(missing)}")
        ordered = sorted(subjects, key=lambda s: (STEMS.index(s.stem), s.seed))
        found: dict[str, Embedding] = {}
        for subject in ordered:
            with study.attempt(f"{NAME}, {subject.label} fold {fold}"):
                found[subject.stem] = _embedded(study, subject, rows)
        if found:
            opened = next(study.open(s) for s in ordered if s.stem in found)
            by_fold[fold], dataset = found, opened.data.dataset
            _of_fold(study, fold, found, opened)
    if by_fold:
        study.save(draw_silhouettes(by_fold, dataset), "prototype-silhouettes", rows)
        _claims(study, dataset, by_fold)


def support_prototypes(method: torch.nn.Module, features: Features, masks: Tensor) -> Tensor:
    """The prototype (n, d) that a method makes of each of n supports, and shows to its decoder.

    Of SD-AANet it is the gated one, of SCL v_pri, of PFENet and CANet the pooled feature; of methods that
    compare prototypes the foreground's.
    """
    if isinstance(method, PairScorer):
        return method.encode_shots(features, masks)["vectors"][:, 0].float()
    assert isinstance(method, PrototypeSegmenter)
    pooled = method.pooled(EncodedShots(features=features, masks=masks.unsqueeze(1)))
    return pooled.vectors[:, 1]


def prototypes_of(opened: Opened, shots: Sequence[Shot], progress: bool) -> Tensor:
    """Prototypes (n, d) of supports, each encoded once."""
    found = opened.over_shots(
        shots,
        lambda features, masks: support_prototypes(opened.method, features, masks).cpu(),
        f"prototypes of {opened.subject.label}",
        progress=progress,
    )
    return torch.cat(found)


def _embedded(study: Study, subject: Subject, rows: list[Row]) -> Embedding:
    opened = study.open(subject)
    drawn = distinct_shots(opened.episodes(1, study.episodes))
    points = prototypes_of(opened, list(drawn), study.progress).numpy()
    labels = np.array([shot.class_id for shot in drawn])
    found = embed(points, labels, _METRIC, seed=study.seed)
    lengths = np.linalg.norm(points, axis=1)
    zeros = int((lengths == 0).sum())
    if zeros:
        study.remarks.append(
            f"{NAME}, {subject.label} fold {subject.fold}: {zeros} of {len(points)} prototypes are zero; "
            "they have no direction and count as being at right angles to all others"
        )
    rows.append(
        separation_row(
            found,
            **subject.said,
            supports_drawn=sum(drawn.values()),
            zero_prototypes=zeros,
            median_length=float(np.median(lengths)),
        )
    )
    return found


def _of_fold(study: Study, fold: int, found: Mapping[str, Embedding], opened: Opened) -> None:
    drawn = distinct_shots(opened.episodes(1, study.episodes))
    names = {c: opened.data.split.class_names[c] for c in opened.data.split.novel}
    figure = draw_panels({NAMES[stem]: e for stem, e in found.items()}, names)
    figure.suptitle(
        f"{opened.data.dataset} fold {fold}, t-SNE on {_METRIC} distances:\n"
        f"{len(drawn)} different support prototypes of {sum(drawn.values())} drawn",
        fontsize=9,
    )
    rows: list[Row] = [
        {
            "method": NAMES[stem],
            "class": names[shot.class_id],
            "image": shot.image,
            "times_drawn": times,
            "x": float(point[0]),
            "y": float(point[1]),
        }
        for stem, e in found.items()
        for (shot, times), point in zip(drawn.items(), e.flat, strict=True)
    ]
    study.save(figure, f"{NAME}-fold{fold}", rows)


def draw_panels(found: Mapping[str, Embedding], names: dict[int, str]) -> Figure:
    """One panel a method, side by side."""
    figure = new_figure(2.7 * len(found), 3.3)
    for axes, (label, e) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        scatter(axes, e, names, label)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names), fontsize=8)
    return figure


def draw_silhouettes(by_fold: Mapping[int, Mapping[str, Embedding]], dataset: str) -> Figure:
    """Silhouettes of every fold, in the feature space and in t-SNE's plane."""
    figure = new_figure(3.0 + 1.6 * len(by_fold), 5.0)
    places = (("in the feature space, by cosine", "space"), ("in the plane of t-SNE", "plane"))
    for axes, (title, place) in zip(figure.subplots(2, 1), places, strict=True):
        groups = {
            f"fold {fold}": {stem: getattr(e, place).silhouette for stem, e in found.items()}
            for fold, found in by_fold.items()
        }
        grouped_bars(axes, groups, {stem: NAMES[stem] for stem in STEMS}, scale=1, unit="silhouette")
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_title(f"{dataset}: support prototypes, {title}", fontsize=9)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = 4 if len(by_fold) > 1 else 2
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8)
    return figure


def _claims(study: Study, dataset: str, by_fold: Mapping[int, Mapping[str, Embedding]]) -> None:
    for text, less, more in _CLAIMS:
        gains = {
            fold: (silhouette_gain(found[less].space, found[more].space), len(found[more].labels))
            for fold, found in by_fold.items()
            if less in found and more in found
        }
        quantity = f"silhouette by {_METRIC} of {NAMES[more]} less that of {NAMES[less]}"
        study.claim(text, dataset, quantity, gains)
