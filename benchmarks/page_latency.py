"""How long after a stroke's end the page has the next image's new mask, with a real network.

What the page sends then, in order: the drawn mask as PNG (stored, and its supports encoded anew), the request
for the mask of another image (a head pass, since the backbone saw it on upload), PNG back. Drawing the answer
is the browser's and not in it. The judging of quality comes after and has its own line. Weights are random.

uv run --extra serve python benchmarks/page_latency.py [--models voc5i_mini_matcher] [--size 241]
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import tyro
from fastapi.testclient import TestClient
from PIL import Image
from rich.console import Console
from rich.table import Table

from fewseg.inference import Model
from fewseg.recipes.registry import recipe
from fewseg.serve.app import create_app


@dataclass(frozen=True, kw_only=True)
class Strokes:
    """What to measure.

    Attributes:
        models: recipes.
        size: side of the network's input, pixels.
        width: of the images, pixels; their height is 3/4 of it.
        shots: supports that are there before the stroke.
        rounds: strokes.
        threads: CPU threads of torch; 0 leaves its own choice.
    """

    models: tuple[str, ...] = ("voc5i_mini_matcher", "voc5i_mini_pfenet", "voc5i_mini_scl")
    size: int = 241
    width: int = 320
    shots: int = 4
    rounds: int = 7
    threads: int = 0


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def served(name: str, work: Strokes) -> TestClient:
    """A session of the page with one class."""
    config = recipe(name).method
    config = replace(config, backbone=replace(config.backbone, weights=None))
    torch.manual_seed(0)
    method = config.build().eval().to(memory_format=torch.channels_last)
    http = TestClient(create_app(Model(method, config, work.size)))
    http.headers["X-Fewseg-Session"] = http.post("/api/sessions").json()["token"]
    http.post("/api/classes", params={"name": "thing"}).raise_for_status()
    return http


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor milliseconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3


def measured(name: str, work: Strokes) -> dict[str, np.ndarray]:
    """Step -> (rounds, 2) milliseconds."""
    http, rng = served(name, work), np.random.default_rng(0)
    hw = (work.width * 3 // 4, work.width)

    def upload() -> str:
        content = png(rng.integers(0, 255, (*hw, 3), dtype=np.uint8))
        return str(http.post("/api/images", params={"name": "a.png"}, content=content).json()["id"])

    def settle(id: str) -> None:
        mask = np.zeros(hw, np.uint8)
        top, left = rng.integers(0, hw[0] // 2, 2)
        mask[top : top + hw[0] // 2, left : left + hw[0] // 2] = 1
        http.put(f"/api/images/{id}/labels", params={"role": "support"}, content=png(mask)).raise_for_status()

    drawn, other, *rest = (upload() for _ in range(2 + work.shots))
    for id in rest:
        settle(id)
    steps: dict[str, Callable[[], object]] = {
        "upload (backbone)": upload,
        "stroke's mask stored": lambda: settle(drawn),
        "other image's mask": lambda: http.get(f"/api/images/{other}/labels").raise_for_status(),
        "its quality": lambda: http.get(f"/api/images/{other}/quality").raise_for_status(),
    }
    rounds = [[timed(call) for call in steps.values()] for _ in range(work.rounds + 1)][1:]
    return dict(zip(steps, np.array(rounds).transpose(1, 0, 2), strict=True))


def main(work: Strokes) -> None:
    if work.threads:
        torch.set_num_threads(work.threads)
    table = Table(
        title=f"{work.width} px wide, network {work.size} px, {work.shots} + 1 supports, "
        f"{torch.get_num_threads()} threads: wall / CPU ms, medians of {work.rounds}"
    )
    for heading in ("", *work.models):
        table.add_column(heading, justify="right" if heading else "left")
    columns = [measured(name, work) for name in work.models]
    for step in columns[0]:
        table.add_row(step, *("{:.0f} / {:.0f}".format(*np.median(c[step], axis=0)) for c in columns))
    waits = [np.median(c["stroke's mask stored"] + c["other image's mask"], axis=0) for c in columns]
    table.add_row("stroke's end to new mask", *("{:.0f} / {:.0f}".format(*wait) for wait in waits))
    Console(width=140).print(table)


if __name__ == "__main__":
    main(tyro.cli(Strokes))
