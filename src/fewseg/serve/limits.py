"""What a server takes from its users, and the errors that say so."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a server accepts and keeps.

    Attributes:
        upload_bytes: of one file.
        pixels: of one image, checked before it is decoded.
        session_bytes: what a session may keep: features, pictures, masks.
        images: of a session.
        sessions: at the same time.
        idle_seconds: after which a session and all it holds is gone.

    Raises:
        ValueError: a number is below 1.
    """

    upload_bytes: int = 64 * MIB
    pixels: int = 40_000_000
    session_bytes: int = 2048 * MIB
    images: int = 500
    sessions: int = 8
    idle_seconds: float = 3600.0

    def __post_init__(self) -> None:
        wrong = {name: value for name, value in vars(self).items() if value < 1}
        if wrong:
            raise ValueError(f"limits must be 1 or more, got {wrong}")


class Refused(Exception):  # noqa: N818 (what happened to the request)
    """A request that the server does not serve.

    Args:
        status: of HTTP.
        text: what came, what is accepted, what to do.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


async def read_body(request: Request, limit: int) -> bytes:
    """Reads a request's body, not further than a limit.

    Raises:
        Refused: 413, it is longer.
    """
    too_long = Refused(
        413, f"the upload is larger than {limit / 2**20:.0f} MiB, which is accepted: send a smaller file"
    )
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > limit:
        raise too_long
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > limit:
            raise too_long
        parts.append(part)
    return b"".join(parts)
