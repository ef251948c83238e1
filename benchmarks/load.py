"""Many users of ``fewseg serve`` at once: latencies, memory, and whether each gets its own answers.

A server process with a small network (random weights) listens on the loopback interface. Each user opens a
page, uploads pictures of a size that no other user has, draws masks, looks at predictions, and every so often
goes away in the middle: a cancelled request, a broken upload, a page left open, a new page.

uv run python benchmarks/load.py [--users 50] [--seconds 300]
"""

from __future__ import annotations

import asyncio
import io
import json
import multiprocessing
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import tyro
from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Options:
    """How many users, for how long."""

    users: int = 50
    seconds: float = 60.0
    pause: float = 1.0  # mean seconds that a user thinks between two requests
    idle: float = 20.0  # after which the server drops an unused page
    size: int = 129  # side of the network's input, pixels
    seed: int = 0


def serve(options: Options, port: int) -> None:
    """The server's process."""
    import torch
    import uvicorn

    from fewseg.backbones import BackboneConfig
    from fewseg.inference import Model
    from fewseg.methods.matcher import MatcherConfig
    from fewseg.serve.app import create_app
    from fewseg.serve.connections import Connection
    from fewseg.serve.limits import Limits

    torch.set_num_threads(1)
    config = MatcherConfig(
        backbone=BackboneConfig(name="resnet18", weights=None, levels=("layer2", "layer3"))
    )
    limits = Limits(sessions=options.users + options.users // 4, idle_seconds=options.idle)
    app = create_app(Model(config.build().eval(), config, options.size), limits, hosts=("127.0.0.1",))
    settings = {"log_level": "error", "limit_concurrency": 4 * options.users, "http": Connection}
    uvicorn.run(app, host="127.0.0.1", port=port, **settings)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


class User:
    """One user; ``wrong`` gets what should not be."""

    def __init__(self, number: int, options: Options, address: str) -> None:
        self.number, self.options, self.address = number, options, address
        self.rng = np.random.default_rng([options.seed, number])
        self.size = (120 + number, 160 + 2 * number)  # of no other user
        self.spent: dict[str, list[float]] = defaultdict(list)
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []

    async def run(self, end: float) -> None:
        async with httpx.AsyncClient(base_url=self.address, timeout=120) as self.http:
            while time.monotonic() < end:
                try:
                    await self.page(end)
                except httpx.TransportError as error:
                    self.wrong.append(f"{type(error).__name__}: {error}")

    async def ask(self, what: str, method: str, path: str, **given: object) -> httpx.Response:
        await asyncio.sleep(float(self.rng.exponential(self.options.pause)))
        start = time.perf_counter()
        answer = await self.http.request(method, f"/api/{path}", **given)
        self.spent[what].append(time.perf_counter() - start)
        self.statuses[answer.status_code] += 1
        if answer.status_code >= 500 and answer.status_code != 503:
            self.wrong.append(f"{what}: {answer.status_code} {answer.text[:200]}")
        return answer

    async def page(self, end: float) -> None:  # noqa: C901 - what a user may do
        """A page from its opening until the user leaves it."""
        opened = await self.ask("open", "POST", "sessions")
        if opened.status_code != 201:
            return
        self.http.headers["X-Fewseg-Session"] = opened.json()["token"]
        ids = []
        for k in range(3):
            pixels = self.rng.integers(0, 255, (*self.size, 3)).astype(np.uint8)
            name = {"name": f"user{self.number}-{k}.png"}
            answer = await self.ask("upload", "POST", "images", params=name, content=png(pixels))
            if answer.status_code != 201:
                return
            ids.append(answer.json()["id"])
        await self.ask("class", "POST", "classes", params={"name": f"thing{self.number}"})
        while time.monotonic() < end:
            await self.draw(ids[0])
            for id in ids[1:]:
                seen = await self.ask("prediction", "GET", f"images/{id}/labels")
                if seen.status_code == 200 and Image.open(io.BytesIO(seen.content)).size != self.size[::-1]:
                    self.wrong.append(f"a mask of another session: {seen.headers}")
            state = await self.ask("session", "GET", "session")
            if state.status_code != 200:
                return  # expired: a new page
            found = state.json()
            own = [image["name"].startswith(f"user{self.number}-") for image in found["images"]]
            if len(own) != 3 or not all(own) or found["classes"] != [f"thing{self.number}"]:
                self.wrong.append(f"another session's state: {found}")
            leaves = self.rng.random()
            if leaves < 0.03:
                await self.broken_upload()
            elif leaves < 0.06:
                await self.cancelled(ids[1])
            elif leaves < 0.09:
                await asyncio.sleep(1.2 * self.options.idle)  # the page expires
            elif leaves < 0.12:
                await self.ask("close", "DELETE", "session")
                return

    async def draw(self, id: str) -> None:
        mask = np.zeros(self.size, np.uint8)
        top, left = self.rng.integers(5, 60, 2)
        mask[top : top + 40, left : left + 50] = 1
        await self.ask("draw", "PUT", f"images/{id}/labels", params={"role": "support"}, content=png(mask))

    async def broken_upload(self) -> None:
        """Half of an upload, and the connection is closed."""
        token = self.http.headers["X-Fewseg-Session"]
        host, _, port = self.address.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /api/images?name=x.png HTTP/1.1\r\nHost: {host}\r\nX-Fewseg-Session: {token}\r\n"
        writer.write(head.encode() + b"Content-Length: 100000\r\n\r\n" + bytes(5000))
        await writer.drain()
        writer.close()

    async def cancelled(self, id: str) -> None:
        """A request that its sender does not wait for."""
        task = asyncio.create_task(self.http.get(f"/api/images/{id}/quality"))
        await asyncio.sleep(0.02)
        task.cancel()


def resident(pid: int) -> float:
    """MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


async def campaign(options: Options, address: str, pid: int) -> dict[str, object]:
    async with httpx.AsyncClient() as http:
        for _ in range(300):
            try:
                await http.get(address)
                break
            except httpx.TransportError:
                await asyncio.sleep(0.2)
    end = time.monotonic() + options.seconds
    memory: list[float] = []

    async def sample() -> None:
        while time.monotonic() < end:
            memory.append(resident(pid))
            await asyncio.sleep(1)

    users = [User(k, options, address) for k in range(options.users)]
    await asyncio.gather(sample(), *(user.run(end) for user in users))
    spent: dict[str, list[float]] = defaultdict(list)
    for user in users:
        for what, seconds in user.spent.items():
            spent[what] += seconds
    third = max(1, len(memory) // 3)
    return {
        "users": options.users,
        "seconds": options.seconds,
        "requests": sum(map(len, spent.values())),
        "statuses": dict(sum((user.statuses for user in users), Counter())),
        "ms (50, 95, 99 %)": {
            what: [round(1000 * float(np.quantile(own, q))) for q in (0.5, 0.95, 0.99)]
            for what, own in spent.items()
        },
        "MiB": {
            "most": round(max(memory)),
            "mean of the second third": round(float(np.mean(memory[third : 2 * third]))),
            "mean of the last third": round(float(np.mean(memory[2 * third :]))),
        },
        "wrong": [text for user in users for text in user.wrong],
    }


def main(options: Options) -> dict[str, object]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(options, port), daemon=True)
    process.start()
    try:
        found = asyncio.run(campaign(options, f"http://127.0.0.1:{port}", process.pid))
    finally:
        process.kill()
    print(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    if main(tyro.cli(Options, description=__doc__))["wrong"]:
        sys.exit(1)
