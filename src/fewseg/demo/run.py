"""The demo's fold: a training set of base classes and a test set of all."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from fewseg.data.episodes import EpisodeSampler, TrainingSampler
from fewseg.data.folds import FoldData
from fewseg.data.index import build_index
from fewseg.data.source import JoinedSource
from fewseg.data.synthetic import SyntheticSource, synthetic_5i
from fewseg.data.transforms import EvalView, TrainView
from fewseg.demo.options import DemoOptions
from fewseg.demo.pretrain import pretrain, read_cells
from fewseg.demo.report import DemoReport, Example, Predictor, choose_episodes, show, write_report
from fewseg.demo.summary import Gain, gain
from fewseg.engine.batches import CachedBatches
from fewseg.engine.checkpoint import Checkpoint, load_checkpoint, split_json
from fewseg.engine.evaluate import Evaluator, Line
from fewseg.engine.features import FeatureStore
from fewseg.engine.results import RunResult
from fewseg.engine.train import Run, train
from fewseg.engine.train_config import AdamW, TrainConfig
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.fusion import CrossGuided, MeanVector, ScoreAverage
from fewseg.methods.layers import PriorMap
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.registry import MethodConfig, method_name
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.ops.progress import progress_bar
from fewseg.recipes.recipe import Evaluation, Recipe
from fewseg.recipes.resolve import build_method
from fewseg.recipes.variants import MATCHER, PFENET, SCL_PFENET, Variant


def training_source(config: DemoOptions) -> SyntheticSource:
    """Pictures without any object of an unseen class, not even in the background."""
    base = synthetic_5i(config.fold).base
    return SyntheticSource(config.train_images, config.size, seed=config.seed, classes=base, split="train")


def test_source(config: DemoOptions) -> SyntheticSource:
    """Pictures of all twenty classes: an unseen class is to be told from seen ones and from clutter."""
    return SyntheticSource(config.test_images, config.size, seed=config.seed, split="val")


def read_fold(config: DemoOptions, cache: Path) -> FoldData:
    """Renders both sets and builds their index.

    Args:
        config: fold, sizes, seed.
        cache: folder for the index.
    """
    train, test = training_source(config), test_source(config)
    with progress_bar(config.progress) as bar:
        task = bar.add_task("rendering pictures", total=len(train) + len(test))
        for part in (train, test):
            for id in part.ids:
                part.read_image(id)
                bar.advance(task)
    source = JoinedSource("synthetic", [train, test])
    index = build_index(source, cache_dir=cache, progress=config.progress)
    return FoldData(
        dataset="synthetic-5i",
        source=source,
        split=synthetic_5i(config.fold),
        train=index.only(train.ids),
        test=index.only(test.ids),
    )


_PRIOR = PriorMap(level="layer3", masked_input=None)
_SCALES = (1.0, 0.5, 0.25)
_DROPOUT = 0.1  # of the mid-level feature; a head of a few hundred steps is far from fitting too well


def _recipe(
    config: DemoOptions,
    data: FoldData,
    name: str,
    method: MethodConfig,
    *evaluations: Evaluation,
    variant: Variant | None = None,
) -> Recipe:
    """All methods share one training config, and with it the cached features.

    Pictures are not changed at random: a rendered set has as many of them as it needs.
    """
    training = TrainConfig(
        steps=config.steps,
        batch=config.batch,
        view=TrainView(size=config.size, scale=(1.0, 1.0), rotate=0.0, flip=0.0, blur=0.0),
        class_first=1.0,
        min_area=config.protocol.min_area,
        optimiser=AdamW(lr=config.lr),
        save_every=config.steps,
        seed=config.seed,
    )
    return Recipe(
        name=name,
        variant=variant or Variant(),
        method=method,
        data=lambda fold, root: data,
        train=training,
        size=config.size,
        protocol=config.protocol,
        evaluations=evaluations,
    )


def pfenet(config: DemoOptions, data: FoldData, weights: Path) -> Recipe:
    """PFENet; K shots by the mean of their vectors and prior maps."""
    method = PFENetConfig(
        backbone=config.backbone(weights),
        channels=config.width,
        prior=_PRIOR,
        scales=_SCALES,
        mid_dropout=_DROPOUT,
    )
    return _recipe(
        config,
        data,
        "demo_pfenet",
        method,
        Evaluation(shots=1),
        Evaluation(shots=config.shots),
        variant=PFENET,
    )


def _scl(config: DemoOptions, weights: Path | None) -> SCLPFENetConfig:
    return SCLPFENetConfig(
        backbone=config.backbone(weights),
        channels=config.width,
        prior=_PRIOR,
        scales=_SCALES,
        mid_dropout=_DROPOUT,
    )


def scl(config: DemoOptions, data: FoldData, weights: Path) -> Recipe:
    """SCL on PFENet; K shots by the average of their scores and by the cross-guided module."""
    return _recipe(
        config,
        data,
        "demo_scl",
        _scl(config, weights),
        Evaluation(shots=1, fusion=ScoreAverage()),
        Evaluation(shots=config.shots, fusion=ScoreAverage()),
        Evaluation(shots=config.shots, fusion=CrossGuided()),
        variant=SCL_PFENET,
    )


def untrained(config: DemoOptions, data: FoldData) -> Recipe:
    """SCL's network before any training, backbone and head: the floor."""
    evaluation = Evaluation(shots=1, fusion=ScoreAverage())
    return _recipe(config, data, "demo_untrained", _scl(config, None), evaluation)


def matcher(config: DemoOptions, data: FoldData, weights: Path) -> Recipe:
    """Cosine to a foreground and a background prototype on the same backbone: no head to train."""
    method = MatcherConfig(backbone=config.backbone(weights))
    return _recipe(
        config,
        data,
        "demo_matcher",
        method,
        Evaluation(shots=1),
        Evaluation(shots=config.shots),
        variant=MATCHER,
    )


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
    trained, about = load_checkpoint(train(method, config, batches, run, fabric, progress=place.progress))
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
    lines = [
        Line(
            episodes=EpisodeSampler(data.test, data.split, recipe.protocol, evaluation.shots),
            fusion=evaluation.fusion,
        )
        for evaluation in recipe.evaluations
    ]
    started = time.perf_counter()
    results, found = [], evaluator.run(lines)
    seconds = (time.perf_counter() - started) / len(lines)
    for evaluation, counts in zip(recipe.evaluations, found, strict=True):
        result = RunResult.from_counts(
            counts,
            classes=data.split.novel,
            method=method_name(recipe.method),
            variant=recipe.variant.name,
            recipe=recipe.name,
            dataset=data.dataset,
            fold=data.split.fold,
            shots=evaluation.shots,
            fusion=evaluation.fusion.kind,
            protocol=recipe.protocol,
            sizes=(recipe.size,),
            config={"method": recipe.method, "fusion": evaluation.fusion},
            class_split=split_json(data.split),
            wall_seconds=seconds,
            checkpoint=about.digest,
            training=about.training,
        )
        result.save(result_path(place.out, recipe.name, evaluation), counts)
        results.append(result)
    return evaluator, tuple(results)


def result_path(folder: Path, recipe: str, evaluation: Evaluation) -> Path:
    """Returns where ``evaluate`` writes one result."""
    return folder / f"{recipe}-{evaluation.shots}shot-{evaluation.fusion.kind}.json"


log = logging.getLogger(__name__)

_RESULTS = "demo-results"  # a name of its own: the folder is emptied at every run
_EXAMPLES = 2  # episodes of each unseen class that the report shows


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo found.

    Attributes:
        report: the HTML file.
        results: one for each line of the table, the floor first.
        seconds: stage -> wall time.
    """

    report: Path
    results: tuple[RunResult, ...]
    seconds: dict[str, float]


def run_demo(options: DemoOptions) -> DemoResult:
    """Renders the set, trains the backbone and both heads, tests on unseen classes, writes the report.

    The same options give the same numbers on the same machine. Results of an earlier demo in
    ``options.out`` are replaced; anything else there is left alone.

    Raises:
        ValueError: an option is invalid.
        OSError: ``options.out`` cannot be written.
    """
    shutil.rmtree(options.out / _RESULTS, ignore_errors=True)
    (options.out / _RESULTS).mkdir(parents=True)
    cache = tempfile.TemporaryDirectory(prefix="cache-", dir=options.out, ignore_cleanup_errors=True)
    with repeatable(options.threads), cache as folder:
        return _run(options, Path(folder))


def _run(config: DemoOptions, cache: Path) -> DemoResult:
    clock = Clock()
    with clock.stage("rendering"):
        data = read_fold(config, cache)
    place = Workplace(data=data, cache=cache, out=config.out / _RESULTS, progress=config.progress)
    weights = config.out / _RESULTS / "backbone.safetensors"
    with clock.stage("backbone"):
        cells = read_cells(data.source, data.train.ids, data.split.base)
        right = pretrain(
            config.backbone(None), config.pretrain, cells, weights, seed=config.seed, progress=config.progress
        )
    log.info("the backbone names %.0f %% of the object cells of its last steps", 100 * right)
    evaluators: dict[str, Evaluator] = {}
    results: list[RunResult] = []
    for recipe, trained in (
        (untrained(config, data), False),
        (matcher(config, data, weights), False),
        (pfenet(config, data, weights), True),
        (scl(config, data, weights), True),
    ):
        with clock.stage(f"training {recipe.name.removeprefix('demo_')}" if trained else "testing"):
            method, about = train_head(recipe, place) if trained else _as_built(recipe)
        with clock.stage("testing"):
            evaluators[recipe.name], found = evaluate(recipe, method, about, place)
            results += found
    with clock.stage("pictures"):
        examples = _examples(config, place, evaluators)
    gains = _gains(config, place.out)
    report = config.out / "report.html"
    content = DemoReport(
        config=config,
        data=data,
        results=tuple(results),
        gains=gains,
        examples=examples,
        seconds=clock.seconds,
        cell_accuracy=right,
    )
    write_report(report, content)
    return DemoResult(report=report, results=tuple(results), seconds=clock.seconds)


def _as_built(recipe: Recipe) -> tuple[FewShotSegmenter, Checkpoint]:
    return build_method(recipe), Checkpoint(config=recipe.method)


def _gains(config: DemoOptions, results: Path) -> tuple[Gain, ...]:
    """SCL over PFENet in one shot, and the cross-guided module over the average in K."""
    average, guided = (Evaluation(shots=config.shots, fusion=f) for f in (ScoreAverage(), CrossGuided()))
    one = Evaluation(shots=1, fusion=ScoreAverage())
    scl = {e: result_path(results, "demo_scl", e) for e in (one, average, guided)}
    pfenet = result_path(results, "demo_pfenet", Evaluation(shots=1))
    return (
        gain("SCL over PFENet, 1 shot", scl[one], over=pfenet),
        gain(f"SCL, {config.shots} shots, cross-guided over average", scl[guided], over=scl[average]),
    )


def _examples(config: DemoOptions, place: Workplace, evaluators: dict[str, Evaluator]) -> tuple[Example, ...]:
    """The first episodes of each unseen class, marked by both methods."""
    data, scl = place.data, evaluators["demo_scl"]
    predictors = (
        Predictor(label="PFENet, 1 shot", evaluator=evaluators["demo_pfenet"], shots=1, fusion=MeanVector()),
        Predictor(label="SCL, 1 shot", evaluator=scl, shots=1, fusion=ScoreAverage()),
        Predictor(
            label=f"SCL, {config.shots} shots, CGM", evaluator=scl, shots=config.shots, fusion=CrossGuided()
        ),
    )
    sampler = EpisodeSampler(data.test, data.split, config.protocol, config.shots)
    specs = choose_episodes(sampler, _EXAMPLES)
    return tuple(show(spec, data.source, data.split.class_names, predictors) for spec in specs)
