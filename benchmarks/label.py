"""What labelling a folder costs beside bare forward passes: decode, resize, write, and quality.

Backbone and head on ready tensors are one number, the whole folder run is the other; the two are measured in
turn, so that a machine whose load changes changes both; a ratio is the median of those within a round. That
of the processor times tells the work, that of the wall times what overlapping leaves of it.

uv run python benchmarks/label.py [--images 24] [--size 321] [--shots 5]
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table

from fewseg.backbones import BackboneConfig
from fewseg.data.synthetic import SyntheticSource
from fewseg.inference import Model, Segmenter
from fewseg.inference.find import find_images
from fewseg.inference.folder_run import RunOptions, label_images
from fewseg.inference.images import read_image
from fewseg.methods.matcher import MatcherConfig


@dataclass(frozen=True, kw_only=True)
class Work:
    """What to measure.

    Attributes:
        images: how many are labelled.
        width: of the photographs, pixels; their height is 3/4 of it.
        size: side of the network's input, pixels.
        shots: K.
        rounds: how often each is measured, in turn.
        threads: CPU threads of torch; 0 leaves its own choice.
    """

    images: int = 24
    width: int = 500
    size: int = 321
    shots: int = 5
    rounds: int = 5
    threads: int = 0


def photographs(folder: Path, work: Work) -> None:
    """Rendered scenes as JPEG files of a usual photograph's size."""
    source = SyntheticSource(images=work.images, size=128, seed=0)
    for k, id in enumerate(source.ids[: work.images]):
        pixels = source.read_image(id).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).resize((work.width, work.width * 3 // 4)).save(folder / f"{k:04}.jpg")


def timed(call: Callable[[], object]) -> np.ndarray:
    """Wall and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return np.array([time.perf_counter() - wall, time.process_time() - cpu])


def main(work: Work) -> None:
    if work.threads:
        torch.set_num_threads(work.threads)
    config = MatcherConfig(backbone=BackboneConfig(weights=None))
    segmenter = Segmenter(
        Model(config.build().eval().to(memory_format=torch.channels_last), config, work.size)
    )
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "photos").mkdir()
        photographs(root / "photos", work)
        images = find_images([root / "photos"])
        mask = np.zeros((work.width * 3 // 4, work.width), np.uint8)
        mask[100:200, 100:300] = 1
        for file in list(images.values())[: work.shots]:
            segmenter.add_class("thing", file, mask)
        session = segmenter.session()
        session.estimator.references("thing")  # of the supports alone, paid once
        ready = [segmenter.model.prepare(read_image(file)) for file in images.values()]

        def bare() -> None:
            with torch.inference_mode():
                for image in ready:
                    segmenter.model.margins(segmenter.model.method.extract(image.views), session.state)

        count = iter(range(10**6))

        def labelled(**options: bool) -> Callable[[], object]:
            return lambda: label_images(
                segmenter, images, root / f"out{next(count)}", RunOptions(quiet=True, **options)
            )

        ways = {
            "bare forward passes": bare,
            "fewseg label": labelled(quality=False, sheet=0),
            "fewseg label, contact sheet": labelled(quality=False),
            "fewseg label, contact sheet, quality": labelled(),
        }
        bare()
        ways["fewseg label"]()  # both warm
        spent: dict[str, list[np.ndarray]] = {name: [] for name in ways}
        for _ in range(work.rounds):
            for name, call in ways.items():
                spent[name].append(timed(call))
    table = Table(
        title=f"matcher, ResNet-50, {work.size} px, K = {work.shots}, {work.images} images of {work.width} "
        f"px, {torch.get_num_threads()} threads"
    )
    for heading in ("", "wall ms/image", "ratio", "CPU ms/image", "ratio"):
        table.add_column(heading, justify="right" if heading else "left")
    floor = np.array(spent["bare forward passes"])
    for name, rounds in spent.items():
        seconds = np.array(rounds)
        each = np.median(seconds, axis=0) / work.images * 1e3
        ratio = np.median(seconds / floor, axis=0)
        table.add_row(name, f"{each[0]:.0f}", f"{ratio[0]:.2f}", f"{each[1]:.0f}", f"{ratio[1]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Work))
