"""Long runs: is the memory of ``fewseg label`` flat and its speed constant; and an index of many images.

The photographs are sixty rendered ones under many names (links). The network is small, with random weights,
so that what a run adds to the network is what is seen.

uv run python benchmarks/long.py [--images 5000] [--entries 1000000] [--folder F --log F.jsonl]

The images are labelled in parts, each a run that goes on where the one before ended. It exits with 1 where,
over all parts (with ``--log`` all that it has), memory after the fifths of the parts and while the files of
the whole run are made differs by more than 5 %, the processor's time for an image rises by more than 5 % (its
line of best fit), or the last fifth of ``coco.json`` takes more than 1.3 times as long as the first one. The
processor's time, and not the clock's, so that other work on the machine does not count.

With ``--folder`` and ``--log`` a run may be killed: the same command goes on, also with more images; each
part adds a line.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

import kills
from parts import keep, lines_of

PARTS = 5
TOLERANCE = 0.05
LINEAR = 1.3
"""The most that the last fifth of coco.json may take of the time of the first one."""
SHORTEST, SHORTEST_END = 10.0, 0.5
"""Seconds of the processor for a fifth of a run, and of coco.json, below which chance decides its speed."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How long."""

    images: int = 5000  # that are labelled; 0 for none
    entries: int = 1_000_000  # of the index; 0 for none
    folder: Path | None = None  # where to work; a temporary folder by default
    log: Path | None = None  # a file of what each process did
    part: int = 25_000  # images that a run labels


def resident() -> float:
    """MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def judged(lines: list[dict[str, Any]]) -> list[str]:
    """What is outside the bounds in the parts of one campaign."""
    if any("most MiB at the end" not in line for line in lines):
        return ["the log is of an earlier version of this script: measure again"]
    found = []
    memory = [each for line in lines for each in (*line["MiB after each 5th"], line["most MiB at the end"])]
    if memory and max(memory) > (1 + TOLERANCE) * min(memory):
        found.append(f"memory is not flat: {min(memory)} to {max(memory)} MiB")
    costs = np.array([each for line in lines for each in line["processor's ms an image in each 5th"]])
    images = sum(line["images"] for line in lines)
    if lines and images / len(costs) * costs.mean() / 1000 >= SHORTEST:
        slope = np.polyfit(np.arange(len(costs)), costs, 1)[0] * (len(costs) - 1)
        if slope > TOLERANCE * costs.mean():
            found.append(f"an image costs more and more: {costs.tolist()} ms")
    for line in lines:
        first, *_, last = line["s for each 5th of coco.json"]
        if last > max(SHORTEST_END, LINEAR * first):
            found.append(f"coco.json of {line['in all']} images is not linear: {first} s, at last {last} s")
    return found


def label(count: int, root: Path) -> dict[str, object]:
    """Labels images as ``fewseg label`` does, up to a number of them."""
    from fewseg.annotations.writer import Journal
    from fewseg.inference import LabelOptions, ModelOptions, RunOptions
    from fewseg.inference import label as label_folder

    inputs = root / "inputs"
    if not inputs.exists():
        kills.write_inputs(inputs)
    made = sorted((inputs / "photos").iterdir())
    (root / "photos").mkdir(exist_ok=True)
    for k in range(count):
        with suppress(FileExistsError):
            os.link(made[k % len(made)], root / f"photos/{k:07}.png")
    lines = root / "out/predictions.jsonl"
    samples: list[tuple[float, float, float, int]] = []  # second, of the processor, MiB, bytes of the lines
    before = lines.stat().st_size if lines.exists() else 0
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            size = lines.stat().st_size if lines.exists() else 0
            samples.append((time.monotonic(), time.process_time(), resident(), size))

    end = np.zeros(PARTS)  # seconds of the processor for each part of coco.json
    all_lines = Journal.__iter__

    def timed_lines(journal: Journal) -> Iterator[dict[str, Any]]:
        part, begun = 0, time.process_time()
        for k, line in enumerate(all_lines(journal), 1):
            yield line
            if k == (part + 1) * count // PARTS:
                end[part] += time.process_time() - begun
                part, begun = part + 1, time.process_time()

    Journal.__iter__ = timed_lines
    thread = threading.Thread(target=watch)
    thread.start()
    start = time.monotonic()
    options = LabelOptions(
        support=inputs / "sup",
        images=(str(root / "photos"),),
        out=root / "out",
        model=ModelOptions(model=str(inputs / "tiny.safetensors"), size=kills.SIZE),
        run=RunOptions(quiet=True, formats=("png", "coco")),
    )
    try:
        report = label_folder(options)
    finally:
        Journal.__iter__ = all_lines
        over.set()
        thread.join()
    seconds = time.monotonic() - start
    samples.append((time.monotonic(), time.process_time(), resident(), lines.stat().st_size))
    written = samples[-1][3] - before
    stops = [before + written * k / PARTS for k in range(1, PARTS + 1)]
    at = [next(s for s in samples if s[3] >= stop) for stop in stops]
    first = next(s for s in samples if s[3] > before)
    fifths = list(zip([first, *at], at, strict=False))
    return {
        "images": report.done,
        "in all": count,
        "seconds": round(seconds, 1),
        f"s for each {PARTS}th of coco.json": end.round(2).tolist(),
        f"MiB after each {PARTS}th": [round(s[2]) for s in at],
        "most MiB at the end": round(max(s[2] for s in samples if s[3] == samples[-1][3])),
        f"images a second in each {PARTS}th": [
            round(report.done / PARTS / max(0.5, b[0] - a[0]), 1) for a, b in fifths
        ],
        f"processor's ms an image in each {PARTS}th": [
            round(1000 * (b[1] - a[1]) * PARTS / report.done, 2) for a, b in fifths
        ],
        "bytes a line": round(written / report.done),
    }


def index(count: int, root: Path) -> dict[str, object]:
    from fewseg.data.index import build_index

    class Many:
        """Labels of 8 x 8 pixels, made in memory: what is measured is the index alone."""

        name = "many"
        class_names = {k: f"class {k}" for k in range(1, 21)}  # noqa: RUF012
        ids = tuple(f"{k:07}" for k in range(count))

        def read_image(self, id: str) -> torch.Tensor:
            return torch.zeros(3, 8, 8, dtype=torch.uint8)

        def image_size(self, id: str) -> tuple[int, int]:
            return 8, 8

        def read_labels(self, id: str) -> torch.Tensor:
            labels = torch.zeros(8, 8, dtype=torch.uint8)
            labels[:4] = int(id) % 20 + 1
            return labels

        def digest(self) -> str:
            return f"{count:064}"

    found: dict[str, object] = {"entries": count}
    for kind in ("cold", "warm"):
        before, start = resident(), time.monotonic()
        made = build_index(Many(), cache_dir=root / "index", workers=1, progress=False)
        found[f"{kind} s"] = round(time.monotonic() - start, 1)
        found[f"{kind} MiB"] = round(resident() - before)
        start = time.monotonic()
        made.images_of(3)
        found[f"{kind}, images of a class s"] = round(time.monotonic() - start, 2)
        del made
    (file,) = (root / "index").glob("*.json")
    found["file MiB"] = round(file.stat().st_size / 2**20)
    found["most MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return found


def main(options: Options) -> list[str]:
    """What is outside the bounds."""
    torch.set_num_threads(1)
    lines = lines_of(options.log)
    with tempfile.TemporaryDirectory(prefix="fewseg-long-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        reached = max((line.get("in all", 0) for line in lines), default=0)
        for stop in [*range(reached + options.part, options.images, options.part), options.images]:
            if stop > reached:
                lines.append(label(stop, folder))
                keep(options.log, lines[-1])
        if options.entries and not any(line.get("entries") == options.entries for line in lines):
            keep(options.log, index(options.entries, folder))
    return judged([line for line in lines if "in all" in line])


if __name__ == "__main__":
    if wrong := main(tyro.cli(Options, description=__doc__)):
        sys.exit("\n".join(wrong))
