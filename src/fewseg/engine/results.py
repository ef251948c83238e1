"""The result of one evaluation: a JSON file of scores and, beside it, the integers they were made of.

``<name>.json`` has the scores as fractions (never percent), the protocol, the config, the class split and the
software; ``<name>.counts.npz`` has one row an episode (and way), so that two results can be compared by
episode.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fewseg.engine.counts_file import counts_path, load_counts
from fewseg.engine.environment import Environment, environment
from fewseg.engine.older_results import check_older
from fewseg.engine.result_checks import check_said_twice
from fewseg.engine.result_schema import SCHEMA, as_json, digest, read_checked
from fewseg.engine.result_seal import check_seal, sealed, without_seal
from fewseg.metrics import (
    EpisodeCounts,
    bootstrap_miou,
    dice,
    fb_iou,
    miou,
    per_class,
    std_over_seeds,
)
from fewseg.ops.files import atomic_path, atomic_write_text


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """Scores of one seed's episodes, fractions in [0, 1].

    Attributes:
        seed: the seed.
        episodes: how many episodes, whatever their ways.
        miou: mean over classes of foreground IoU.
        fb_iou: mean of foreground and background IoU over all episodes; the foreground is that of any way.
        dice: mean over classes of foreground Dice.
        per_class: class id to foreground IoU.
    """

    seed: int
    episodes: int
    miou: float
    fb_iou: float
    dice: float
    per_class: Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One method on one fold. Scores are fractions in [0, 1].

    Attributes:
        method: name in ``methods.registry``, e.g. "scl-pfenet".
        recipe: name of the recipe that trained it, or "".
        dataset: e.g. "pascal-5i".
        fold: index of the fold.
        ways: N.
        shots: K.
        fusion: how K shots became one answer, e.g. "average", "cross-guided", "iterative".
        on: what was segmented: "query", or "support" for the support images themselves.
        protocol: every choice that decides which episodes are drawn and how they are scored.
        protocol_digest: digest of ``protocol``; results are comparable when it is equal.
        seeds: one entry a seed.
        miou_mean: mean over seeds.
        miou_std: sample standard deviation over seeds; None for a single seed.
        miou_ci95: 95 % bootstrap interval over episodes of ``miou_mean``.
        fb_iou_mean: mean over seeds.
        dice_mean: mean over seeds.
        config: the method's config.
        class_split: which classes were trained on and which are tested.
        versions: software.
        hardware: one line about the machine.
        wall_seconds: time of the evaluation, in seconds.
        training: checkpoint digest and what else is known of the training; may be empty.
        schema: version of the layout that it was read from.
    """

    method: str
    recipe: str
    dataset: str
    fold: int
    ways: int
    shots: int
    fusion: str
    protocol: Mapping[str, Any]
    protocol_digest: str
    seeds: tuple[SeedResult, ...]
    miou_mean: float
    miou_std: float | None
    miou_ci95: tuple[float, float]
    fb_iou_mean: float
    dice_mean: float
    config: Mapping[str, Any]
    class_split: Mapping[str, Any]
    versions: Mapping[str, str]
    hardware: str
    wall_seconds: float
    training: Mapping[str, Any] = field(default_factory=dict)
    on: str = "query"
    schema: int = SCHEMA

    @property
    def classes(self) -> list[int]:
        """The fold's class ids."""
        return list(self.seeds[0].per_class)

    @property
    def class_names(self) -> dict[int, str]:
        """Class id to name, as far as ``class_split`` has ``class_names``."""
        return {int(c): str(name) for c, name in self.class_split.get("class_names", {}).items()}

    @property
    def per_class_mean(self) -> dict[int, float]:
        """Class id to foreground IoU, mean over seeds."""
        return {c: float(np.mean([s.per_class[c] for s in self.seeds])) for c in self.classes}

    @property
    def per_class_dice(self) -> dict[int, float]:
        """Class id to foreground Dice, 2 IoU / (1 + IoU) of each seed's summed counts; mean over seeds."""
        dice = {c: [2 * s.per_class[c] / (1 + s.per_class[c]) for s in self.seeds] for c in self.classes}
        return {c: float(np.mean(values)) for c, values in dice.items()}

    @staticmethod
    def from_counts(
        counts: EpisodeCounts,
        *,
        classes: Sequence[int],
        method: str,
        recipe: str,
        dataset: str,
        fold: int,
        shots: int,
        fusion: str,
        protocol: Any,
        config: Any,
        class_split: Any,
        wall_seconds: float,
        ways: int = 1,
        on: str = "query",
        protocol_digest: str | None = None,
        training: Mapping[str, Any] | None = None,
        made_with: Environment | None = None,
    ) -> RunResult:
        """Scores an episode table.

        Args:
            counts: all episodes of all seeds.
            classes: the fold's class ids.
            method: as the attribute of this name, and so are the next five.
            recipe: as the attribute.
            dataset: as the attribute.
            fold: as the attribute.
            shots: as the attribute.
            fusion: as the attribute.
            protocol: mapping or dataclass.
            config: mapping or dataclass.
            class_split: mapping or dataclass.
            wall_seconds: as the attribute.
            ways: as the attribute.
            on: as the attribute.
            protocol_digest: default: the protocol's own ``digest()``, or :func:`digest` of a mapping.
            training: mapping; default empty.
            made_with: default: this process.

        Raises:
            ValueError: a seed never drew one of the classes, the table is not of episodes of so many ways, or
                a value cannot be stored as a JSON mapping.
        """
        counts.check_ways(ways)
        made_with = made_with or environment()
        seeds = tuple(_score_seed(counts, int(s), classes) for s in np.unique(counts.seed))
        interval = bootstrap_miou(counts, classes)
        return RunResult(
            method=method,
            recipe=recipe,
            dataset=dataset,
            fold=fold,
            ways=ways,
            on=on,
            shots=shots,
            fusion=fusion,
            protocol=_mapping("protocol", protocol),
            protocol_digest=protocol_digest or _digest_of(protocol),
            seeds=seeds,
            miou_mean=float(np.mean([s.miou for s in seeds])),
            miou_std=std_over_seeds([s.miou for s in seeds]),
            miou_ci95=(interval.low, interval.high),
            fb_iou_mean=float(np.mean([s.fb_iou for s in seeds])),
            dice_mean=float(np.mean([s.dice for s in seeds])),
            config=_mapping("config", config),
            class_split=_mapping("class_split", class_split),
            versions=made_with.versions,
            hardware=made_with.hardware,
            wall_seconds=wall_seconds,
            training=_mapping("training", training or {}),
        )

    def save(self, path: str | Path, counts: EpisodeCounts) -> None:
        """Writes ``path`` (JSON) and ``<stem>.counts.npz`` beside it, each in one step, in today's schema.

        Raises:
            OSError: the disk is full or the folder cannot be written; earlier files are still there.
        """
        with atomic_path(counts_path(path)) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **counts.columns())
        stored = {"schema": SCHEMA} | asdict(replace(self, schema=SCHEMA))
        text = json.dumps(sealed(stored, path), indent=2, allow_nan=False, ensure_ascii=False)
        atomic_write_text(path, text + "\n")

    @staticmethod
    def load(path: str | Path) -> RunResult:
        """Reads and checks a result file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is truncated, edited, of a newer schema, or keys or values are missing or wrong.
        """
        found = read_checked(Path(path))
        check_seal(path, found)
        return _result_of(found)


def load_with_counts(path: str | Path) -> tuple[RunResult, EpisodeCounts]:
    """Reads a result and its counts and checks that the scores follow from the counts.

    The means are checked against the seeds, the protocol's digest against the protocol, and all else by the
    seal; in older files, which have none, by what follows from the rest (see ``older_results``).

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: one is damaged or was edited, or they do not belong together.
    """
    content = read_checked(Path(path))
    result, counts = _result_of(content), load_counts(path)
    try:
        counts.check_ways(result.ways)
    except ValueError as error:
        raise ValueError(f"{path} does not follow from {counts_path(path).name}: {error}") from error
    for stored in result.seeds:
        found = _score_seed(counts, stored.seed, result.classes)
        pairs = [(stored.miou, found.miou), (stored.fb_iou, found.fb_iou), (stored.dice, found.dice)]
        pairs += [(stored.per_class[c], found.per_class[c]) for c in result.classes]
        if stored.episodes != found.episodes or not all(abs(a - b) < 1e-9 for a, b in pairs):
            raise ValueError(
                f"{path} does not follow from {counts_path(path).name} (seed {stored.seed}: mIoU "
                f"{stored.miou:.6f} stored, {found.miou:.6f} counted): the file was edited or the two are of "
                "different runs; evaluate again"
            )
    check_said_twice(path, result)
    check_older(path, result, counts)
    check_seal(path, content, with_counts=True)
    return result, counts


def _result_of(found: Mapping[str, Any]) -> RunResult:
    """The result of a file's checked content."""
    seeds = tuple(
        SeedResult(**{**seed, "per_class": {int(c): v for c, v in seed["per_class"].items()}})
        for seed in found["seeds"]
    )
    low, high = found["miou_ci95"]
    return RunResult(**{**without_seal(found), "seeds": seeds, "miou_ci95": (low, high)})


def _mapping(name: str, value: Any) -> dict[str, Any]:
    plain = as_json(value)
    if not isinstance(plain, dict):
        raise ValueError(f"{name} is a {type(value).__name__}: a result needs a mapping or a dataclass there")
    return plain


def _digest_of(protocol: Any) -> str:
    own = getattr(protocol, "digest", None)
    return str(own()) if callable(own) else digest(protocol)


def _score_seed(counts: EpisodeCounts, seed: int, classes: Sequence[int]) -> SeedResult:
    table = counts.select(counts.seed == seed)
    try:
        return SeedResult(
            seed=seed,
            episodes=table.episodes,
            miou=miou(table, classes),
            fb_iou=fb_iou(table),
            dice=dice(table, classes),
            per_class=per_class(table, classes),
        )
    except ValueError as error:
        raise ValueError(f"seed {seed}: {error}") from error
