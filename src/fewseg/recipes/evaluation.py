"""Evaluating a recipe: one pass for all its lines, and one result file for each."""

from __future__ import annotations

import copy
import hashlib
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from fewseg.data.episodes import EpisodeSampler, RecordedEpisodes
from fewseg.data.folds import FoldData
from fewseg.data.protocols import Protocol, protocol_of_any
from fewseg.engine.checkpoint import Checkpoint, check_split, split_json
from fewseg.engine.choices import Precision
from fewseg.engine.environment import environment
from fewseg.engine.evaluate import Evaluator, Line
from fewseg.engine.executors import Executor, RayWorkers, SingleProcess, launch_ranks, leads
from fewseg.engine.results import RunResult, as_json, digest
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.canet import IterativeConfig
from fewseg.methods.registry import MethodConfig, method_name
from fewseg.ops.files import check_writable, one_process
from fewseg.recipes.options import EvaluateOptions
from fewseg.recipes.recipe import Evaluation, Recipe
from fewseg.recipes.registry import RECIPES
from fewseg.recipes.resolve import best_device, resolve
from fewseg.recipes.run import precision_of, training_store

logger = logging.getLogger(__name__)


def evaluate(options: EvaluateOptions) -> list[RunResult]:
    """Evaluates a method on a fold's novel classes and writes one result file a line.

    A line whose file exists already, from the same checkpoint, config, protocol and version, is read and not
    run again; of lines that were killed the shards that were finished are read.
    """
    options.check()
    resolved = resolve(
        options.what,
        recipe_name=options.recipe,
        backbone=options.backbone,
        backbone_weights=options.backbone_weights,
    )
    chosen, about = resolved.known_recipe, resolved.about
    if options.image_scales:
        chosen = replace(chosen, method=_at_scales(chosen.method, options.image_scales))
    trained = about.class_split["fold"] if about.class_split else None
    fold = options.fold if options.fold is not None else trained
    if fold is None:
        raise ValueError(f"{options.what} does not name the fold it belongs to: give --fold")
    data = chosen.read(fold, options.root)
    if about.digest:  # a recipe without training has seen no class
        check_split(about, data.split, Path(options.what))
    if options.classes == "held-out":
        data = data.held_out(_held_out_classes(chosen, options))
    recorded = _recorded(options, chosen, data)
    protocol = replace(
        recorded.protocol if recorded else _protocol(options, chosen, data),
        drop_novel_training_images=chosen.train is not None and chosen.train.drop_novel,
        novel_pixels="background" if chosen.train is None else chosen.train.novel_pixels,
        backbone_bn=chosen.method.backbone.bn,
    )
    chosen = replace(chosen, protocol=protocol)
    method = resolved.load(backbone_weights=options.backbone_weights)  # slow: all else was checked before
    if options.image_scales:
        method.config = chosen.method
    lines = _lines(chosen, method, options, recorded)
    if method.image_scales:
        if any(line.sizes or line.output_sizes for line in lines):
            scales = ", ".join(f"{scale:g}" for scale in method.image_scales)
            raise ValueError(
                f"{type(method).__name__} reads images at {scales} times their own size: leave --sizes and "
                "--output-sizes out"
            )
        if protocol.aspect == "stretched":
            raise ValueError(
                f"protocol {protocol.name!r} stretches images to a square and {type(method).__name__} reads "
                "them at their own size: give a protocol of aspect 'kept', such as --protocol paper_scl"
            )
        chosen = replace(chosen, size=0)
    _check_fusions(protocol, lines)
    precision = precision_of(chosen) if options.precision == "auto" else options.precision
    test = _FoldTest(
        recipe=chosen, method=method, about=about, data=data, recorded=recorded, precision=precision
    )
    return _evaluate_lines(test, lines, options)


def _held_out_classes(chosen: Recipe, options: EvaluateOptions) -> tuple[int, ...]:
    """The base classes that the training of a checkpoint held out."""
    if chosen.train is None or not chosen.train.held_out:
        raise ValueError(
            f"{options.what} has seen all base classes: --classes held-out needs a checkpoint of a training "
            "with --train.held-out"
        )
    return chosen.train.held_out


def _at_scales(config: MethodConfig, scales: tuple[float, ...]) -> MethodConfig:
    """The config with other scales of its refinement."""
    if not isinstance(config, IterativeConfig):
        raise ValueError(
            f"--image-scales is for methods that feed their answer back, canet and scl-canet, not for "
            f"{method_name(config)}: leave it out"
        )
    if config.refinement.stop_early:
        logger.warning(
            "--image-scales: refinement.stop_early is off, as the answer of all scales is refined together"
        )
    return replace(config, refinement=replace(config.refinement, image_scales=scales, stop_early=False))


def _recorded(options: EvaluateOptions, chosen: Recipe, data: FoldData) -> RecordedEpisodes | None:
    """The episodes of manifests; None where none are given."""
    if not options.manifest:
        return None
    recorded = RecordedEpisodes(options.manifest, data.test)
    if recorded.fold != data.split.fold:
        raise ValueError(
            f"the manifests are of fold {recorded.fold}, the test is on fold {data.split.fold}: record "
            f"fold {data.split.fold} (`fewseg episodes {chosen.name} --fold {data.split.fold}`)"
        )
    return recorded


def _protocol(options: EvaluateOptions, chosen: Recipe, data: FoldData) -> Protocol:
    """The recipe's protocol, or the one that the options name, with their changes."""
    protocol = chosen.protocol
    if options.protocol is not None:
        protocol = protocol_of_any(options.protocol, data.dataset)
    if options.episodes is not None or options.seeds:
        protocol = replace(
            protocol,
            name=f"{protocol.name} (changed)",
            episodes=protocol.episodes if options.episodes is None else options.episodes,
            seeds=options.seeds or protocol.seeds,
        )
    return protocol


def _check_fusions(protocol: Protocol, lines: Sequence[Evaluation]) -> None:
    """Refuses lines of several shots with another fusion than the protocol's."""
    other = {line.fusion.kind for line in lines if line.shots > 1} - {protocol.fusion}
    if other and protocol.fusion != "any":
        raise ValueError(
            f"protocol {protocol.name!r} joins shots by {protocol.fusion!r}, not "
            f"{' or '.join(sorted(other))}: give --fusion {protocol.fusion}, or a protocol with fusion='any'"
        )


@dataclass(frozen=True, kw_only=True)
class _FoldTest:
    """A method on the test images of a fold: what all lines share."""

    recipe: Recipe  # with the protocol and the config of the test
    method: FewShotSegmenter
    about: Checkpoint
    data: FoldData
    recorded: RecordedEpisodes | None  # in place of drawn ones
    precision: Precision

    def sizes(self, wanted: Evaluation) -> tuple[int, ...]:
        """Sides of a line's inputs."""
        return wanted.sizes or (self.recipe.size,)

    def line(self, wanted: Evaluation) -> Line:
        """What the evaluator needs of a line."""
        drawn = self.recorded or EpisodeSampler(
            self.data.test, self.data.split, self.recipe.protocol, wanted.shots, ways=wanted.ways
        )
        return Line(
            episodes=drawn,
            fusion=wanted.fusion,
            on=wanted.on,
            sizes=self.sizes(wanted),
            output_sizes=wanted.output_sizes,
        )

    def metadata(self, wanted: Evaluation) -> dict[str, Any]:
        """A result's fields that describe its line."""
        return {
            "method": method_name(self.recipe.method),
            "variant": self.recipe.variant.name,
            "recipe": self.recipe.name,
            "dataset": self.data.dataset,
            "fold": self.data.split.fold,
            "train_seed": self.about.training.get("config", {}).get("seed", 0),
            "checkpoint": self.about.digest,
            "ways": wanted.ways,
            "shots": wanted.shots,
            "fusion": wanted.fusion.kind,
            "on": wanted.on,
            "sizes": self.sizes(wanted),
            "output_sizes": wanted.output_sizes,
            "precision": self.precision,
            "episodes": "recorded" if self.recorded else "drawn",
            "data": self.data.test.content_digest(),
            "config": as_json({"method": _without_folders(self.recipe.method), "fusion": wanted.fusion}),
            "class_split": split_json(self.data.split),
            "training": as_json(self.about.training),
        }

    def evaluator(
        self, sizes: Sequence[int], executor: Executor | None = None, *, progress: bool = False
    ) -> Evaluator:
        """The evaluator of all sizes, on this process's device."""
        self.method.to(best_device()).to(memory_format=torch.channels_last)
        recipe = self.recipe
        recipes = [recipe if s == recipe.size > 0 else replace(recipe, size=s, train=None) for s in sizes]
        return Evaluator(
            self.method,
            self.data.source,
            [training_store(r, self.method, self.data, self.precision) for r in recipes],
            precision=self.precision,
            executor=executor,
            progress=progress,
        )

    def executor(self, sizes: Sequence[int], options: EvaluateOptions) -> Executor:
        """The processes that share the work."""
        if options.ray_workers:
            sent = replace(self, method=copy.deepcopy(self.method).cpu(), recorded=None)
            return RayWorkers(partial(sent.evaluator, sizes), options.ray_workers)
        return launch_ranks(options.processes) if options.processes > 1 else SingleProcess()


def _evaluate_lines(
    test: _FoldTest, lines: Sequence[Evaluation], options: EvaluateOptions
) -> list[RunResult]:
    protocol = test.recipe.protocol
    tag = _tag(test.recipe) + ("" if options.protocol is None else f"-{options.protocol.replace('_', '-')}")
    tag += f"-{protocol.digest()[:6]}" if "(changed)" in protocol.name else ""
    tag += "-held-out" if options.classes == "held-out" else ""
    results: dict[Path, RunResult | None] = {}  # None: to be run
    todo: dict[Path, tuple[Evaluation, dict[str, Any]]] = {}
    every = [test.metadata(wanted) for wanted in lines]
    folder, writes = _work_folder(options.out, every, protocol), True
    for wanted, metadata in zip(lines, every, strict=True):
        path = options.out / _file_name(wanted, metadata, tag)
        results[path] = None if test.recorded else _done_before(path, protocol, metadata)
        if results[path] is None:
            todo[path] = (wanted, metadata)
        else:
            logger.info("%s exists already, from the same checkpoint and protocol", path)
    if todo:
        with _only_run(folder):
            sizes = tuple(dict.fromkeys(size for wanted, _ in todo.values() for size in test.sizes(wanted)))
            tested = [test.line(wanted) for wanted, _ in todo.values()]
            executor = test.executor(sizes, options)
            evaluator = test.evaluator(sizes, executor, progress=not options.quiet)
            work = folder and folder / _shards_name([metadata for _, metadata in todo.values()], tested)
            started = time.perf_counter()
            tables = evaluator.run(tested, work)
            seconds = (time.perf_counter() - started) / len(todo)
            for (path, (_, metadata)), counts in zip(todo.items(), tables, strict=True):
                result = results[path] = RunResult.from_counts(
                    counts,
                    classes=test.data.split.novel,
                    protocol=protocol,
                    wall_seconds=seconds,
                    **metadata,
                )
                if executor.writes:
                    result.save(path, counts)
            writes = executor.writes
    if writes and folder is not None:  # also where a kill came after the last result
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # there is none, or a different evaluation is unfinished there
            folder.parent.rmdir()
    return [result for result in results.values() if result is not None]


@contextmanager
def _only_run(folder: Path | None) -> Iterator[None]:
    """Keeps other runs of the same evaluation away; different ones may write results beside each other."""
    if folder is None or not leads():  # a further process of a run whose first one has the folder
        yield
        return
    check_writable(folder / "counts.npy")
    folder.mkdir(parents=True, exist_ok=True)
    with one_process(folder, "runs the same evaluation in"):
        try:
            yield
        finally:  # without a shard there is nothing to go on from
            for empty in (folder, folder.parent):
                with suppress(OSError):
                    empty.rmdir()


def _without_folders(config: MethodConfig) -> dict[str, Any]:
    """A method's config with weights by the name of their file, wherever it lies."""
    content: dict[str, Any] = as_json(config)
    weights = content["backbone"]["weights"]
    content["backbone"]["weights"] = weights and Path(weights).name
    return content


def _file_name(line: Evaluation, metadata: Mapping[str, Any], tag: str) -> str:
    several = f"{line.ways}way-" if line.ways > 1 else ""
    support = "-on-support" if line.on == "support" else ""
    replayed = "-recorded" if metadata["episodes"] == "recorded" else ""
    sizes = "-" + "+".join(str(size) for size in line.sizes) if line.sizes else ""
    if line.output_sizes:
        sizes += "-to-" + "+".join(str(size) for size in line.output_sizes)
    kind = f"{several}{line.shots}shot-{line.fusion.kind}{support}{sizes}{replayed}{tag}"
    return f"{metadata['recipe']}-fold{metadata['fold']}-seed{metadata['train_seed']}-{kind}.json"


def _done_before(path: Path, protocol: Protocol, metadata: Mapping[str, Any]) -> RunResult | None:
    """Reads a result of the same checkpoint, config, data, protocol and clean version of the code."""
    made_with = environment().versions
    if not path.exists() or "changed" in made_with.get("revision", ""):
        return None
    try:
        result = RunResult.load(path)
    except ValueError as error:
        logger.warning("%s; it is evaluated again", error)
        return None
    same = all(getattr(result, key) == value for key, value in metadata.items())
    return result if same and result.protocol == as_json(protocol) and result.versions == made_with else None


def _work_folder(out: Path, every: Sequence[Mapping[str, Any]], protocol: Protocol) -> Path | None:
    """Where shards of exactly this evaluation are kept; None where the code has no clean version."""
    made_with = environment().versions
    if "changed" in made_with.get("revision", ""):
        return None
    return out / ".unfinished" / digest([list(every), protocol, made_with, best_device().type])


def _shards_name(todo: Sequence[Mapping[str, Any]], lines: Sequence[Line]) -> str:
    """The folder of the shards of the lines that have no result yet."""
    episodes = hashlib.sha256(repr([line.specs() for line in lines]).encode()).hexdigest()
    return digest([list(todo), episodes])


def _tag(chosen: Recipe) -> str:
    """Tells files apart whose method or training is not the registered recipe's; the seed has a place."""
    registered = RECIPES[chosen.name]() if chosen.name in RECIPES else chosen
    changed, original = as_json([chosen.method, chosen.train]), as_json([registered.method, registered.train])
    for method, train in (changed, original):
        method["backbone"].pop("weights")  # where they lie changes nothing
        for name in ("seed", "save_every", "workers", *(_BY_EPOCHS if _has_epochs(registered) else ())):
            (train or {}).pop(name, None)
    return "" if changed == original else f"-{digest(changed)[:6]}"


_BY_EPOCHS = ("epochs", "steps")


def _has_epochs(recipe: Recipe) -> bool:
    """Whether the number of steps comes from the number of images, so that a trained config has another."""
    return recipe.train is not None and recipe.train.epochs is not None


def _lines(
    chosen: Recipe,
    method: FewShotSegmenter,
    options: EvaluateOptions,
    recorded: RecordedEpisodes | None = None,
) -> list[Evaluation]:
    """The recipe's own lines as far as they are wanted, and new ones for what it has no line for.

    A fusion of the kind that the method's config has is the config's own, with its settings: released CGM
    differs from the paper's. A line of the recipe that has settings of its own keeps them.
    """
    ways, shots = ((recorded.ways,), (recorded.shots,)) if recorded else (options.ways, options.shots)
    fusion = method.fusion
    listed = [replace(e, fusion=fusion) if e.fusion == type(fusion)() else e for e in chosen.evaluations]
    wanted = [method.fusion_named(name) for name in options.fusion]
    target = options.on or "query"
    one_target = options.on is not None or bool(options.fusion)
    targets = [target] if one_target else list(dict.fromkeys(e.on for e in listed))
    lines: list[Evaluation] = []
    for n, k, on in product(
        ways or sorted({e.ways for e in listed}), shots or sorted({e.shots for e in listed}), targets
    ):
        same = [e for e in listed if (e.ways, e.shots, e.on) == (n, k, on)]
        fusions = wanted
        if not wanted and same:
            lines += same
        elif not wanted and (ways or shots or options.on) and on == target:
            # fused as the recipe fuses K shots
            alike = [e for e in listed if e.shots == k and e.on == "query"] or listed
            fusions = list(dict.fromkeys(e.fusion for e in alike))
        lines += [Evaluation(ways=n, shots=k, fusion=f, on=on) for f in fusions]
    sizes, output_sizes = options.sizes, options.output_sizes
    if sizes or output_sizes:
        lines = [replace(line, sizes=sizes, output_sizes=output_sizes) for line in lines]
    return list(dict.fromkeys(lines))
