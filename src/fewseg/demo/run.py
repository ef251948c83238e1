"""The demo's stages: render pictures, train a backbone and two heads, test on unseen classes, report."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from fewseg.data.episodes import EpisodeSampler, TrainingSampler
from fewseg.data.folds import FoldData, JoinedSource
from fewseg.data.index import build_index
from fewseg.data.synthetic import SyntheticSource, synthetic_5i
from fewseg.data.transforms import EvalView, TrainView
from fewseg.demo.options import DemoOptions
from fewseg.demo.pretrain import pretrain, read_cells
from fewseg.demo.report import Panel, Predictor, choose_episodes, example_panels, write_report
from fewseg.engine.batches import CachedBatches
from fewseg.engine.checkpoint import Checkpoint, load_method, split_json
from fewseg.engine.evaluate import Evaluator
from fewseg.engine.features import FeatureStore
from fewseg.engine.results import RunResult
from fewseg.engine.train import Run, train
from fewseg.engine.train_config import AdamW, TrainConfig
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.fusion import CrossGuided, Fusion, MeanVector, ScoreAverage
from fewseg.methods.layers import PriorMap
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.registry import MethodConfig, method_name
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.ops.progress import progress_bar
from fewseg.recipes.recipe import Evaluation, Recipe
from fewseg.recipes.resolve import build_method
from fewseg.reports.compare import compare
from fewseg.reports.numbers import Estimate

logger = logging.getLogger(__name__)

_RESULTS = "demo-results"  # a name of its own: the folder is emptied at every run
_EXAMPLES = 2  # episodes of each unseen class that the report shows
_AVERAGE, _GUIDED = ScoreAverage(), CrossGuided()


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo found."""

    report: Path  # the HTML file
    results: tuple[RunResult, ...]  # one for each line of the table, the untrained network first
    seconds: dict[str, float]  # stage -> wall time


def run_demo(options: DemoOptions) -> DemoResult:
    """Renders the set, trains the backbone and both heads, tests on unseen classes, writes the report.

    The same options give the same numbers on the same machine. Results of an earlier demo in ``options.out``
    are replaced; anything else there is left alone.
    """
    shutil.rmtree(options.out / _RESULTS, ignore_errors=True)
    (options.out / _RESULTS).mkdir(parents=True)
    cache = tempfile.TemporaryDirectory(prefix="cache-", dir=options.out, ignore_cleanup_errors=True)
    with repeatable(options.threads), cache as folder:
        return _run(options, Path(folder))


def _run(options: DemoOptions, cache: Path) -> DemoResult:
    seconds: dict[str, float] = {}
    results, folder = [], options.out / _RESULTS
    with timed(seconds, "rendering"):
        data = read_fold(options, cache)
    weights = folder / "backbone.safetensors"
    with timed(seconds, "backbone"):
        cells, trunk = read_cells(data.source, data.train.ids, data.split.base), options.backbone(None)
        accuracy = pretrain(
            trunk, options.pretrain, cells, weights, seed=options.seed, progress=options.progress
        )
    logger.info("the backbone classifies %.0f %% of the object cells of its last steps right", 100 * accuracy)
    evaluators: dict[str, Evaluator] = {}
    for recipe in demo_recipes(options, data, weights):
        with timed(seconds, f"training {recipe.name.removeprefix('demo_')}" if recipe.train else "testing"):
            method, about = _train(recipe, data, cache, options) if recipe.train else _as_built(recipe)
        with timed(seconds, "testing"):
            evaluator = Evaluator(
                method, data.source, _features(recipe, method, data, cache), progress=options.progress
            )
            evaluators[recipe.name] = evaluator
            results += _evaluate(recipe, evaluator, about, data, folder)
    with timed(seconds, "pictures"):
        examples = _examples(options, data, evaluators)
    report = options.out / "report.html"
    write_report(
        report,
        options=options,
        data=data,
        results=results,
        differences=_differences(options, folder),
        examples=examples,
        seconds=seconds,
        cell_accuracy=accuracy,
    )
    return DemoResult(report=report, results=tuple(results), seconds=seconds)


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


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds the wall time of the block to a stage."""
    started = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started


def read_fold(options: DemoOptions, cache: Path) -> FoldData:
    """Renders both sets and builds their index, in a folder.

    No training picture shows an object of an unseen class, not even in the background; test pictures show all
    twenty classes, so that an unseen class must be distinguished from known ones and from clutter.
    """
    split = synthetic_5i(options.fold)
    train = SyntheticSource(
        options.train_images, options.size, seed=options.seed, classes=split.base, split="train"
    )
    test = SyntheticSource(options.test_images, options.size, seed=options.seed, split="val")
    with progress_bar(options.progress) as bar:
        task = bar.add_task("rendering pictures", total=len(train) + len(test))
        for part in (train, test):
            for id in part.ids:
                part.read_image(id)
                bar.advance(task)
    source = JoinedSource("synthetic", [train, test])
    index = build_index(source, cache_dir=cache, progress=options.progress)
    return FoldData(
        dataset="synthetic-5i",
        source=source,
        split=split,
        train=index.only(train.ids),
        test=index.only(test.ids),
    )


def demo_recipes(options: DemoOptions, data: FoldData, weights: Path) -> list[Recipe]:
    """The lines of the table: an untrained network, prototype matching without a head, PFENet and SCL.

    The heads share one training config, and with it the cached features. Pictures are not changed at random:
    a rendered set has as many of them as it needs.
    """
    training = TrainConfig(
        steps=options.steps,
        batch=options.batch,
        view=TrainView(size=options.size, scale=(1.0, 1.0), rotate=0.0, flip=0.0, blur=0.0),
        class_first=1.0,
        min_area=options.protocol.min_area,
        optimiser=AdamW(lr=options.lr),
        save_every=options.steps,
        seed=options.seed,
    )
    head: dict[str, Any] = {
        "channels": options.width,
        "prior": PriorMap(level="layer3", masked_input=None),
        "scales": (1.0, 0.5, 0.25),
        "mid_dropout": 0.1,  # a head of a few hundred steps is far from overfitting
    }
    trunk = options.backbone(weights)

    def recipe(name: str, method: MethodConfig, trained: bool, *lines: tuple[int, Fusion]) -> Recipe:
        return Recipe(
            name=f"demo_{name}",
            method=method,
            data=lambda fold, root: data,
            train=training if trained else None,
            size=options.size,
            protocol=options.protocol,
            evaluations=tuple(Evaluation(shots=shots, fusion=fusion) for shots, fusion in lines),
        )

    mean, several = MeanVector(), options.shots
    untrained = SCLPFENetConfig(backbone=options.backbone(None), **head)
    scl = SCLPFENetConfig(backbone=trunk, **head)
    return [
        recipe("untrained", untrained, False, (1, _AVERAGE)),
        recipe("matcher", MatcherConfig(backbone=trunk), False, (1, mean), (several, mean)),
        recipe("pfenet", PFENetConfig(backbone=trunk, **head), True, (1, mean), (several, mean)),
        recipe("scl", scl, True, (1, _AVERAGE), (several, _AVERAGE), (several, _GUIDED)),
    ]


def _features(recipe: Recipe, method: FewShotSegmenter, data: FoldData, cache: Path) -> FeatureStore:
    """Features of the plain view, for training and for tests, shared by methods of one backbone."""
    views = [EvalView(recipe.size)]
    return FeatureStore(method.backbone, data.source, views, folder=cache, dtype=torch.float32)


def _as_built(recipe: Recipe) -> tuple[FewShotSegmenter, Checkpoint]:
    return build_method(recipe), Checkpoint(config=recipe.method)


def _train(
    recipe: Recipe, data: FoldData, cache: Path, options: DemoOptions
) -> tuple[FewShotSegmenter, Checkpoint]:
    """Trains a recipe's head on cached features, always on the CPU, so that numbers repeat."""
    config = recipe.train
    assert config is not None
    method = build_method(recipe)
    store = _features(recipe, method, data, cache)
    store.ensure(data.train.ids, progress=options.progress)
    sampler = TrainingSampler(
        data.train, data.split, class_first=config.class_first, min_area=config.min_area, seed=config.seed
    )
    batches = CachedBatches(sampler, store, batch=config.batch, seed=config.seed)
    fabric = Fabric(accelerator="cpu", devices=1, precision=config.precision)
    fabric.launch()
    folder = options.out / _RESULTS / recipe.name
    run = Run(folder=folder, method_config=recipe.method, data=data, recipe=recipe.name)
    trained, about = load_method(train(method, config, batches, run, fabric, progress=options.progress))
    return trained.to(memory_format=torch.channels_last), about


def _evaluate(
    recipe: Recipe, evaluator: Evaluator, about: Checkpoint, data: FoldData, folder: Path
) -> list[RunResult]:
    """Tests a method on the unseen classes and writes one result file for each of its lines."""
    results = []
    for line in recipe.evaluations:
        started = time.perf_counter()
        sampler = EpisodeSampler(data.test, data.split, recipe.protocol, line.shots)
        counts = evaluator.run(sampler, line.fusion)
        result = RunResult.from_counts(
            counts,
            classes=data.split.novel,
            method=method_name(recipe.method),
            recipe=recipe.name,
            dataset=data.dataset,
            fold=data.split.fold,
            shots=line.shots,
            fusion=line.fusion.kind,
            protocol=recipe.protocol,
            config={"method": recipe.method, "fusion": line.fusion, "size": recipe.size},
            class_split=split_json(data.split),
            wall_seconds=time.perf_counter() - started,
            training={"checkpoint": about.digest, **about.training},
        )
        result.save(_path(folder, recipe.name, line.shots, line.fusion), counts)
        results.append(result)
    return results


def _path(folder: Path, recipe: str, shots: int, fusion: Fusion) -> Path:
    return folder / f"{recipe}-{shots}shot-{fusion.kind}.json"


def _differences(options: DemoOptions, folder: Path) -> dict[str, Estimate]:
    """SCL over PFENet with one shot, and the cross-guided fusion over the average with K."""
    pfenet, scl = (
        _path(folder, "demo_pfenet", 1, MeanVector()),
        _path(folder, "demo_scl", 1, _AVERAGE),
    )
    average, guided = (_path(folder, "demo_scl", options.shots, fusion) for fusion in (_AVERAGE, _GUIDED))
    return {
        "SCL over PFENet, 1 shot": compare(pfenet, scl).difference,
        f"SCL, {options.shots} shots, cross-guided over average": compare(average, guided).difference,
    }


def _examples(
    options: DemoOptions, data: FoldData, evaluators: dict[str, Evaluator]
) -> list[tuple[str, list[Panel]]]:
    """(class name, panels) of the first episodes of each unseen class, marked by both methods."""
    pfenet, scl = evaluators["demo_pfenet"], evaluators["demo_scl"]
    shots, names = options.shots, data.split.class_names
    predictors = (
        Predictor(label="PFENet, 1 shot", evaluator=pfenet, shots=1, fusion=MeanVector()),
        Predictor(label="SCL, 1 shot", evaluator=scl, shots=1, fusion=_AVERAGE),
        Predictor(label=f"SCL, {shots} shots, CGM", evaluator=scl, shots=shots, fusion=_GUIDED),
    )
    specs = choose_episodes(EpisodeSampler(data.test, data.split, options.protocol, shots), _EXAMPLES)
    return [
        (names[spec.class_id], example_panels(spec, data.source, names[spec.class_id], predictors))
        for spec in specs
    ]
