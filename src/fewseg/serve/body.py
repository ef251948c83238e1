"""The body of a request, as far as it is accepted."""

from __future__ import annotations

from starlette.requests import Request

from fewseg.serve.limits import Refused


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
