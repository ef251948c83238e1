"""The evaluation engine against a plain loop over episodes, both in one run, on the small real set.

The plain loop takes one episode at a time: contiguous layout, fp32, no caches, no heads that only training
needs. It is timed on a few episodes and extrapolated. The engine runs all of them, from an empty cache.
Weights are random, but for the head's bias, which is set so that both classes are predicted: they serve for
speed and for pixels. ``--checkpoint`` takes a trained SCL, which serves for mIoU; its own d then counts.

The parts are a plain loop a K, and an engine a K and precision. Each is a line of JSON in ``--out``; a run
that was stopped goes on with the same command, and ``--shots 1 --precisions bf16`` does a part alone.

uv run python benchmarks/evaluation.py --root DATA --out lines.jsonl [--size 473] [--plain-episodes 100]
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console

from fewseg.backbones import BackboneConfig
from fewseg.data.episodes import EpisodeSampler
from fewseg.data.protocols import PAPER_SCL
from fewseg.data.transforms import EvalView, binary_mask
from fewseg.engine.checkpoint import load_checkpoint
from fewseg.engine.environment import environment
from fewseg.engine.evaluate import Evaluator, Line
from fewseg.engine.executors import LineQuestions, questions_of
from fewseg.engine.features import FeatureStore
from fewseg.engine.plain import plain_logits
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.metrics.counts import COUNT_NAMES
from fewseg.metrics.statistics import mean_score
from fewseg.recipes.datasets import voc5i_mini
from floor import Measured, convolution_rate, matmul_rate, measure, report
from stages import PeakMemory, Stages

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure.

    Attributes:
        root: folder of voc5i-mini.
        out: file of JSON lines, one a part; parts that are there are not measured again.
        fold: of it.
        size: side of the network's input, pixels; 8k + 1.
        channels: d of the random head.
        shots: each K is measured from an empty cache.
        seeds: runs of episodes.
        episodes: a run.
        plain_episodes: episodes that the plain loop is timed on.
        exact_episodes: episodes whose counts, unbatched, must be those of the plain path in the same layout.
        precisions: of the engine.
        batch: pairs that go through the head at once; 0 leaves the choice to the engine.
        memory: bytes that the engine may keep.
        threads: CPU threads; 0 leaves torch's own choice.
        checkpoint: of an SCL on PFENet; random weights by default.
    """

    root: Path | None = None
    out: Path | None = None
    fold: int = 1
    size: int = 473
    channels: int = 256
    shots: tuple[int, ...] = (1, 5)
    seeds: int = 5
    episodes: int = 1000
    plain_episodes: int = 100
    exact_episodes: int = 10
    precisions: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")
    batch: int = 0
    memory: int = 4 << 30
    threads: int = 0
    checkpoint: Path | None = None

    def decides(self) -> dict[str, Any]:
        """What a line must have been measured with to count for this run."""
        free = ("root", "out", "shots", "precisions")
        told = {name: value for name, value in asdict(self).items() if name not in free}
        told["checkpoint"] = str(self.checkpoint) if self.checkpoint else None
        return told | {"threads": torch.get_num_threads(), "code": environment().versions.get("revision", "")}


class Lines:
    """Parts that are measured: kept in memory, and in a file where there is one."""

    def __init__(self, settings: Settings) -> None:
        self.path, self.decides = settings.out, settings.decides()
        there = self.path is not None and self.path.exists()
        text = self.path.read_text().splitlines() if there and self.path else []
        self.found = [json.loads(line) for line in text if line.endswith("}")]

    def get(self, **part: Any) -> dict[str, Any] | None:
        wanted = part | {"settings": self.decides}
        fits = [line for line in self.found if all(line.get(k) == v for k, v in wanted.items())]
        return fits[-1] if fits else None

    def add(self, **line: Any) -> dict[str, Any]:
        line |= {"settings": self.decides, "load_before": os.getloadavg()[0]}
        self.found.append(line)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        return line


def build(settings: Settings):
    if settings.checkpoint:
        return load_checkpoint(settings.checkpoint)[0].eval()
    cells = (settings.size - 1) // 8 + 1
    torch.manual_seed(0)
    scales = (cells, cells // 2, cells // 4, (cells + 7) // 8)
    config = SCLPFENetConfig(backbone=BackboneConfig(weights=None), channels=settings.channels, scales=scales)
    return config.build().eval()


def prepared(settings: Settings, shots: int):
    """Data, sampler and model of a part; a random head's bias makes about half of a picture foreground."""
    data = voc5i_mini(settings.fold, settings.root)
    protocol = replace(PAPER_SCL, seeds=tuple(range(settings.seeds)), episodes=settings.episodes)
    sampler, model = EpisodeSampler(data.test, data.split, protocol, shots), build(settings)
    if settings.checkpoint is None:
        with torch.no_grad():
            logits = plain(model, data, sampler.episode(0, 0), settings)
            model.trunk.classifier[-1].bias[1] -= (logits[1] - logits[0]).median()
    return data, sampler, model


def plain(model, data, spec, settings: Settings) -> torch.Tensor:
    """Logits of one episode, everything from its files."""
    view, read = EvalView(settings.size), {}

    def seen(id: str):
        if id not in read:  # an episode's images are read once
            read[id] = view(data.source.read_image(id), data.source.read_labels(id))
        return read[id]

    with torch.no_grad():
        return plain_logits(
            model,
            spec.ways,
            spec.query,
            lambda id: model.extract(seen(id)[0].unsqueeze(0)),
            lambda id, classes: binary_mask(seen(id)[1], classes[0]).unsqueeze(0),
        )


def spread(settings: Settings, count: int) -> list[int]:
    """Places of ``count`` episodes over the first seed."""
    step = max(1, settings.episodes // max(1, count))
    return list(range(0, settings.episodes, step)[:count])


def time_plain(settings: Settings, shots: int) -> dict[str, Any]:
    """Seconds an episode, and the counts of each."""
    data, sampler, model = prepared(settings, shots)
    places, counts = spread(settings, settings.plain_episodes), {}
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(model.backbone, data.source, [EvalView(settings.size)], folder=Path(folder))
        judge = Evaluator(model, data.source, store, progress=False)
        start = time.perf_counter()
        for place in places:
            spec = sampler.episode(0, place)
            counts[place] = whole(judge, spec, plain(model, data, spec, settings))
    each = (time.perf_counter() - start) / len(places)
    return {"seconds_an_episode": each, "counts": {str(k): v for k, v in counts.items()}}


def whole(evaluator: Evaluator, spec, logits: torch.Tensor) -> list[int]:
    """The six counts of an answer at the label's own size."""
    (question,) = questions_of(spec, "query")
    fusion, size = evaluator.method.fusion, evaluator.store.size
    line = LineQuestions(questions=(question,), fusion=fusion, sizes=(size,), by_pairs=True)
    found = evaluator._count(line, question, logits)
    return [int(np.ravel(getattr(found, name))[0]) for name in COUNT_NAMES]


def engine(model, data, settings: Settings, precision: Literal["fp32", "bf16"], folder: Path) -> Evaluator:
    dtype = TYPES[precision]
    trunk = model.backbone if precision == "fp32" else build(settings).backbone
    trunk = trunk.to(dtype).to(memory_format=torch.channels_last)
    store = FeatureStore(trunk, data.source, [EvalView(settings.size)], folder=folder, dtype=dtype)
    model.to(memory_format=torch.channels_last)
    batch, memory = settings.batch or None, settings.memory
    return Evaluator(model, data.source, store, precision=precision, batch=batch, memory=memory)


def watched(evaluator: Evaluator, model) -> Stages:
    stages = Stages()
    stages.watch(evaluator.store, "view", "read images")
    stages.watch(evaluator.store, "_write", "write features")
    stages.watch(evaluator.store.backbone, "forward", "backbone", len)
    stages.watch(evaluator.store, "features", "read features", len)
    stages.watch(model, "encode_shots", "support")
    stages.watch(model, "encode_query", "query")
    stages.watch(model, "prior_map", "prior", lambda query, guides: len(guides))
    stages.watch(model, "score", "head", lambda query, guides, *prior: len(guides))
    stages.watch(evaluator, "_from_scores", "fusion")
    stages.watch(evaluator, "_count", "counting")
    return stages


def time_engine(settings: Settings, shots: int, precision, plain_line: dict[str, Any]) -> dict[str, Any]:
    data, sampler, model = prepared(settings, shots)
    with tempfile.TemporaryDirectory() as folder:
        evaluator = engine(model, data, settings, precision, Path(folder))
        stages = watched(evaluator, model)
        with PeakMemory() as memory:
            start = time.perf_counter()
            (found,) = evaluator.run([Line(episodes=sampler)])
            seconds = time.perf_counter() - start
        print(f"engine: {seconds:.1f} s; now the check that it is exact", flush=True)
        spent, items = dict(stages.seconds), dict(stages.items)
        costs = unit_flops(model, evaluator, sampler.episode(0, 0))
        differ = differing(settings, evaluator, sampler, found)
    moved, pixels = compare(found, plain_line["counts"], data)
    dtype = TYPES[precision]
    return {
        "seconds": seconds,
        "times_faster": plain_line["seconds_an_episode"] * settings.seeds * settings.episodes / seconds,
        "stages": spent | {"rest": seconds - sum(spent.values())},
        "items": items,
        "flops": {stage: costs.get(stage, 0) * items[stage] for stage in spent},
        "rates": {"matmul": matmul_rate(dtype, "cpu"), "convolution": convolution_rate(dtype)},
        "batch": evaluator._pairs[settings.size].batch,
        "peak_memory": memory.growth,
        "pixels_moved": moved,
        "pixels": pixels,
        "exact_episodes": settings.exact_episodes,
        "not_exact": differ,
        "miou": mean_score(found, sorted(set(found.class_id.tolist()))),
    }


def unit_flops(model, evaluator: Evaluator, spec) -> dict[str, int]:
    """FLOPs of one item of each stage; the prior's for a guide with as many keys as this one has."""
    images, id = evaluator.images, spec.supports[0]
    with torch.no_grad(), evaluator._autocast():
        features, masks = images.features([id]), images.masks([id], [spec.class_id])
        query, guides = model.encode_query(features), model.encode_shots(features, masks)
        prior = model.prior_map(query, guides)
        trunk = evaluator.store.backbone
        pixels = evaluator.store.view(id, 0)[0].unsqueeze(0).to(next(trunk.parameters()).dtype)
        work = {
            "backbone": lambda: trunk(pixels),
            "support": lambda: model.encode_shots(features, masks),
            "query": lambda: model.encode_query(features),
            "prior": lambda: model.prior_map(query, guides),
            "head": lambda: model.score(query, guides.without_keys(), prior),
        }
        return {stage: measure(one, 1).flops for stage, one in work.items()}


def differing(settings: Settings, evaluator: Evaluator, sampler, found) -> int | None:
    """Episodes in which the engine's counts are not those of the plain path in its layout and precision."""
    if evaluator._pairs[settings.size].batch != 1:
        return None
    wrong = 0
    for place in spread(settings, settings.exact_episodes):
        spec = sampler.episode(0, place)
        wrong += row_of(found, place) != whole(evaluator, spec, evaluator.plain(spec))
    return wrong


def row_of(found, place: int) -> list[int]:
    row = int(np.flatnonzero((found.seed == 0) & (found.episode == place))[0])
    return [int(getattr(found, name)[row]) for name in COUNT_NAMES]


def compare(found, counts: dict[str, list[int]], data) -> tuple[int, int]:
    """How many pixels the engine's counts move from the plain path's, and of how many."""
    moved = pixels = 0
    for place, expected in counts.items():
        row = int(np.flatnonzero((found.seed == 0) & (found.episode == int(place)))[0])
        facts = data.test.images[str(found.query[row])]
        pixels += facts.height * facts.width
        moved += max(abs(a - b) for a, b in zip(row_of(found, int(place)), expected, strict=True))
    return moved, pixels


def show(line: dict[str, Any], plain_line: dict[str, Any], settings: Settings, console: Console) -> None:
    rate = max(line["rates"].values())
    parts = {s: Measured(t, line["flops"].get(s, 0)) for s, t in line["stages"].items()}
    name = f"{line['shots']}-shot, {line['precision']}, {settings.size} px, batch {line['batch']}"
    report(f"{name}, {settings.seeds} x {settings.episodes} episodes", parts, rate)
    floor, seconds = sum(line["flops"].values()) / rate, line["seconds"]
    done = ", ".join(f"{n} x {stage}" for stage, n in line["items"].items())
    console.print(
        f"{done}\nfloor {floor:.0f} s, engine {seconds:.0f} s: {seconds / floor:.2f} times the floor"
    )
    console.print(
        f"memory: {line['peak_memory'] / GIB:.2f} GiB at most above the start, "
        f"budget {settings.memory / GIB:.2f} GiB"
    )
    each = plain_line["seconds_an_episode"]
    console.print(
        f"plain: {each:.2f} s an episode over {len(plain_line['counts'])}, "
        f"{each * settings.seeds * settings.episodes:.0f} s in all; engine {seconds:.0f} s: "
        f"{line['times_faster']:.1f} times faster"
    )
    exact = line["not_exact"]
    if exact is not None:
        console.print(f"episodes that differ from the unbatched plain path in the engine's layout: {exact}")
    share = line["pixels_moved"] / line["pixels"]
    console.print(
        f"pixels moved from the plain path: {line['pixels_moved']} of {line['pixels']}, {share:.1e}"
    )


def main(settings: Settings) -> None:
    console = Console()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    console.print(f"{torch.get_num_threads()} threads; load before {os.getloadavg()[0]:.1f}")
    lines = Lines(settings)
    for shots in settings.shots:
        plain_line = lines.get(part="plain", shots=shots)
        if plain_line is None:
            plain_line = lines.add(part="plain", shots=shots, **time_plain(settings, shots))
        console.print(f"{shots}-shot plain: {plain_line['seconds_an_episode']:.2f} s an episode")
        scores = []
        for precision in settings.precisions:
            part = {"part": "engine", "shots": shots, "precision": precision}
            line = lines.get(**part)
            if line is None:
                line = lines.add(**part, **time_engine(settings, shots, precision, plain_line))
            show(line, plain_line, settings, console)
            scores.append(100 * line["miou"])
        if len(scores) == 2:
            one, two = scores
            console.print(f"{shots}-shot mIoU: {one:.3f} and {two:.3f}, {abs(one - two):.3f} points apart")


if __name__ == "__main__":
    main(tyro.cli(Settings))
