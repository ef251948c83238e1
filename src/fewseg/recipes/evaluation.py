"""Evaluating a recipe: one result file for each of its lines."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from fewseg.data.episodes import Episodes, EpisodeSampler, RecordedEpisodes
from fewseg.data.folds import FoldData
from fewseg.data.protocols import Protocol, protocol_of_any
from fewseg.engine.checkpoint import Checkpoint, check_split, split_json
from fewseg.engine.environment import environment
from fewseg.engine.evaluate import Evaluator, MultiScaleEvaluator
from fewseg.engine.executors import RayWorkers, Workforce, launch_ranks
from fewseg.engine.precision import Precision
from fewseg.engine.results import RunResult, as_json, digest
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.fusion import Fusion
from fewseg.methods.registry import MethodConfig, method_name
from fewseg.recipes.recipe import Evaluation, Recipe
from fewseg.recipes.registry import RECIPES
from fewseg.recipes.resolve import best_device, resolve
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
    """Refuses lines of several shots with another fusion than the protocol's."""
    other = {line.fusion.kind for line in lines if line.shots > 1} - {protocol.fusion}
    if other and protocol.fusion != "any":
        raise ValueError(
            f"protocol {protocol.name!r} joins shots by {protocol.fusion!r}, not "
            f"{' or '.join(sorted(other))}: give --fusion {protocol.fusion}, or a protocol with fusion='any'"
        )


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
        "variant": recipe.variant.name,
        "recipe": recipe.name,
        "dataset": data.dataset,
        "fold": data.split.fold,
        "train_seed": seed,
        "checkpoint": about.digest,
        "ways": line.ways,
        "shots": line.shots,
        "fusion": line.fusion.kind,
        "on": line.on,
        "sizes": line.sizes or (recipe.size,),
        "precision": evaluator.precision,
        "episodes": "recorded" if isinstance(episodes, RecordedEpisodes) else "drawn",
        "data": data.test.content_digest(),
        "config": as_json({"method": _told(recipe.method), "fusion": line.fusion}),
        "class_split": split_json(data.split),
        "training": as_json(about.training),
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


def evaluate(
    what: str,
    *,
    recipe_name: str | None = None,
    fold: int | None = None,
    root: Path | None = None,
    out: Path = Path("results"),
    ways: Sequence[int] = (),
    shots: Sequence[int] = (),
    fusions: Sequence[str] = (),
    on: Literal["query", "support"] | None = None,
    sizes: Sequence[int] = (),
    episodes: int | None = None,
    seeds: Sequence[int] = (),
    protocol_name: str | None = None,
    backbone: str | None = None,
    backbone_weights: str | None = None,
    manifests: Sequence[Path] = (),
    precision: Precision | None = None,
    processes: int = 1,
    ray_workers: int = 0,
    progress: bool = True,
) -> list[RunResult]:
    """Evaluates and writes one result file for each line of the recipe.

    Args:
        what: path of a checkpoint, or the name of a recipe without training.
        recipe_name: whose data, protocol and lines to use; the checkpoint's own by default.
        fold: the checkpoint's own by default.
        root: folder of the data set.
        out: folder for the result files.
        ways: only these N; all of the recipe's by default.
        shots: only these K; all of the recipe's by default.
        fusions: only these (``kind`` of a fusion), for each N and K; the recipe's by default.
        on: segment the queries, or the support images themselves; the recipe's lines by default.
        sizes: multi-scale: input sides whose probabilities are added; each line's own by default.
        episodes: episodes a seed; the protocol's by default.
        seeds: the protocol's by default.
        protocol_name: a published protocol in place of the recipe's, such as "hsnet"; on a data set that
            nobody published it for it has the values for PASCAL-5i, and says so.
        backbone: another timm network for a recipe without training, with its published weights.
        backbone_weights: weights of the frozen trunk, where they moved or where others are wanted.
        manifests: recorded episodes to replay, one file a seed; they set protocol and shots.
        precision: of features and head; by default that of the training, bf16 where there is none.
        processes: that share the work; the script that calls this runs in each of them.
        ray_workers: workers on a Ray cluster that share the work.
        progress: show bars.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: the checkpoint or the manifests cannot be used or belong to another fold, nothing says
            which recipe, the method cannot use a fusion, or ``ways``, ``shots``, ``episodes`` or ``seeds``
            are given beside manifests, which set them.
    """
    if manifests and (ways or shots or episodes is not None or seeds or protocol_name is not None):
        raise ValueError(
            "manifests set ways, shots, episodes, seeds and protocol: leave --ways, --shots, --episodes, "
            "--seeds and --protocol out"
        )
    _check_processes(processes, ray_workers)
    if episodes is not None and episodes < 1:
        raise ValueError(f"--episodes {episodes}: give one episode a seed at least")
    found = resolve(what, recipe_name=recipe_name, backbone=backbone, backbone_weights=backbone_weights)
    chosen, about = found.known_recipe, found.about
    method = found.load(backbone_weights=backbone_weights)
    trained = about.class_split["fold"] if about.class_split else None
    wanted = fold if fold is not None else trained
    if wanted is None:
        raise ValueError(f"{what} does not say which fold it belongs to: give --fold")
    data = chosen.data(wanted, root)
    if about.digest:  # a recipe without training has seen no class
        check_split(about, data.split, Path(what))
    recorded = RecordedEpisodes(manifests, data.test) if manifests else None
    if recorded is not None:
        if recorded.fold != data.split.fold:
            raise ValueError(
                f"the manifests are of fold {recorded.fold}, the test is on fold {data.split.fold}: record "
                f"fold {data.split.fold} (`fewseg episodes {chosen.name} --fold {data.split.fold}`)"
            )
        ways, shots = (recorded.ways,), (recorded.shots,)
    evaluations = _at_sizes(_lines(chosen, method, ways, shots, fusions, on), sizes)
    protocol = chosen.protocol
    if protocol_name is not None:
        protocol = protocol_of_any(protocol_name, data.dataset)
    if episodes is not None or seeds:
        protocol = replace(
            protocol,
            name=f"{protocol.name} (changed)",
            episodes=protocol.episodes if episodes is None else episodes,
            seeds=tuple(seeds) or protocol.seeds,
        )
    if recorded is not None:
        protocol = recorded.protocol
    return evaluate_recipe(
        replace(chosen, protocol=protocol),
        method,
        about,
        data,
        out,
        evaluations=evaluations,
        recorded=recorded,
        tag=_tag(chosen) + ("" if protocol_name is None else f"-{protocol_name.replace('_', '-')}"),
        precision=precision,
        workforce=launch_ranks(processes) if processes > 1 else None,
        ray_workers=ray_workers,
        progress=progress,
    )


def _check_processes(processes: int, ray_workers: int) -> None:
    if processes < 1 or ray_workers < 0 or (processes > 1 and ray_workers):
        raise ValueError(
            f"--processes {processes} and --ray-workers {ray_workers}: give one process at least, or Ray "
            "workers in their place"
        )


def _at_sizes(lines: Sequence[Evaluation], sizes: Sequence[int]) -> list[Evaluation]:
    """The lines at these input sizes, each once; as they are where none is given."""
    if not sizes:
        return list(lines)
    wrong = [size for size in sizes if size < 9 or size % 8 != 1]
    if wrong or len(set(sizes)) != len(sizes):
        raise ValueError(f"--sizes {' '.join(map(str, sizes))}: give sides of 8k + 1 pixels, each once")
    return list(dict.fromkeys(replace(line, sizes=tuple(sizes)) for line in lines))


def _tag(chosen: Recipe) -> str:
    """Tells files apart whose method or training is not the registered recipe's; the seed has a place."""
    own = RECIPES[chosen.name]() if chosen.name in RECIPES else chosen
    ours, theirs = as_json([chosen.method, chosen.train]), as_json([own.method, own.train])
    for method, train in (ours, theirs):
        method["backbone"].pop("weights")  # where they lie changes nothing
        for name in ("seed", "save_every", "workers", *(_BY_EPOCHS if _has_epochs(own) else ())):
            (train or {}).pop(name, None)
    return "" if ours == theirs else f"-{digest(ours)[:6]}"


_BY_EPOCHS = ("epochs", "steps")


def _has_epochs(recipe: Recipe) -> bool:
    """Whether the number of steps comes from the number of images, so that a trained config has another."""
    return recipe.train is not None and recipe.train.epochs is not None


def _lines(
    chosen: Recipe,
    method: FewShotSegmenter,
    ways: Sequence[int],
    shots: Sequence[int],
    fusions: Sequence[str],
    on: Literal["query", "support"] | None,
) -> list[Evaluation]:
    """The recipe's own lines as far as they are asked for; what it has no line for under the wanted fusions.

    A fusion of the kind that the method's config has is the config's own, with its settings: released CGM
    differs from the paper's.
    """
    fusion = method.fusion
    lines = [replace(e, fusion=fusion) if e.fusion.kind == fusion.kind else e for e in chosen.evaluations]
    kinds: dict[str, Fusion] = {own.kind: own for own in (*method.fusions, fusion)}
    strange = [name for name in fusions if name not in kinds]
    if strange:
        raise ValueError(
            f"{type(method).__name__} cannot use {', '.join(strange)}: give --fusion {', '.join(kinds)}"
        )
    wanted = [
        (n, k, target)
        for n in ways or sorted({e.ways for e in lines})
        for k in shots or sorted({e.shots for e in lines})
        for target in ([on or "query"] if on or fusions else list(dict.fromkeys(e.on for e in lines)))
    ]
    found = []
    for n, k, target in wanted:
        own = [e for e in lines if (e.ways, e.shots, e.on) == (n, k, target)]
        if fusions:
            own = [Evaluation(ways=n, shots=k, fusion=kinds[name], on=target) for name in fusions]
        elif not own and (ways or shots or on) and target == (on or "query"):
            of_shots = [e for e in lines if e.shots == k and e.on == "query"] or lines
            own = [
                Evaluation(ways=n, shots=k, fusion=other, on=target)
                for other in dict.fromkeys(e.fusion for e in of_shots)
            ]
        found += own
    return found
