"""Connections that are closed when a request's head does not come or an answer is not read.

So neither half requests nor readers that stop lock anybody out.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""From the start of a connection, or of a further request on it, to the end of the request's head."""
READ_SECONDS = 20.0
"""In which a client must have read some of an answer that waits for it."""
_SLOWEST_READER = 4096  # bytes a second


class Connection(H11Protocol):
    """uvicorn's connection with time limits for heads of requests and for readers; bodies have their own."""

    _limit: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Takes data; the time ends with the head."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the time."""
        self._end()
        self._end_reading()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Starts the time for the client to read."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """Ends it."""
        self._end_reading()
        super().resume_writing()

    def _await_reader(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(READ_SECONDS, self._check_reader, left)

    def _check_reader(self, before: int) -> None:
        left: int = self.transport.get_write_buffer_size()
        if before - left < READ_SECONDS * _SLOWEST_READER:
            self.transport.abort()
        else:
            self._await_reader()

    def _end_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _watch(self) -> None:
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._end()
        elif self._limit is None:
            self._limit = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _end(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
