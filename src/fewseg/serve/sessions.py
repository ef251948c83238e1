"""Who has which workspace, and for how long."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from fewseg.inference.model import Model
from fewseg.serve.limits import Limits, Refused
from fewseg.serve.workspace import Workspace


class Sessions:
    """Workspaces by token; one that is not used for a while is gone, with all it holds.

    Args:
        model: shared by all.
        limits: see there.
        clock: seconds that only grow.
    """

    def __init__(self, model: Model, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.model, self.limits = model, limits
        self._clock = clock
        self.compute, self.judging = threading.Lock(), threading.Lock()
        self._lock = threading.Lock()
        self._open: dict[str, tuple[Workspace, float]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def start(self) -> tuple[str, Workspace]:
        """Opens a workspace; where there is no room, the longest idle one without images makes some.

        Returns:
            Its token and itself.

        Raises:
            Refused: 503, all that the server allows are in use.
        """
        with self._lock:
            self._sweep()
            if len(self._open) >= self.limits.sessions:
                empty = [(last, token) for token, (space, last) in self._open.items() if space.empty]
                if not empty:
                    raise Refused(
                        503,
                        f"the server has {len(self._open)} sessions; accepted are {self.limits.sessions} at "
                        "a time: close another page, or wait until one times out",
                    )
                del self._open[min(empty)[1]]
            token = secrets.token_urlsafe(24)
            space = Workspace(self.model, self.limits, self.compute, self.judging)
            self._open[token] = (space, self._clock())
            return token, space

    def workspace(self, token: str) -> Workspace:
        """Returns the workspace of a token and starts its time anew.

        Raises:
            Refused: 401, there is none, or it has timed out.
        """
        with self._lock:
            self._sweep()
            if token not in self._open:
                raise Refused(401, "the session is unknown or has timed out: load the page again")
            space, _ = self._open[token]
            self._open[token] = (space, self._clock())
            return space

    def end(self, token: str) -> None:
        """Drops a workspace; an unknown token is none."""
        with self._lock:
            self._open.pop(token, None)

    def sweep(self) -> None:
        """Drops workspaces that were not used for the time allowed."""
        with self._lock:
            self._sweep()

    def _sweep(self) -> None:
        oldest = self._clock() - self.limits.idle_seconds
        self._open = {token: held for token, held in self._open.items() if held[1] > oldest}
