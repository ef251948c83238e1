"""What an image costs ``fewseg label --ray``, stage by stage, and what Ray adds.

Stages are processor seconds of one thread, so that a busy machine does not change them. The network has
random weights. Then a folder is labelled, in wall time, on the same cores: by one process with a thread on
each of them, and by Ray with a worker of one thread on each.

uv run python benchmarks/cluster.py [--images 64] [--size 321] [--cores 2]
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image

from fewseg.annotations.image_files import read_rgb
from fewseg.annotations.parquet import parquet_bytes
from fewseg.annotations.writer import line_of
from fewseg.backbones import BackboneConfig
from fewseg.data.synthetic import SyntheticSource
from fewseg.engine.checkpoint import Checkpoint, save_checkpoint
from fewseg.inference import LabelOptions, ModelOptions, RunOptions, label
from fewseg.inference.cluster import label_on_ray
from fewseg.inference.segmenter import segmenter_with_supports
from fewseg.methods.matcher import MatcherConfig


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    images: int = 64  # that are labelled
    width: int = 500  # of the photographs, pixels; their height is 3/4 of it
    size: int = 321  # side of the network's input, pixels
    shard: int = 8  # images of a file of results
    cores: int = 2  # of this machine, which one process or Ray has


def write_inputs(root: Path, options: Options) -> LabelOptions:
    """Rendered scenes as JPEG files, two annotated ones, and a checkpoint of a ResNet-50."""
    source = SyntheticSource(images=options.images, size=128, seed=0)
    for k, id in enumerate(source.ids[: options.images]):
        image = Image.fromarray(source.read_image(id).permute(1, 2, 0).numpy())
        wide = image.resize((options.width, options.width * 3 // 4))
        (root / "photos").mkdir(exist_ok=True)
        wide.save(root / f"photos/{k:04}.jpg")
        if k < 2:
            mask = np.zeros((wide.height, wide.width), np.uint8)
            mask[100:200, 100:300] = 1
            for folder, own in (("images", wide), ("masks", Image.fromarray(mask))):
                (root / "sup" / folder).mkdir(parents=True, exist_ok=True)
                own.save(root / f"sup/{folder}/{k}.png")
    config = MatcherConfig(backbone=BackboneConfig(weights=None))
    save_checkpoint(root / "m.safetensors", config.build().eval(), Checkpoint(config=config), whole=True)
    model = ModelOptions(model=str(root / "m.safetensors"), size=options.size, precision="fp32")
    run = RunOptions(quiet=True, sheet=0)
    given = {"support": root / "sup", "images": (str(root / "photos"),), "model": model, "run": run}
    return LabelOptions(out=root / "out", **given)


def stages(root: Path, given: LabelOptions, count: int) -> dict[str, float]:
    """Processor ms an image."""
    segmenter = segmenter_with_supports(given.model, given.support, given.read)
    session, model = segmenter.session(), segmenter.model
    files = sorted((root / "photos").iterdir())[:count]
    spent = dict.fromkeys(("read and decode", "resize", "backbone", "head", "quality", "masks as RLE"), 0.0)

    def timed(stage: str, call: Callable[[], object]) -> object:
        start = time.process_time()
        found = call()
        spent[stage] += time.process_time() - start
        return found

    lines = []
    for k, file in enumerate([files[0], *files]):
        if k == 1:  # the first one warms up
            spent, lines = dict.fromkeys(spent, 0.0), []
        pixels = timed("read and decode", lambda file=file: read_rgb(file.name, content=file.read_bytes()))
        ready = timed("resize", lambda pixels=pixels: model.prepare(pixels))
        (encoded,) = timed("backbone", lambda ready=ready: model.encode([ready]))
        timed("head", lambda own=encoded: session.segment(own, quality=False))
        found = timed("quality", lambda own=encoded: session.segment(own))
        line = timed("masks as RLE", lambda found=found: line_of(found.prediction("a.jpg")))
        lines.append({"name": file.name, **line})
    parquet_bytes(lines, session.supports.classes)  # imports
    start = time.process_time()
    content = parquet_bytes(lines, session.supports.classes)
    spent["Parquet"] = time.process_time() - start
    spent["quality"] -= spent["head"]
    found = {stage: round(1000 * seconds / len(files), 2) for stage, seconds in spent.items()}
    return {**found, "bytes of results": round(len(content) / len(files))}


def main(options: Options) -> None:
    import ray

    cores = sorted(os.sched_getaffinity(0))[: options.cores]
    if len(cores) < options.cores:
        raise SystemExit(f"--cores must be at most the {len(cores)} of this machine, got {options.cores}")
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fewseg-cluster-") as name:
        root = Path(name)
        given = write_inputs(root, options)
        found = stages(root, given, min(24, options.images))
        print(json.dumps({"ms of a processor an image": found}), flush=True)
        torch.set_num_threads(options.cores)
        start = time.monotonic()
        label(given)
        alone = time.monotonic() - start
        found = {
            "one process, threads": options.cores,
            "images a second": round(options.images / alone, 2),
            "seconds": round(alone, 1),
        }
        print(json.dumps(found), flush=True)
        ray.init(num_cpus=options.cores, include_dashboard=False, log_to_driver=False)
        for shard in (options.shard, 1):
            own = {"ray": True, "ray_workers": options.cores, "ray_shard": shard}
            start, driver = time.monotonic(), time.process_time()
            label_on_ray(replace(given, out=root / f"ray-{shard}", **own))
            wall = time.monotonic() - start
            found = {
                "workers of one thread": options.cores,
                "shards": -(-options.images // shard),
                "images a second": round(options.images / wall, 2),
                "seconds": round(wall, 1),
                "speed, one process is 1": round(alone / wall, 2),
                "driver's processor seconds": round(time.process_time() - driver, 2),
            }
            print(json.dumps(found), flush=True)
        ray.shutdown()


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
