"""The demo's stages on the toolkit's own engine: cached features, training of a head, evaluation.

Everything runs on the CPU, also where there is a GPU: the numbers are to be the same on every run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from fewseg.data.episodes import EpisodeSampler
from fewseg.data.fold_data import FoldData
from fewseg.data.training_sampler import TrainingSampler
from fewseg.data.transforms import EvalView
from fewseg.engine.batches import CachedBatches
from fewseg.engine.checkpoint import Checkpoint, load_method, split_json
from fewseg.engine.evaluate import Evaluator
from fewseg.engine.feature_store import FeatureStore
from fewseg.engine.results import RunResult
from fewseg.engine.train import Run, train
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.registry import method_name
from fewseg.recipes.recipe import Evaluation, Recipe
from fewseg.recipes.run import build_method


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where the stages read and write.

    Attributes:
        data: the fold.
        cache: folder for cached features.
        out: folder for results and checkpoints.
        progress: show progress bars.
    """

    data: FoldData
    cache: Path
    out: Path
    progress: bool = True


@dataclass(kw_only=True)
class Clock:
    """Wall time of named stages, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the block to a stage."""
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


@contextmanager
def repeatable(threads: int) -> Iterator[None]:
    """Fixes the number of CPU threads and refuses operations whose result is not the same every time.

    New tensors are not filled first, as torch does by default in this mode: that costs a tenth of the time
    and changes nothing where nothing is read before it is written.
    """
    before, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(strict)
        memory.fill_uninitialized_memory = filled


def feature_store(recipe: Recipe, method: FewShotSegmenter, place: Workplace) -> FeatureStore:
    """Features of every picture as it is, for training and for tests, shared by methods of one backbone."""
    views = [EvalView(recipe.size)]
    return FeatureStore(method.backbone, place.data.source, views, folder=place.cache, dtype=torch.float32)


def train_head(recipe: Recipe, place: Workplace) -> tuple[FewShotSegmenter, Checkpoint]:
    """Trains a recipe's head on cached features; returns the method, ready to test, and its checkpoint."""
    config = recipe.train
    assert config is not None
    method = build_method(recipe)
    store = feature_store(recipe, method, place)
    store.ensure(place.data.train.ids, progress=place.progress)
    sampler = TrainingSampler(
        place.data.train,
        place.data.split,
        class_first=config.class_first,
        min_area=config.min_area,
        seed=config.seed,
    )
    batches = CachedBatches(sampler, store, batch=config.batch, seed=config.seed)
    fabric = Fabric(accelerator="cpu", devices=1, precision=config.precision)
    fabric.launch()
    run = Run(
        folder=place.out / recipe.name, method_config=recipe.method, data=place.data, recipe=recipe.name
    )
    trained, about = load_method(train(method, config, batches, run, fabric, progress=place.progress))
    return trained.to(memory_format=torch.channels_last), about


def evaluate(
    recipe: Recipe, method: FewShotSegmenter, about: Checkpoint, place: Workplace
) -> tuple[Evaluator, tuple[RunResult, ...]]:
    """Tests a method on the unseen classes and writes one result file for each of its evaluations.

    Args:
        recipe: evaluations, protocol, size.
        method: to be tested.
        about: its checkpoint; without a digest for a method that was not trained.
        place: data and folders.

    Returns:
        The evaluator, which keeps what it computed, and the results.
    """
    data = place.data
    store = feature_store(recipe, method, place)
    evaluator = Evaluator(method, data.source, store, progress=place.progress)
    results = []
    for evaluation in recipe.evaluations:
        started = time.perf_counter()
        sampler = EpisodeSampler(data.test, data.split, recipe.protocol, evaluation.shots)
        counts = evaluator.run(sampler, evaluation.fusion)
        result = RunResult.from_counts(
            counts,
            classes=data.split.novel,
            method=method_name(recipe.method),
            recipe=recipe.name,
            dataset=data.dataset,
            fold=data.split.fold,
            shots=evaluation.shots,
            fusion=evaluation.fusion.kind,
            protocol=recipe.protocol,
            config={"method": recipe.method, "fusion": evaluation.fusion, "size": recipe.size},
            class_split=split_json(data.split),
            wall_seconds=time.perf_counter() - started,
            training={"checkpoint": about.digest, **about.training},
        )
        result.save(result_path(place.out, recipe.name, evaluation), counts)
        results.append(result)
    return evaluator, tuple(results)


def result_path(folder: Path, recipe: str, evaluation: Evaluation) -> Path:
    """Returns where ``evaluate`` writes one result."""
    return folder / f"{recipe}-{evaluation.shots}shot-{evaluation.fusion.kind}.json"
