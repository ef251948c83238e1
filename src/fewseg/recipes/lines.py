"""Evaluating a recipe: one result file for each of its lines."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fewseg.data.episodes import EpisodeSampler
from fewseg.data.fold_data import FoldData
from fewseg.data.protocols import Protocol
from fewseg.data.recorded import Episodes, RecordedEpisodes
from fewseg.engine.checkpoint import Checkpoint, split_json
from fewseg.engine.environment import environment
from fewseg.engine.evaluate import Evaluator, Precision
from fewseg.engine.multi_scale import MultiScaleEvaluator
from fewseg.engine.ray_workers import RayWorkers
from fewseg.engine.result_schema import as_json
from fewseg.engine.results import RunResult
from fewseg.engine.workforce import Workforce
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.registry import MethodConfig, method_name
from fewseg.recipes.recipe import Evaluation, Recipe
from fewseg.recipes.run import precision_of, training_store

logger = logging.getLogger(__name__)


def evaluate_recipe(
    recipe: Recipe,
    method: FewShotSegmenter,
    about: Checkpoint,
    data: FoldData,
    folder: Path,
    *,
    evaluations: Sequence[Evaluation] | None = None,
    recorded: RecordedEpisodes | None = None,
    tag: str = "",
    precision: Precision | None = None,
    workforce: Workforce | None = None,
    ray_workers: int = 0,
    progress: bool = True,
) -> list[RunResult]:
    """Evaluates a method on a fold's novel classes and writes one result file a line.

    Args:
        recipe: data, protocol, lines.
        method: the model, in eval mode.
        about: what its checkpoint says.
        data: the fold.
        folder: where the result files go.
        evaluations: the recipe's lines by default.
        tag: added to the names of the files, for a method that is not the recipe's own.
        recorded: replay these episodes instead of drawing them; N and K must be those of the lines.
        precision: of features and head; by default that of the training, bf16 where there is none.
        workforce: which processes share the work; this one by default.
        ray_workers: in its place: workers on a Ray cluster.
        progress: show bars.

    Returns:
        One result for each of ``evaluations`` (the recipe's by default). A line whose file is there
        already, from the same checkpoint, config, protocol and version, is read and not run again, so
        that an interrupted evaluation goes on.

    Raises:
        ValueError: a line has another fusion than the protocol allows.
    """
    drop = recipe.train is not None and recipe.train.drop_novel
    protocol = replace(
        recipe.protocol, drop_novel_training_images=drop, backbone_bn=method.backbone.config.bn
    )
    recipe = replace(recipe, protocol=protocol)
    _check_fusions(protocol, evaluations or recipe.evaluations)
    chosen = precision or precision_of(recipe)
    by_size: dict[int, Evaluator] = {}
    results = []
    for line in evaluations or recipe.evaluations:
        sizes = line.sizes or (recipe.size,)
        for size in sizes:
            if size not in by_size:
                by_size[size] = _at_size(
                    recipe, method, data, chosen, size, workforce=workforce, progress=progress
                )
        evaluator = _joined([by_size[size] for size in sizes])
        if ray_workers:
            make = partial(_on_a_worker, recipe, copy.deepcopy(method).cpu(), data, chosen, sizes)
            evaluator.workforce = RayWorkers(make, ray_workers)
        episodes = recorded or EpisodeSampler(
            data.test, data.split, recipe.protocol, line.shots, ways=line.ways
        )
        results.append(_evaluate_line(recipe, line, episodes, evaluator, about, data, folder, tag))
    return results


def _at_size(
    recipe: Recipe,
    method: FewShotSegmenter,
    data: FoldData,
    precision: Precision,
    size: int,
    *,
    workforce: Workforce | None = None,
    progress: bool,
) -> Evaluator:
    """The evaluator at one input size, on this process's device."""
    method.to(best_device()).to(memory_format=torch.channels_last)
    sized = recipe if size == recipe.size else replace(recipe, size=size, train=None)
    store = training_store(sized, method, data, precision)
    return Evaluator(method, data.source, store, precision=precision, workforce=workforce, progress=progress)


def _joined(scales: Sequence[Evaluator]) -> Evaluator:
    return scales[0] if len(scales) == 1 else MultiScaleEvaluator(scales)


def _on_a_worker(
    recipe: Recipe, method: FewShotSegmenter, data: FoldData, precision: Precision, sizes: Sequence[int]
) -> Evaluator:
    """What a Ray worker makes for itself."""
    return _joined([_at_size(recipe, method, data, precision, size, progress=False) for size in sizes])


def _check_fusions(protocol: Protocol, lines: Sequence[Evaluation]) -> None:
    """Refuses lines of several shots with another fusion than the protocol's.

    Raises:
        ValueError: there is one.
    """
    other = {line.fusion.kind for line in lines if line.shots > 1} - {protocol.fusion}
    if other and protocol.fusion != "any":
        raise ValueError(
            f"protocol {protocol.name!r} joins shots by {protocol.fusion!r}, not "
            f"{' or '.join(sorted(other))}: give --fusion {protocol.fusion}, or a protocol with fusion='any'"
        )


def best_device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _done_before(path: Path, protocol: Protocol, said: Mapping[str, Any]) -> RunResult | None:
    """Reads a result of the same checkpoint, config, data, protocol and clean version of the code."""
    made_with = environment().versions
    if not path.exists() or "changed" in made_with.get("revision", ""):
        return None
    try:
        found = RunResult.load(path)
    except ValueError as error:
        logger.warning("%s; it is made again", error)
        return None
    same = all(getattr(found, key) == value for key, value in said.items())
    return found if same and found.protocol == as_json(protocol) and found.versions == made_with else None


def _told(config: MethodConfig) -> dict[str, Any]:
    """A method's config as a result tells it: weights by the name of their file, wherever it lies."""
    told: dict[str, Any] = as_json(config)
    weights = told["backbone"]["weights"]
    told["backbone"]["weights"] = weights and Path(weights).name
    return told


def _evaluate_line(
    recipe: Recipe,
    line: Evaluation,
    episodes: Episodes,
    evaluator: Evaluator,
    about: Checkpoint,
    data: FoldData,
    folder: Path,
    tag: str,
) -> RunResult:
    """Reads or makes the result of one line."""
    seed = about.training.get("config", {}).get("seed", 0)
    said: dict[str, Any] = {
        "method": method_name(recipe.method),
        "recipe": recipe.name,
        "dataset": data.dataset,
        "fold": data.split.fold,
        "ways": line.ways,
        "shots": line.shots,
        "fusion": line.fusion.kind,
        "on": line.on,
        "config": as_json(
            {
                "method": _told(recipe.method),
                "fusion": line.fusion,
                "size": line.sizes or recipe.size,
                "precision": evaluator.precision,
                "data": data.test.content_digest(),
                "episodes": "recorded" if isinstance(episodes, RecordedEpisodes) else "drawn",
            }
        ),
        "class_split": split_json(data.split),
        "training": as_json({"checkpoint": about.digest, "seed": seed, **about.training}),
    }
    changed = f"-{recipe.protocol.digest()[:6]}" if "(changed)" in recipe.protocol.name else ""
    several = f"{line.ways}way-" if line.ways > 1 else ""
    support = "-on-support" if line.on == "support" else ""
    replayed = "-recorded" if isinstance(episodes, RecordedEpisodes) else ""
    sizes = "-" + "+".join(str(size) for size in line.sizes) if line.sizes else ""
    kind = f"{several}{line.shots}shot-{line.fusion.kind}{support}{sizes}{replayed}{tag}{changed}"
    place = f"{recipe.name}-fold{data.split.fold}-seed{seed}-{kind}.json"
    found = _done_before(folder / place, recipe.protocol, said)
    if found is not None and not isinstance(episodes, RecordedEpisodes):
        logger.info("%s is there already, from the same checkpoint and protocol", folder / place)
        return found
    started = time.perf_counter()
    counts = evaluator.run(episodes, line.fusion, on=line.on)
    seconds = time.perf_counter() - started
    result = RunResult.from_counts(
        counts, classes=data.split.novel, protocol=recipe.protocol, wall_seconds=seconds, **said
    )
    if evaluator.workforce.writes:
        result.save(folder / place, counts)
    return result
