"""What a result file says twice must agree: a file that was edited by hand is known by it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fewseg.data.protocols import stored_protocol
from fewseg.metrics import std_over_seeds

if TYPE_CHECKING:
    from fewseg.engine.results import RunResult


def check_said_twice(path: str | Path, result: RunResult) -> None:
    """Checks what a result says twice: means and spread over seeds, and the digest of its protocol.

    Raises:
        ValueError: the file was edited.
    """
    for name in ("miou", "fb_iou", "dice"):
        stored = getattr(result, f"{name}_mean")
        mean = float(np.mean([getattr(seed, name) for seed in result.seeds]))
        if abs(stored - mean) > 1e-9:
            raise ValueError(
                f"{path}: {name}_mean is {stored:.6f}, the mean of its seeds {mean:.6f}: the file was "
                "edited; evaluate again"
            )
    spread = std_over_seeds([seed.miou for seed in result.seeds])
    if (result.miou_std is None) != (spread is None) or abs((result.miou_std or 0) - (spread or 0)) > 1e-9:
        raise ValueError(
            f"{path}: miou_std is {result.miou_std}, that of its seeds {spread}: the file was edited; "
            "evaluate again"
        )
    try:
        protocol = stored_protocol(result.protocol)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: its protocol is none ({error}): evaluate again") from error
    if protocol is not None and protocol.digest() != result.protocol_digest:
        raise ValueError(
            f"{path}: the digest {result.protocol_digest} is not that of its protocol, {protocol.digest()}: "
            "the file was edited; evaluate again"
        )
