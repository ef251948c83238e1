"""Whether ONNX Runtime is faster than torch on the CPU: backbone and head of a query, supports known.

torch in float32 (what `fewseg label` uses), torch in bfloat16 and ONNX Runtime are measured in turn, each on
the same threads, so that a machine whose load changes changes all; lines are medians of both clocks. Weights
are random: they do not change the time.

uv run --extra onnx python benchmarks/onnx_runtime.py [--size 321] [--shots 5] [--threads 1]
"""

from __future__ import annotations

import functools
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import tyro
from rich.console import Console
from rich.table import Table

from fewseg.inference import Model, Segmenter
from fewseg.inference.onnx import SEGMENT, export_onnx, on_onnx_runtime, state_tensors
from fewseg.recipes.registry import recipe


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What to compare.

    Attributes:
        models: recipes.
        size: side of the input, pixels.
        shots: K.
        rounds: times everything is measured, in turn.
        threads: CPU threads.
    """

    models: tuple[str, ...] = ("voc5i_mini_matcher", "voc5i_mini_pfenet", "voc5i_mini_scl")
    size: int = 321
    shots: int = 5
    rounds: int = 9
    threads: int = 1


def built(name: str, work: Comparison) -> Segmenter:
    """The recipe's method with random weights and K supports of discs of several sizes."""
    config = recipe(name).method
    config = replace(config, backbone=replace(config.backbone, weights=None))
    torch.manual_seed(0)
    method = config.build().eval().to(memory_format=torch.channels_last)
    segmenter = Segmenter(Model(method, config, work.size))
    rng = np.random.default_rng(0)
    ys, xs = np.mgrid[: work.size, : work.size]
    for k in range(work.shots):
        image = rng.integers(0, 255, (work.size, work.size, 3), dtype=np.uint8)
        disc = np.hypot(ys - work.size / 2, xs - work.size / 2) < work.size * (0.15 + 0.03 * k)
        segmenter.add_class("thing", image, disc)
    return segmenter


def head_in_onnx(segmenter: Segmenter, maps: dict[str, torch.Tensor]) -> Callable[[], object]:
    """The head of the present support set as a call of ONNX Runtime."""
    session = segmenter.session()
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(segmenter.model, session, Path(folder))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        graph = onnxruntime.InferenceSession(Path(folder, SEGMENT).read_bytes(), options)
    wanted = {given.name for given in graph.get_inputs()}
    tensors = {**maps, **state_tensors(session.state)}
    feed = {k: np.ascontiguousarray(v.numpy()) for k, v in tensors.items() if k in wanted}
    return lambda: graph.run(None, feed)


def in_torch(call: Callable[[], object], *, bf16: bool) -> Callable[[], object]:
    """A call without gradients, in one of the two precisions."""

    def run() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            call()

    return run


def medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Median wall and processor seconds of each, measured in turn after one call to warm up."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            if turn:
                spent[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: np.median(times, axis=0) for name, times in spent.items()}


def calls_of(name: str, work: Comparison) -> tuple[dict[str, Callable[[], object]], float]:
    """What is measured of a model, and the seconds that making the backbone's graph took."""
    segmenter = built(name, work)
    model, state = segmenter.model, segmenter.session().state
    image = torch.rand(1, 3, work.size, work.size)
    with torch.inference_mode():
        features = model.extract(image)
    started = time.perf_counter()
    extract = on_onnx_runtime(model).extract
    made = time.perf_counter() - started
    backbone = functools.partial(model.extract, image)
    head = functools.partial(model.method.segment, features, state)
    return {
        "backbone fp32": in_torch(backbone, bf16=False),
        "backbone bf16": in_torch(backbone, bf16=True),
        "backbone onnx": in_torch(functools.partial(extract, image), bf16=False),
        "head fp32": in_torch(head, bf16=False),
        "head bf16": in_torch(head, bf16=True),
        "head onnx": head_in_onnx(segmenter, dict(features.maps)),
    }, made


def main(work: Comparison) -> None:
    torch.set_num_threads(work.threads)
    table = Table(title=f"{work.size} px, K = {work.shots}, {work.threads} threads, medians: wall / CPU ms")
    for heading in ("", "torch fp32", "torch bf16", "ONNX", "fp32 : bf16", "fp32 : ONNX", "graph"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in work.models:
        calls, made = calls_of(name, work)
        found = medians(calls, work.rounds)
        saved = found["backbone fp32"][0] - found["backbone onnx"][0]
        pays = f"pays off from image {math.ceil(made / saved)} on" if saved > 0 else "does not pay off"
        for part in ("backbone", "head"):
            times = [found[f"{part} {kind}"] for kind in ("fp32", "bf16", "onnx")]
            cells = [f"{1e3 * wall:.1f} / {1e3 * cpu:.1f}" for wall, cpu in times]
            cells += [f"{ratio[0]:.2f} / {ratio[1]:.2f}" for ratio in (times[0] / t for t in times[1:])]
            table.add_row(f"{name}, {part}", *cells, f"{made:.0f} s, {pays}" if part == "backbone" else "")
    Console(width=160).print(table)


if __name__ == "__main__":
    main(tyro.cli(Comparison))
