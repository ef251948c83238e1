"""Training a recipe, and the stores that training and evaluation read."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fewseg.data.episodes import EpisodeSampler, TrainingSampler
from fewseg.data.folds import FoldData
from fewseg.data.transforms import eval_view
from fewseg.engine.batches import Batches, CachedBatches, FreshBatches
from fewseg.engine.choices import Precision
from fewseg.engine.environment import environment, precision_on
from fewseg.engine.evaluate import Evaluator, Line
from fewseg.engine.executors import launch, leads
from fewseg.engine.features import Extractor, FeatureStore, View
from fewseg.engine.train import LAST, Run, train
from fewseg.engine.train_config import TrainConfig
from fewseg.methods.base import FewShotSegmenter
from fewseg.metrics.scores import miou
from fewseg.ops.files import check_writable, one_process
from fewseg.recipes.options import TrainOptions
from fewseg.recipes.recipe import Recipe
from fewseg.recipes.registry import recipe
from fewseg.recipes.resolve import best_device, build_method

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)


def train_with(options: TrainOptions) -> Path:
    """Trains the recipe of the options."""
    environment()  # the revision is that of the start
    chosen = replace(recipe(options.recipe), method=options.method, train=options.train)
    data = chosen.read(options.fold, options.root)
    name = f"{chosen.name}-fold{options.fold}-seed{options.train.seed}"
    folder = options.out or Path("runs") / name
    return train_recipe(chosen, data, folder, progress=not options.quiet, devices=options.devices)


def train_recipe(
    recipe: Recipe, data: FoldData, folder: Path, *, progress: bool = True, devices: int = 1
) -> Path:
    """Trains a recipe on a fold, or goes on where an earlier run in ``folder`` stopped; the checkpoint."""
    config = recipe.train
    if config is None:
        raise ValueError(f"{recipe.name} has nothing to train: evaluate it as it is")
    if config.precision == "auto":
        fast = precision_on(best_device()) == "bf16"
        config = replace(config, precision="bf16-mixed" if fast else "32-true")
        recipe = replace(recipe, train=config)
    if not leads():  # a further process of a training whose first one has the folder
        return _train(recipe, config, data, folder, progress, devices)
    check_writable(folder / LAST)
    folder.mkdir(parents=True, exist_ok=True)
    with one_process(folder, "trains into"):
        return _train(recipe, config, data, folder, progress, devices)


def _train(
    recipe: Recipe, config: TrainConfig, data: FoldData, folder: Path, progress: bool, devices: int
) -> Path:
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="auto", devices=devices, precision=config.precision)
    launch(fabric)
    if config.precision == "bf16-mixed" and precision_on(fabric.device) != "bf16":
        logger.warning(
            "this machine has no bfloat16 instructions, so that training in it is up to six times slower: "
            "stop, and train with --train.precision 32-true"
        )
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
        data.held_out(config.held_out).train if config.held_out else data.train,
        data.split,
        shots=config.shots,
        class_first=config.class_first,
        min_area=config.min_area,
        seed=config.seed,
        drop_novel=config.drop_novel,
        novel_pixels=config.novel_pixels,
        held_out_classes=config.held_out,
        ways=config.ways,
        queries=config.queries,
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
    store = training_store(recipe, method, data, scaled=bool(config.held_out))
    with fabric.rank_zero_first():
        store.ensure(data.train.ids, progress=progress)
    return CachedBatches(sampler, store, batch=config.batch, seed=config.seed, **ranks)


def training_store(
    recipe: Recipe,
    method: FewShotSegmenter,
    data: FoldData,
    precision: Precision | None = None,
    *,
    scaled: bool = True,
) -> FeatureStore:
    """The features of the plain view and of the recipe's cached random views; evaluation reads view 0.

    Their type is that of ``precision``; by default that of ``precision_of``.

    Of a frozen trunk its own maps are kept, for all methods and folds alike; of a trained one what the method
    makes of them, which is smaller, of no use to another, and gone with the store. Losses never read the
    scales of inference: only where the store serves an evaluation too is it ``scaled``.
    """
    views: tuple[View, ...] = (eval_view(recipe.size, recipe.protocol.aspect),)
    if recipe.train is not None and recipe.train.cached_views:
        views += (recipe.train.view,) * recipe.train.cached_views
    dtype = torch.bfloat16 if (precision or precision_of(recipe)) == "bf16" else torch.float32
    fixed = method.backbone.config.fixed
    network = (method.network if scaled else method.backbone) if fixed else Extractor(method)
    copied = copy.deepcopy(network).eval().to(dtype).to(memory_format=torch.channels_last)
    return FeatureStore(copied, data.source, views, dtype=dtype, temporary=not fixed)


def precision_of(recipe: Recipe) -> Precision:
    """The precision of an evaluation where none is given.

    What the machine does well (:func:`~fewseg.engine.environment.precision_on`); fp32 for what was trained in
    another precision than bf16.
    """
    low = recipe.train is None or recipe.train.precision in ("auto", "bf16-mixed")
    return precision_on(best_device()) if low else "fp32"


def _held_out_score(recipe: Recipe, config: TrainConfig, data: FoldData) -> Any:
    protocol = replace(
        recipe.protocol,
        name="held-out base classes",
        episodes=config.validation_episodes,
        seeds=(0,),
        query_order="class_first",
        label_size="network",
    )
    held_out = data.held_out(config.held_out)
    sampler = EpisodeSampler(held_out.test, held_out.split, protocol, 1)

    stores: list[FeatureStore] = []

    def score(method: FewShotSegmenter) -> float:
        if not stores or not method.backbone.config.fixed:
            stores[:] = [training_store(recipe, method, data)]
        (counts,) = Evaluator(method, data.source, stores[0], progress=False).run([Line(episodes=sampler)])
        return miou(counts, config.held_out)

    return score
