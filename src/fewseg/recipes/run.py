"""Training and evaluating a recipe."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from fewseg.data.draws import Draws
from fewseg.data.episodes import EpisodeSampler
from fewseg.data.fold_data import FoldData
from fewseg.data.protocols import Protocol
from fewseg.data.recorded import Episodes, RecordedEpisodes
from fewseg.data.training_sampler import TrainingSampler
from fewseg.data.transforms import EvalView
from fewseg.engine.batches import Batches, CachedBatches, FreshBatches
from fewseg.engine.checkpoint import Checkpoint, split_json
from fewseg.engine.environment import environment
from fewseg.engine.evaluate import Evaluator
from fewseg.engine.feature_store import Extractor, FeatureStore, View
from fewseg.engine.result_schema import as_json
from fewseg.engine.results import RunResult
from fewseg.engine.train import Run, train
from fewseg.engine.train_config import TrainConfig
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.registry import MethodConfig, method_name
from fewseg.metrics.scores import miou
from fewseg.recipes.recipe import Evaluation, Recipe

logger = logging.getLogger(__name__)


def build_method(recipe: Recipe) -> FewShotSegmenter:
    """Builds a recipe's method; initial weights depend on the training seed alone."""
    seed = recipe.train.seed if recipe.train else 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(Draws("initial weights", seed).below(2**63))
        method: FewShotSegmenter = recipe.method.build()
    return method.to(memory_format=torch.channels_last)


def train_recipe(
    recipe: Recipe, data: FoldData, folder: Path, *, progress: bool = True, devices: int = 1
) -> Path:
    """Trains a recipe on a fold; goes on where an earlier run in ``folder`` stopped.

    Returns:
        The path of the checkpoint.

    Raises:
        ValueError: the recipe has nothing to train.
    """
    config = recipe.train
    if config is None:
        raise ValueError(f"{recipe.name} has nothing to train: evaluate it as it is")
    fabric = Fabric(accelerator="auto", devices=devices, precision=config.precision)
    fabric.launch()
    shown = data.train.images_with_any(data.split.base, config.min_area)
    config = config.for_images(len(shown), fabric.world_size)
    method = build_method(recipe).to(fabric.device)
    method.check_training_ways(config.ways)
    batches = _batches(recipe, config, method, data, fabric, progress)
    validate = _held_out_score(recipe, config, data) if config.validate_every else None
    run = Run(folder=folder, method_config=recipe.method, data=data, recipe=recipe.name, validate=validate)
    return train(method, config, batches, run, fabric, progress=progress)


def _batches(
    recipe: Recipe,
    config: TrainConfig,
    method: FewShotSegmenter,
    data: FoldData,
    fabric: Fabric,
    progress: bool,
) -> Batches:
    sampler = TrainingSampler(
        data.train,
        data.split,
        shots=config.shots,
        class_first=config.class_first,
        min_area=config.min_area,
        seed=config.seed,
        drop_novel=config.drop_novel,
        held_out_classes=config.held_out,
        ways=config.ways,
    )
    ranks = {"rank": fabric.global_rank, "world": fabric.world_size}
    if not config.cached_views:
        return FreshBatches(
            sampler,
            data.source,
            config.view,
            batch=config.batch,
            seed=config.seed,
            workers=config.workers,
            **ranks,
        )
    if not method.backbone.config.fixed:
        raise ValueError(
            "cached_views needs a frozen backbone with batch-norm in eval mode: its maps must not change; "
            "set train.cached_views to 0"
        )
    store = training_store(recipe, method, data)
    with fabric.rank_zero_first():
        store.ensure(data.train.ids, progress=progress)
    return CachedBatches(sampler, store, batch=config.batch, seed=config.seed, **ranks)


def training_store(recipe: Recipe, method: FewShotSegmenter, data: FoldData) -> FeatureStore:
    """The features of the plain view and of the recipe's cached random views; evaluation reads view 0.

    Of a frozen trunk its own maps are kept, for all methods and folds alike; of a trained one what the method
    makes of them, which is smaller, of no use to another, and gone with the store.
    """
    views: tuple[View, ...] = (EvalView(recipe.size),)
    dtype = torch.float32
    if recipe.train is not None and recipe.train.cached_views:
        views += (recipe.train.view,) * recipe.train.cached_views
    if recipe.train is None or recipe.train.precision == "bf16-mixed":
        dtype = torch.bfloat16
    fixed = method.backbone.config.fixed
    network = method.backbone if fixed else Extractor(method)
    copied = copy.deepcopy(network).eval().to(dtype).to(memory_format=torch.channels_last)
    return FeatureStore(copied, data.source, views, dtype=dtype, temporary=not fixed)


def _held_out_score(recipe: Recipe, config: TrainConfig, data: FoldData) -> Any:
    protocol = replace(
        recipe.protocol,
        name="held-out base classes",
        episodes=config.validation_episodes,
        seeds=(0,),
        query_order="class_first",
        label_size="network",
    )
    sampler = EpisodeSampler(data.train, data.split, protocol, 1, classes=config.held_out)

    stores: list[FeatureStore] = []

    def score(method: FewShotSegmenter) -> float:
        if not stores or not method.backbone.config.fixed:
            stores[:] = [training_store(recipe, method, data)]
        return miou(Evaluator(method, data.source, stores[0], progress=False).run(sampler), config.held_out)

    return score


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
        progress: show bars.

    Returns:
        One result for each of ``evaluations`` (the recipe's by default). A line whose file is there
        already, from the same checkpoint, config, protocol and version, is read and not run again, so
        that an interrupted evaluation goes on.
    """
    method.to(best_device())
    drop = recipe.train is not None and recipe.train.drop_novel
    recipe = replace(recipe, protocol=replace(recipe.protocol, drop_novel_training_images=drop))
    store = training_store(recipe, method, data)
    precision = "bf16" if store.dtype == torch.bfloat16 else "fp32"
    evaluator = Evaluator(method, data.source, store, precision=precision, progress=progress)
    results = []
    for line in evaluations or recipe.evaluations:
        episodes = recorded or EpisodeSampler(
            data.test, data.split, recipe.protocol, line.shots, ways=line.ways
        )
        results.append(_evaluate_line(recipe, line, episodes, evaluator, about, data, folder, tag))
    return results


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
                "size": recipe.size,
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
    kind = f"{several}{line.shots}shot-{line.fusion.kind}{support}{replayed}{tag}{changed}"
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
    result.save(folder / place, counts)
    return result
