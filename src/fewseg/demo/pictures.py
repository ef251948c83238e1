"""Example episodes as pictures: support, query, truth and what each method says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from fewseg.data.episode_spec import EpisodeSpec
from fewseg.data.episodes import EpisodeSampler
from fewseg.data.source import Source
from fewseg.data.transforms import binary_mask
from fewseg.engine.evaluate import Evaluator
from fewseg.fusion import Fusion
from fewseg.metrics import count
from fewseg.reporting.marked_pictures import Picture, judged, picture_of, spotlight


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """One column of the pictures.

    Attributes:
        label: its heading.
        evaluator: of the method.
        shots: how many of the episode's supports it is given.
        fusion: how they become one answer.
    """

    label: str
    evaluator: Evaluator
    shots: int
    fusion: Fusion


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A marked query.

    Attributes:
        label: of its predictor.
        picture: the query, pale outside the marks, errors coloured.
        iou: of the mask, in [0, 1].
    """

    label: str
    picture: Picture
    iou: float


@dataclass(frozen=True, kw_only=True)
class Example:
    """One episode in pictures.

    Attributes:
        class_name: what is to be found.
        supports: annotated pictures of it; the first is the one of 1-shot.
        query: the picture to be marked.
        truth: the query, pale outside the object.
        predictions: one for each predictor.
    """

    class_name: str
    supports: tuple[Picture, ...]
    query: Picture
    truth: Picture
    predictions: tuple[Prediction, ...]


def choose_episodes(sampler: EpisodeSampler, per_class: int) -> list[EpisodeSpec]:
    """Returns the first episodes of each class of the first test seed: drawn by number, not picked."""
    chosen: dict[int, list[EpisodeSpec]] = {c: [] for c in sampler.classes}
    for spec in sampler.episodes(sampler.protocol.seeds[0]):
        if len(chosen[spec.class_id]) < per_class:
            chosen[spec.class_id].append(spec)
    return [spec for specs in chosen.values() for spec in specs]


def show(
    spec: EpisodeSpec, source: Source, class_names: Mapping[int, str], predictors: Sequence[Predictor]
) -> Example:
    """Marks one query by every predictor.

    Args:
        spec: the episode, with at least as many supports as any predictor takes.
        source: its pictures.
        class_names: class id -> name.
        predictors: the columns.
    """
    query, truth = _read(source, spec.query, spec.class_id)
    predictions = []
    for p in predictors:
        logits = p.evaluator.plain(replace(spec, supports=spec.supports[: p.shots]), p.fusion)
        predicted = (logits[1] > logits[0]).numpy()
        counts = count(predicted, truth)
        iou = float(counts.fg_inter / max(int(counts.fg_union), 1))
        predictions.append(Prediction(label=p.label, picture=judged(query, predicted, truth), iou=iou))
    return Example(
        class_name=class_names[spec.class_id],
        supports=tuple(spotlight(*_read(source, id, spec.class_id)) for id in spec.supports),
        query=query,
        truth=spotlight(query, truth),
        predictions=tuple(predictions),
    )


def _read(source: Source, id: str, class_id: int) -> tuple[Picture, Picture]:
    mask: Tensor = binary_mask(source.read_labels(id), class_id)
    return picture_of(source.read_image(id)), np.asarray(mask.numpy())
