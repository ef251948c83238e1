"""The demo's stages: render pictures, train a backbone and two heads, test on unseen classes, report."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from fewseg.data.episodes import EpisodeSampler, TrainingSampler
from fewseg.data.folds import FoldData
from fewseg.data.index import build_index
from fewseg.data.source import JoinedSource
from fewseg.data.synthetic import SyntheticSource, synthetic_5i
from fewseg.data.transforms import EvalView, TrainView
from fewseg.demo.options import DemoOptions
from fewseg.demo.plan import explained, planned, seconds_per_step
from fewseg.demo.pretrain import pretrain, read_cells
from fewseg.demo.report import Panel, Predictor, choose_episodes, example_panels, write_report
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
from fewseg.methods.registry import method_name
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.metrics import EpisodeCounts, miou, paired_difference
from fewseg.ops.progress import progress_bar
from fewseg.recipes.recipe import Evaluation, Recipe
from fewseg.recipes.resolve import build_method
from fewseg.recipes.variants import MATCHER, PFENET, SCL_PFENET, Variant
from fewseg.reports.numbers import Estimate, estimate_of

logger = logging.getLogger(__name__)

_RESULTS = "demo-results"  # a name of its own: the folder is emptied at every run
_EXAMPLES = 2  # episodes of each unseen class that the report shows
_AVERAGE, _GUIDED = ScoreAverage(), CrossGuided()


@dataclass(frozen=True)
class DemoResult:
    """What the demo found."""

    report: Path  # the HTML file
    results: tuple[RunResult, ...]  # one for each line of the table, the untrained network first
    seconds: dict[str, float]  # stage -> wall time


def run_demo(options: DemoOptions) -> DemoResult:
    """Renders the set, trains the backbone and both heads, tests on unseen classes, writes the report.

    The same options give the same numbers on the same machine where the probe allows the same training, or is
    left out (``minutes`` 0); the report lists the options that were used. Results of an earlier demo in
    ``options.out`` are replaced; anything else there is left alone.
    """
    shutil.rmtree(options.out / _RESULTS, ignore_errors=True)
    (options.out / _RESULTS).mkdir(parents=True)
    cache = tempfile.TemporaryDirectory(prefix="cache-", dir=options.out, ignore_cleanup_errors=True)
    with repeatable(options.threads), cache as folder:
        if options.minutes:
            step = seconds_per_step(options)
            plan, seconds = planned(options, step)
            logger.info("%s", explained(options, plan, step, seconds))
            options = plan
        return _run(options, Path(folder))


@contextmanager
def repeatable(threads: int) -> Iterator[None]:
    """Fixes the number of CPU threads and refuses operations whose result is not the same every time."""
    before, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # torch's default here: a tenth of the time, for nothing
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
    """The methods of the table: an untrained network, prototype matching without a head, PFENet and SCL.

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
    one, guided = Evaluation(shots=1, fusion=_AVERAGE), Evaluation(shots=options.shots, fusion=_GUIDED)
    matcher = Recipe(
        name="demo_matcher",
        variant=MATCHER,
        method=MatcherConfig(backbone=trunk),
        data=lambda fold, root: data,
        train=None,
        size=options.size,
        protocol=options.protocol,
        evaluations=(Evaluation(shots=1), Evaluation(shots=options.shots)),
    )
    untrained = SCLPFENetConfig(backbone=options.backbone(None), **head)
    pfenet, scl = PFENetConfig(backbone=trunk, **head), SCLPFENetConfig(backbone=trunk, **head)
    return [
        replace(matcher, name="demo_untrained", variant=Variant(), method=untrained, evaluations=(one,)),
        matcher,
        replace(matcher, name="demo_pfenet", variant=PFENET, method=pfenet, train=training),
        replace(
            matcher,
            name="demo_scl",
            variant=SCL_PFENET,
            method=scl,
            train=training,
            evaluations=(one, replace(guided, fusion=_AVERAGE), guided),
        ),
    ]


def _run(options: DemoOptions, cache: Path) -> DemoResult:
    folder, progress = options.out / _RESULTS, options.progress
    seconds: dict[str, float] = {}
    with timed(seconds, "rendering"):
        data = read_fold(options, cache)
    weights = folder / "backbone.safetensors"
    with timed(seconds, "backbone"):
        cells = read_cells(data.source, data.train.ids, data.split.base)
        untrained, config, seed = options.backbone(None), options.pretrain, options.seed
        accuracy = pretrain(untrained, config, cells, weights, seed=seed, progress=progress)
    logger.info("backbone: %.0f %% of the object cells of its last steps are right", 100 * accuracy)

    def features(method: FewShotSegmenter) -> FeatureStore:
        """Of the plain view, for training and for tests, shared by methods of one backbone."""
        views = [EvalView(options.size)]
        return FeatureStore(method.backbone, data.source, views, folder=cache, dtype=torch.float32)

    evaluators: dict[str, Evaluator] = {}
    results: dict[str, RunResult] = {}
    counts: dict[str, EpisodeCounts] = {}
    for recipe in demo_recipes(options, data, weights):
        stage = f"training {recipe.name.removeprefix('demo_')}" if recipe.train else "testing"
        with timed(seconds, stage):
            method, about = build_method(recipe), Checkpoint(config=recipe.method)
            if recipe.train is not None:
                run = Run(
                    folder=folder / recipe.name, method_config=recipe.method, data=data, recipe=recipe.name
                )
                method, about = _trained(recipe.train, method, features(method), run, progress)
        with timed(seconds, "testing"):
            evaluator = Evaluator(method, data.source, features(method), progress=progress)
            evaluators[recipe.name] = evaluator
            for name, line_result, table in _evaluated(recipe, evaluator, data, about):
                line_result.save(folder / f"{name}.json", table)
                results[name], counts[name] = line_result, table
    with timed(seconds, "pictures"):
        examples = _examples(options, data, evaluators["demo_pfenet"], evaluators["demo_scl"])
    result = DemoResult(options.out / "report.html", tuple(results.values()), seconds)
    gains = differences(options.shots, data.split.novel, counts)
    write_report(result.report, options, data, result.results, gains, examples, seconds, accuracy)
    return result


def _trained(
    config: TrainConfig, method: FewShotSegmenter, store: FeatureStore, run: Run, progress: bool
) -> tuple[FewShotSegmenter, Checkpoint]:
    """Trains a head on cached features, always on the CPU, so that numbers repeat."""
    data = run.data
    store.ensure(data.train.ids, progress=progress)
    sampler = TrainingSampler(
        data.train, data.split, class_first=config.class_first, min_area=config.min_area, seed=config.seed
    )
    batches = CachedBatches(sampler, store, batch=config.batch, seed=config.seed)
    fabric = Fabric(accelerator="cpu", devices=1, precision=config.precision)
    fabric.launch()
    trained, about = load_checkpoint(train(method, config, batches, run, fabric, progress=progress))
    return trained.to(memory_format=torch.channels_last), about


def _evaluated(
    recipe: Recipe, evaluator: Evaluator, data: FoldData, about: Checkpoint
) -> Iterator[tuple[str, RunResult, EpisodeCounts]]:
    """Tests a method on the unseen classes: name, result and counts of each line."""
    lines = [
        Line(episodes=EpisodeSampler(data.test, data.split, recipe.protocol, e.shots), fusion=e.fusion)
        for e in recipe.evaluations
    ]
    started = time.perf_counter()
    tables = evaluator.run(lines)
    seconds = (time.perf_counter() - started) / len(tables)
    for line, counts in zip(recipe.evaluations, tables, strict=True):
        result = RunResult.from_counts(
            counts,
            classes=data.split.novel,
            method=method_name(recipe.method),
            variant=recipe.variant.name,
            recipe=recipe.name,
            dataset=data.dataset,
            fold=data.split.fold,
            shots=line.shots,
            fusion=line.fusion.kind,
            protocol=recipe.protocol,
            sizes=(recipe.size,),
            config={"method": recipe.method, "fusion": line.fusion},
            class_split=split_json(data.split),
            wall_seconds=seconds,
            checkpoint=about.digest,
            training=about.training,
        )
        yield f"{recipe.name}-{line.shots}shot-{line.fusion.kind}", result, counts


def differences(
    shots: int, classes: Sequence[int], counts: Mapping[str, EpisodeCounts]
) -> dict[str, Estimate]:
    """SCL over PFENet with one shot, and the cross-guided fusion over the average with K; in mIoU.

    A method that finds no object is compared with nothing.
    """
    gains, several = {}, f"scl-{shots}shot"
    for label, a, b in (
        ("SCL over PFENet, 1 shot", "pfenet-1shot-mean", "scl-1shot-average"),
        (f"SCL, {shots} shots, cross-guided over average", f"{several}-average", f"{several}-cross-guided"),
    ):
        pair = [counts[f"demo_{name}"] for name in (a, b)]
        if all(miou(table, classes) > 0 for table in pair):
            gains[label] = estimate_of(paired_difference(pair[0], pair[1], classes))
    return gains


def _examples(
    options: DemoOptions, data: FoldData, pfenet: Evaluator, scl: Evaluator
) -> list[tuple[str, list[Panel]]]:
    """(class name, panels) of the first episodes of each unseen class, marked by both methods."""
    k, names = options.shots, data.split.class_names
    predictors = (
        Predictor("PFENet, 1 shot", pfenet, 1, MeanVector()),
        Predictor("SCL, 1 shot", scl, 1, _AVERAGE),
        Predictor(f"SCL, {k} shots, CGM", scl, k, _GUIDED),
    )
    specs = choose_episodes(EpisodeSampler(data.test, data.split, options.protocol, k), _EXAMPLES)
    named = [(names[spec.class_id], spec) for spec in specs]
    return [(name, example_panels(spec, data.source, name, predictors)) for name, spec in named]
