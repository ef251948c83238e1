"""What a server accepts from its users, and the error for what it does not."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request

MIB = 2**20
_SLOWEST = 32 * 1024  # bytes a second of an upload, on the whole
_PATIENCE = 30.0  # seconds that a request waits for others to finish decoding
_MOST_WAITING = 20  # each in one of the server's 40 threads


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a server accepts and keeps."""

    upload_bytes: int = 64 * MIB  # of one file
    pixels: int = 40_000_000  # of one image, checked before it is decoded
    session_bytes: int = 2048 * MIB  # what a page may keep: features, pictures, masks
    images: int = 500  # of a page
    sessions: int = 8  # pages at the same time
    idle_seconds: float = 3600.0  # after which a page and all it holds is dropped
    bodies_bytes: int = 512 * MIB  # of all uploads that are being read or used
    stall_seconds: float = 20.0  # without a byte of a request that has begun, after which it is given up

    def __post_init__(self) -> None:
        wrong = {name: value for name, value in vars(self).items() if value < 1}
        if wrong:
            raise ValueError(f"limits must be 1 or more, got {wrong}")

    @property
    def unpacked_bytes(self) -> int:
        """Of all archives that are unpacked at the same time."""
        return 8 * self.upload_bytes

    @property
    def decoded_pixels(self) -> int:
        """Of all images that are being decoded: one of the largest, and ordinary ones beside it."""
        return self.pixels + self.pixels // 2


class RequestError(Exception):
    """A request that is refused: the HTTP status, and what was given, what is valid, what to do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def basic_credentials(request: Request) -> bytes:
    """``user:password`` of HTTP Basic in a request; empty where there is none, or where it is broken."""
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        with suppress(ValueError):
            return base64.b64decode(value, validate=True)
    return b""


class Bodies:
    """Reads the bodies of requests: each of limited size, all together too, and none without end."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.held = limits, 0

    @asynccontextmanager
    async def read(self, request: Request, limit: int) -> AsyncIterator[bytes]:
        """A request's body of at most ``limit`` bytes, which counts as held until the block ends."""
        size = 0
        try:
            parts = []
            async for part in self._parts(request, limit):
                size, self.held = size + len(part), self.held + len(part)
                if self.held > self.limits.bodies_bytes:
                    raise RequestError(503, "the server has too many uploads to read now: try again later")
                parts.append(part)
            yield b"".join(parts)
        finally:
            self.held -= size

    async def _parts(self, request: Request, limit: int) -> AsyncIterator[bytes]:
        from starlette.requests import ClientDisconnect

        too_long = RequestError(
            413, f"an upload must be at most {limit / MIB:.0f} MiB, this one is larger: send a smaller file"
        )
        stated = request.headers.get("content-length", "")
        if stated.isdecimal() and (len(stated) > 18 or int(stated) > limit):
            raise too_long
        length, stream = 0, request.stream()
        start = time.monotonic()
        while True:
            allowed = self.limits.stall_seconds + length / _SLOWEST
            try:
                async with asyncio.timeout(
                    min(self.limits.stall_seconds, start + allowed - time.monotonic())
                ):
                    part = await anext(stream, None)
            except TimeoutError as error:
                raise RequestError(408, "the upload stopped or is too slow: send it again") from error
            except ClientDisconnect as error:  # nobody reads the answer
                raise RequestError(400, "the upload was broken off: send it again") from error
            if part is None:
                return
            length += len(part)
            if length > limit:
                raise too_long
            yield part


class Budget:
    """Pixels that may be decoded at the same time, or bytes unpacked, by any number of threads.

    A pixel takes about 22 bytes meanwhile. Where there is no room a thread waits; the smallest claim goes
    first. A claim is taken before any lock of a page or of the network. No thread takes two of pixels; one
    of bytes comes before one of pixels.
    """

    def __init__(self, most: int, of: str = "images to decode") -> None:
        self.most, self.held, self._of = most, 0, of
        self._waiting: list[int] = []
        self._changed = threading.Condition()

    @contextmanager
    def claim(self, size: int) -> Iterator[None]:
        """Holds so much until the block ends; more than there is counts as all."""
        size = min(size, self.most)
        with self._changed:
            self._waiting.append(size)
            patience = _PATIENCE if len(self._waiting) <= _MOST_WAITING else 0.0
            try:
                if not self._changed.wait_for(lambda: self._fits(size), patience):
                    raise RequestError(503, f"the server has too many {self._of} now: try again later")
                self.held += size
            finally:
                self._waiting.remove(size)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self.held -= size
                self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return self.held + size <= self.most and size == min(self._waiting)
