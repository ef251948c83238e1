"""What a server accepts from its users, and the error for what it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a server accepts and keeps."""

    upload_bytes: int = 64 * MIB  # of one file
    pixels: int = 40_000_000  # of one image, checked before it is decoded
    session_bytes: int = 2048 * MIB  # what a page may keep: features, pictures, masks
    images: int = 500  # of a page
    sessions: int = 8  # pages at the same time
    idle_seconds: float = 3600.0  # after which a page and all it holds is dropped

    def __post_init__(self) -> None:
        wrong = {name: value for name, value in vars(self).items() if value < 1}
        if wrong:
            raise ValueError(f"limits must be 1 or more, got {wrong}")


class RequestError(Exception):
    """A request that is refused: the HTTP status, and what was given, what is valid, what to do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


async def read_body(request: Request, limit: int) -> bytes:
    """Reads a request's body, but not more than a limit of bytes."""
    too_long = RequestError(
        413, f"an upload must be at most {limit / MIB:.0f} MiB, this one is larger: send a smaller file"
    )
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limit:
        raise too_long
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > limit:
            raise too_long
        parts.append(part)
    return b"".join(parts)
