"""The evaluation engine against a plain loop over episodes, both in one run, on the small real set.

The plain loop takes one episode at a time: contiguous layout, fp32, no caches, no heads that only training
needs. It is timed on a few episodes and extrapolated. The engine runs all of them, from an empty cache.
Weights are random, but for the head's bias, which is set so that both classes are predicted; give
``--checkpoint`` for a trained SCL.

uv run python benchmarks/evaluation.py --root DATA [--size 473] [--episodes 1000] [--plain-episodes 100]
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from rich.console import Console

from fewseg.backbones import BackboneConfig
from fewseg.data.episodes import EpisodeSampler
from fewseg.data.protocols import PAPER_SCL
from fewseg.data.transforms import EvalView, binary_mask
from fewseg.engine.checkpoint import load_method
from fewseg.engine.evaluate import Evaluator
from fewseg.engine.feature_store import FeatureStore
from fewseg.engine.plain import plain_logits
from fewseg.engine.shares import questions_of
from fewseg.methods.scl import SCLPFENetConfig
from fewseg.metrics.counts import COUNT_NAMES
from fewseg.metrics.statistics import mean_miou
from fewseg.recipes.datasets import voc5i_mini
from floor import Measured, matmul_rate, measure, report


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure.

    Attributes:
        root: folder of voc5i-mini.
        fold: of it.
        size: side of the network's input, pixels; 8k + 1.
        channels: d.
        shots: each K is measured from an empty cache.
        seeds: runs of episodes.
        episodes: a run.
        plain_episodes: episodes that the plain loop is timed on.
        precisions: of the engine.
        batch: pairs that go through the head at once.
        memory: bytes that the engine may keep.
        threads: CPU threads; 0 leaves torch's own choice.
        checkpoint: of an SCL on PFENet; random weights by default.
    """

    root: Path | None = None
    fold: int = 1
    size: int = 473
    channels: int = 256
    shots: tuple[int, ...] = (1, 5)
    seeds: int = 5
    episodes: int = 1000
    plain_episodes: int = 100
    precisions: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")
    batch: int = 8
    memory: int = 4 << 30
    threads: int = 0
    checkpoint: Path | None = None


class Stages:
    """Seconds, calls and FLOPs of the engine's steps, by wrapping the methods that do them."""

    def __init__(self) -> None:
        self.seconds, self.items = defaultdict(float), defaultdict(int)
        self.memory = 0

    def watch(self, owner, method: str, stage: str, items=lambda *arguments: 1) -> None:
        plain = getattr(owner, method)

        def timed(*arguments, **options):
            start = time.perf_counter()
            found = plain(*arguments, **options)
            self.seconds[stage] += time.perf_counter() - start
            self.items[stage] += items(*arguments)
            self.memory = max(self.memory, own_memory())
            return found

        setattr(owner, method, timed)


def own_memory() -> int:
    """Bytes of the process without the files that it has mapped."""
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def build(settings: Settings):
    if settings.checkpoint:
        return load_method(settings.checkpoint)[0].eval()
    cells = (settings.size - 1) // 8 + 1
    torch.manual_seed(0)
    scales = (cells, cells // 2, cells // 4, (cells + 7) // 8)
    config = SCLPFENetConfig(backbone=BackboneConfig(weights=None), channels=settings.channels, scales=scales)
    return config.build().eval()


@torch.no_grad()
def balance(model, data, spec, settings: Settings) -> None:
    """Sets the bias of a random head so that about half of a picture is foreground."""
    logits = plain(model, data, spec, settings)
    model.trunk.classifier[-1].bias[1] -= (logits[1] - logits[0]).median()


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


def time_plain(model, data, sampler, evaluator, settings: Settings):
    """Seconds an episode, and the counts of each, of episodes spread over the first seed."""
    step = max(1, settings.episodes // settings.plain_episodes)
    places = range(0, settings.episodes, step)[: settings.plain_episodes]
    counts, start = {}, time.perf_counter()
    for place in places:
        spec = sampler.episode(sampler.protocol.seeds[0], place)
        logits = plain(model, data, spec, settings)
        counts[place] = evaluator._count(questions_of(spec, "query")[0], logits, "original")
    return (time.perf_counter() - start) / len(places), counts


def engine(model, data, settings: Settings, precision: str, folder: Path):
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    trunk = model.backbone if dtype == torch.float32 else build(settings).backbone
    trunk = trunk.to(dtype).to(memory_format=torch.channels_last)
    store = FeatureStore(trunk, data.source, [EvalView(settings.size)], folder=folder, dtype=dtype)
    return Evaluator(
        model.to(memory_format=torch.channels_last),
        data.source,
        store,
        precision=precision,
        batch=settings.batch,
        memory=settings.memory,
    )


def run(settings: Settings, shots: int, precision: str, plain_path, console: Console):
    data = voc5i_mini(settings.fold, settings.root)
    protocol = replace(PAPER_SCL, seeds=tuple(range(settings.seeds)), episodes=settings.episodes)
    sampler = EpisodeSampler(data.test, data.split, protocol, shots)
    model = build(settings)
    if settings.checkpoint is None:
        balance(model, data, sampler.episode(0, 0), settings)
    with tempfile.TemporaryDirectory() as folder:
        evaluator = engine(model, data, settings, precision, Path(folder))
        stages = Stages()
        stages.watch(evaluator.store, "_compute", "backbone", len)
        stages.watch(model, "encode_shots", "support")
        stages.watch(model, "encode_query", "query")
        stages.watch(model, "prior_map", "prior", lambda query, guides: len(guides))
        stages.watch(model, "score", "head", lambda query, guides, prior: len(guides))
        stages.watch(evaluator, "_count", "counting")
        start = time.perf_counter()
        found = evaluator.run(sampler)
        whole = time.perf_counter() - start
        seconds, items = dict(stages.seconds), dict(stages.items)
        costs = unit_flops(model, evaluator, sampler.episode(0, 0))
        spilled = evaluator.pool.spilled
    parts = {s: Measured(seconds[s], costs.get(s, 0) * items[s]) for s in seconds}
    parts["rest"] = Measured(whole - sum(seconds.values()), 0)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    name = f"{shots}-shot, {precision}, {settings.size} px, {settings.seeds} x {settings.episodes} episodes"
    report(name, parts, matmul_rate(dtype, "cpu"))
    done = ", ".join(f"{n} x {stage}" for stage, n in items.items())
    console.print(f"{done}; {stages.memory / 2**30:.1f} GiB of memory, {spilled / 2**30:.1f} GiB spilled")
    each, counts = plain_path
    total = each * settings.seeds * settings.episodes
    console.print(
        f"plain: {each:.2f} s an episode over {len(counts)}, {total:.0f} s in all; engine {whole:.0f} s: "
        f"{total / whole:.1f} times faster"
    )
    compare(found, counts, data, console)
    return mean_miou(found, sorted(set(found.class_id.tolist())))


def unit_flops(model, evaluator: Evaluator, spec) -> dict[str, int]:
    """FLOPs of one item of each stage; the prior's for a guide with as many keys as this one has."""
    images, id = evaluator.images, spec.supports[0]
    with torch.no_grad(), evaluator._autocast():
        features, masks = images.features([id]), images.masks([id], [spec.class_id])
        query, guides = model.encode_query(features), model.encode_shots(features, masks)
        prior = model.prior_map(query, guides)
        pixels = evaluator.store.view(id, 0)[0].unsqueeze(0)
        work = {
            "backbone": lambda: evaluator.store.backbone(pixels),
            "support": lambda: model.encode_shots(features, masks),
            "query": lambda: model.encode_query(features),
            "prior": lambda: model.prior_map(query, guides),
            "head": lambda: model.score(query, guides.without_keys(), prior),
        }
        return {stage: measure(one, 1).flops for stage, one in work.items()}


def compare(found, counts, data, console: Console) -> None:
    """How many pixels the engine's counts move from the plain path's."""
    moved = pixels = 0
    for place, expected in counts.items():
        row = int(np.flatnonzero((found.seed == 0) & (found.episode == place))[0])
        facts = data.test.images[str(found.query[row])]
        pixels += facts.height * facts.width
        both = [(int(getattr(found, n)[row]), np.ravel(getattr(expected, n))[0]) for n in COUNT_NAMES]
        moved += max(abs(one - int(other)) for one, other in both)
    console.print(f"pixels moved from the plain path: {moved} of {pixels}, {moved / pixels:.1e}")


def main(settings: Settings) -> None:
    console = Console()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    console.print(f"{torch.get_num_threads()} threads")
    scores = {}
    for shots in settings.shots:
        data = voc5i_mini(settings.fold, settings.root)
        protocol = replace(PAPER_SCL, seeds=(0,), episodes=settings.episodes)
        sampler = EpisodeSampler(data.test, data.split, protocol, shots)
        model = build(settings)
        if settings.checkpoint is None:
            balance(model, data, sampler.episode(0, 0), settings)
        with tempfile.TemporaryDirectory() as folder:
            store = FeatureStore(model.backbone, data.source, [EvalView(settings.size)], folder=Path(folder))
            judge = Evaluator(model, data.source, store, progress=False)
            plain_path = time_plain(model, data, sampler, judge, settings)
        for precision in settings.precisions:
            scores[shots, precision] = run(settings, shots, precision, plain_path, console)
        if len(settings.precisions) == 2:
            one, two = (100 * scores[shots, p] for p in settings.precisions)
            console.print(f"{shots}-shot mIoU: {one:.3f} and {two:.3f}, {abs(one - two):.3f} points apart")


if __name__ == "__main__":
    main(tyro.cli(Settings))
