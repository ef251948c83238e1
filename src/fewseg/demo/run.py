"""The demo from top to bottom."""

from __future__ import annotations

import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fewseg.data.episodes import EpisodeSampler
from fewseg.demo import methods
from fewseg.demo.config import DemoConfig
from fewseg.demo.data import read_fold
from fewseg.demo.pictures import Example, Predictor, choose_episodes, show
from fewseg.demo.pretrain import pretrain, read_cells
from fewseg.demo.report import DemoReport, write_report
from fewseg.demo.stages import Clock, Workplace, evaluate, repeatable, result_path, train_head
from fewseg.demo.summary import Gain, gain
from fewseg.engine.checkpoint import Checkpoint
from fewseg.engine.evaluate import Evaluator
from fewseg.engine.results import RunResult
from fewseg.fusion import CrossGuided, MeanVector, ScoreAverage
from fewseg.methods.base import FewShotSegmenter
from fewseg.recipes.recipe import Evaluation, Recipe
from fewseg.recipes.run import build_method

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


def run(config: DemoConfig) -> DemoResult:
    """Renders the set, trains the backbone and both heads, tests on unseen classes, writes the report.

    The same config gives the same numbers on the same machine. Results of an earlier demo in
    ``config.out`` are replaced; anything else there is left alone.

    Raises:
        ValueError: the config asks for what cannot be.
        OSError: ``config.out`` cannot be written.
    """
    shutil.rmtree(config.out / _RESULTS, ignore_errors=True)
    (config.out / _RESULTS).mkdir(parents=True)
    cache = tempfile.TemporaryDirectory(prefix="cache-", dir=config.out, ignore_cleanup_errors=True)
    with repeatable(config.threads), cache as folder:
        return _run(config, Path(folder))


def _run(config: DemoConfig, cache: Path) -> DemoResult:
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
        (methods.untrained(config, data), False),
        (methods.matcher(config, data, weights), False),
        (methods.pfenet(config, data, weights), True),
        (methods.scl(config, data, weights), True),
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


def _gains(config: DemoConfig, results: Path) -> tuple[Gain, ...]:
    """SCL over PFENet in one shot, and the cross-guided module over the average in K."""
    average, guided = (Evaluation(shots=config.shots, fusion=f) for f in (ScoreAverage(), CrossGuided()))
    one = Evaluation(shots=1, fusion=ScoreAverage())
    scl = {e: result_path(results, "demo_scl", e) for e in (one, average, guided)}
    pfenet = result_path(results, "demo_pfenet", Evaluation(shots=1))
    return (
        gain("SCL over PFENet, 1 shot", scl[one], over=pfenet),
        gain(f"SCL, {config.shots} shots, cross-guided over average", scl[guided], over=scl[average]),
    )


def _examples(config: DemoConfig, place: Workplace, evaluators: dict[str, Evaluator]) -> tuple[Example, ...]:
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
