"""Time of the index of many masks, cold and warm: how long a start waits before its first episode.

The masks are rendered into a folder of their own: palette PNG files of 375 x 500 pixels, VOC's classes.

uv run python benchmarks/index.py [--masks 12000] [--workers 2]
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from rich.console import Console

from fewseg.data.folder import ListFileSource
from fewseg.data.folds import VOC_CLASSES
from fewseg.data.index import build_index

HEIGHT, WIDTH = 375, 500


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure.

    Attributes:
        masks: how many.
        workers: threads; 0 leaves the choice to fewseg.
    """

    masks: int = 12_000
    workers: int = 0


def write_masks(folder: Path, count: int) -> Path:
    """Rectangles of one to three classes with a border of 255, one image for all masks."""
    generator = np.random.default_rng(0)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "image.jpg")
    palette = generator.integers(0, 256, 768).tolist()
    lines = []
    for i in range(count):
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        for class_id in generator.choice(np.arange(1, 21), generator.integers(1, 4), replace=False):
            top, left = int(generator.integers(0, HEIGHT - 60)), int(generator.integers(0, WIDTH - 60))
            bottom, right = top + int(generator.integers(40, 200)), left + int(generator.integers(40, 250))
            labels[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = 255
            labels[top:bottom, left:right] = class_id
        mask = Image.fromarray(labels)
        mask.putpalette(palette)
        mask.save(folder / f"{i:05d}.png")
        (folder / f"{i:05d}.jpg").hardlink_to(folder / "image.jpg")
        lines.append(f"{i:05d}.jpg {i:05d}.png")
    path = folder / "list.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def main(settings: Settings) -> None:
    console = Console()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        masks = write_masks(folder, settings.masks)
        for name in ("cold", "warm"):
            start = time.perf_counter()
            source = ListFileSource(folder, masks, VOC_CLASSES)
            index = build_index(
                source, cache_dir=folder / "cache", workers=settings.workers or None, progress=False
            )
            console.print(f"index of {len(index)} masks, {name}: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main(tyro.cli(Settings))
