"""Many users of ``fewseg serve`` at once: latencies, memory, and whether each gets its own answers.

``fewseg serve`` with a small network (random weights) listens on the loopback interface. Each user opens a
page, uploads pictures of a size that no other user has, draws masks, looks at predictions, asks for several
pictures at once as a browser does, and every so often sends or reads slowly, or goes away in the middle: a
cancelled request, a broken upload, a page left open, a new page. Ends with 1 where a call has a different
status than the one it must have, an answer is wrong, a kind of call did not succeed often enough, or memory
grows by more than 5 % from the second third of the time to the last (of a minute or more).

uv run python benchmarks/load.py [--users 50] [--seconds 300] [--connections 6]
"""

from __future__ import annotations

import asyncio
import io
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
import tyro
from PIL import Image

_GROWTH = 1.05  # of memory, from the second third of the time to the last, at most
_LONG = 60.0  # seconds from which on memory is judged: a server that has just started grows

EXPECTED = {
    "open": 201, "upload": 201, "class": 201, "draw": 200, "prediction": 200, "picture": 200, "session": 200,
    "expired": 401, "close": 204, "slow sender": 200, "slow reader": 200, "broken upload": 0, "cancelled": 0,
}  # fmt: skip
"""The status of each kind of call; 0 where nobody waits for it."""

RARE = ("broken upload", "cancelled", "slow sender", "slow reader", "expired", "close")
"""What users do once in a while, in turn: each must succeed once, all other calls once for each user."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How many users, for how long."""

    users: int = 50
    seconds: float = 60.0
    connections: int = 6  # that a user has, as in a browser
    pause: float = 1.0  # mean seconds that a user thinks between two requests
    rare: float = 0.18  # chance of something else after each look at the page: a broken upload, say
    slow: float = 5.0  # seconds that a slow sender or reader takes
    idle: float = 20.0  # after which the server drops an unused page
    size: int = 129  # side of the network's input, pixels
    seed: int = 0


def serve(options: Options, port: int, folder: str) -> None:
    """The server's process."""
    import torch

    from fewseg.backbones import BackboneConfig
    from fewseg.engine.checkpoint import Checkpoint, save_checkpoint
    from fewseg.inference.options import ModelOptions
    from fewseg.methods.matcher import MatcherConfig
    from fewseg.serve import ServeOptions
    from fewseg.serve import serve as run_server

    torch.set_num_threads(1)
    config = MatcherConfig(
        backbone=BackboneConfig(name="resnet18", weights=None, levels=("layer2", "layer3"))
    )
    checkpoint = Path(folder) / "small.safetensors"
    save_checkpoint(checkpoint, config.build().eval(), Checkpoint(config=config), whole=True)
    served = ServeOptions(
        port=port,
        sessions=options.users + options.users // 4 + 1,
        idle_minutes=options.idle / 60,
        model=ModelOptions(model=str(checkpoint), size=options.size),
    )
    run_server(served, lambda _: None)


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
        self.successes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.rare = number  # of what is done once in a while, the next

    async def run(self, end: float) -> None:
        most = self.options.connections
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=3)
        async with httpx.AsyncClient(base_url=self.address, timeout=120, limits=limits) as self.http:
            while time.monotonic() < end:
                try:
                    await self.page(end)
                except (httpx.TransportError, OSError) as error:
                    self.wrong.append(f"{type(error).__name__}: {error}")

    async def think(self) -> None:
        await asyncio.sleep(float(self.rng.exponential(self.options.pause)))

    async def ask(self, what: str, method: str, path: str, **given: object) -> httpx.Response:
        start = time.perf_counter()
        answer = await self.http.request(method, f"/api/{path}", **given)
        self.spent[what].append(time.perf_counter() - start)
        self.judge(what, answer.status_code, answer.text[:200] if answer.status_code >= 400 else "")
        return answer

    def judge(self, what: str, status: int, text: str) -> None:
        self.statuses[status] += 1
        if status == EXPECTED[what]:
            self.successes[what] += 1
        else:
            self.wrong.append(f"{what}: {status} {text}")

    async def page(self, end: float) -> None:
        """A page from its opening until the user leaves it, or the server refuses something."""
        await self.think()
        opened = await self.ask("open", "POST", "sessions")
        if opened.status_code != 201:
            return
        self.http.headers["X-Fewseg-Session"] = opened.json()["token"]
        ids, files = [], []
        for k in range(3):
            pixels = self.rng.integers(0, 255, (*self.size, 3)).astype(np.uint8)
            files.append(png(pixels))
            name = {"name": f"user{self.number}-{k}.png"}
            await self.think()
            answer = await self.ask("upload", "POST", "images", params=name, content=files[k])
            if answer.status_code != 201:
                return
            ids.append(answer.json()["id"])
        await self.ask("class", "POST", "classes", params={"name": f"thing{self.number}"})
        while time.monotonic() < end:
            await self.think()
            await self.draw(ids[0])
            for id in ids[1:]:
                await self.think()
                seen = await self.ask("prediction", "GET", f"images/{id}/labels")
                if seen.status_code == 200 and Image.open(io.BytesIO(seen.content)).size != self.size[::-1]:
                    self.wrong.append(f"a mask of another session: {seen.headers}")
            await self.think()
            await self.look(ids)
            state = await self.ask("session", "GET", "session")
            if state.status_code != 200:
                return
            found = state.json()
            own = [image["name"].startswith(f"user{self.number}-") for image in found["images"]]
            if len(own) != 3 or not all(own) or found["classes"] != [f"thing{self.number}"]:
                self.wrong.append(f"another session's state: {found}")
            if self.rng.random() < self.options.rare and await self.now_and_then(ids, files):
                return

    async def look(self, ids: list[str]) -> None:
        """A picture on each connection at once."""
        asked = [ids[k % len(ids)] for k in range(self.options.connections)]
        small = {"small": True}
        await asyncio.gather(
            *(self.ask("picture", "GET", f"images/{id}/picture", params=small) for id in asked)
        )

    async def now_and_then(self, ids: list[str], files: list[bytes]) -> bool:
        """The next of what a user does once in a while; whether the page is left."""
        what = RARE[self.rare % len(RARE)]
        self.rare += 1
        if what == "broken upload":
            await self.broken_upload()
        elif what == "cancelled":
            await self.cancelled(ids[1])
        elif what == "slow sender":
            await self.slow_sender(ids[0])
        elif what == "slow reader":
            await self.slow_reader(ids[0], files[0])
        elif what == "expired":
            await asyncio.sleep(1.2 * self.options.idle)
            await self.ask("expired", "GET", "session")
        else:
            await self.ask("close", "DELETE", "session")
        return what in ("expired", "close")

    def mask(self) -> bytes:
        mask = np.zeros(self.size, np.uint8)
        top, left = self.rng.integers(5, 60, 2)
        mask[top : top + 40, left : left + 50] = 1
        return png(mask)

    async def draw(self, id: str) -> None:
        role = {"role": "support"}
        await self.ask("draw", "PUT", f"images/{id}/labels", params=role, content=self.mask())

    async def begun(self, request: str, length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which a request's head has been sent."""
        token = self.http.headers["X-Fewseg-Session"]
        host, _, port = self.address.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**10)
        head = f"{request} HTTP/1.1\r\nHost: {host}\r\nX-Fewseg-Session: {token}\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: {length}\r\n\r\n".encode())
        return reader, writer

    async def broken_upload(self) -> None:
        """Half of an upload, and the connection is closed."""
        _, writer = await self.begun("POST /api/images?name=x.png", 100_000)
        writer.write(bytes(5000))
        await writer.drain()
        writer.close()
        self.successes["broken upload"] += 1

    async def slow_sender(self, id: str) -> None:
        """A mask that comes in ten parts."""
        mask = self.mask()
        reader, writer = await self.begun(f"PUT /api/images/{id}/labels?role=support", len(mask))
        part = -(-len(mask) // 10)
        for start in range(0, len(mask), part):
            writer.write(mask[start : start + part])
            await writer.drain()
            await asyncio.sleep(self.options.slow / 10)
        self.check("slow sender", await reader.read(), b"")
        writer.close()

    async def slow_reader(self, id: str, file: bytes) -> None:
        """Reads a file in fifty parts."""
        reader, writer = await self.begun(f"GET /api/images/{id}/file", 0)
        answer = b""
        while part := await reader.read(len(file) // 50):
            answer += part
            await asyncio.sleep(self.options.slow / 50)
        self.check("slow reader", answer, file)
        writer.close()

    def check(self, what: str, answer: bytes, end: bytes) -> None:
        status = answer[9:12].decode()
        whole = answer.endswith(end)
        self.judge(what, int(status or 0) if whole else 0, f"{answer[:200]!r}")

    async def cancelled(self, id: str) -> None:
        """A request that its sender does not wait for."""
        task = asyncio.create_task(self.http.get(f"/api/images/{id}/quality"))
        await asyncio.sleep(0.02)
        task.cancel()
        self.successes["cancelled"] += 1


def resident(pid: int) -> float:
    """MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def lacking(users: list[User]) -> list[str]:
    """The kinds of calls that did not succeed often enough."""
    found = sum((user.successes for user in users), Counter())
    least = {what: 1 if what in RARE else len(users) for what in EXPECTED}
    return [
        f"{what}: {found[what]} successes, at least {number} expected"
        for what, number in least.items()
        if found[what] < number
    ]


async def campaign(options: Options, address: str, pid: int) -> dict[str, object]:
    async with httpx.AsyncClient() as http:
        for _ in range(1500):
            try:
                await http.get(address, timeout=120)  # the port is open before the model is loaded
                break
            except httpx.TransportError:
                await asyncio.sleep(0.2)
    end = time.monotonic() + options.seconds
    memory: list[float] = []

    async def sample() -> None:
        while time.monotonic() < end:
            memory.append(resident(pid))
            await asyncio.sleep(min(1, options.seconds / 30))

    users = [User(k, options, address) for k in range(options.users)]
    await asyncio.gather(sample(), *(user.run(end) for user in users))
    spent: dict[str, list[float]] = defaultdict(list)
    for user in users:
        for what, seconds in user.spent.items():
            spent[what] += seconds
    third = max(1, len(memory) // 3)
    middle, last = (float(np.mean(part)) for part in (memory[third : 2 * third], memory[2 * third :]))
    wrong = [text for user in users for text in user.wrong]
    wrong += lacking(users)
    if options.seconds >= _LONG and last > _GROWTH * middle:
        wrong.append(f"memory grows from {middle:.0f} to {last:.0f} MiB")
    return {
        **asdict(options),
        "requests": sum(map(len, spent.values())),
        "statuses": dict(sum((user.statuses for user in users), Counter())),
        "successes": dict(sum((user.successes for user in users), Counter())),
        "ms (50, 95, 99 %)": {
            what: [round(1000 * float(np.quantile(own, q))) for q in (0.5, 0.95, 0.99)]
            for what, own in spent.items()
        },
        "MiB": {
            "most": round(max(memory)),
            "mean of the second third": round(middle),
            "mean of the last third": round(last),
        },
        "wrong": wrong,
    }


def main(options: Options) -> dict[str, object]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        given = (options, port, folder)
        process = multiprocessing.get_context("spawn").Process(target=serve, args=given, daemon=True)
        process.start()
        try:
            found = asyncio.run(campaign(options, f"http://127.0.0.1:{port}", process.pid))
        finally:
            process.kill()
            process.join()
    print(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    if main(tyro.cli(Options, description=__doc__))["wrong"]:
        sys.exit(1)
