"""What one line says of a result: its protocol; its spread over seeds and what it could find at all."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from fewseg.data.protocols import stored_protocol
from fewseg.engine.results import RunResult
from fewseg.metrics import minimum_detectable_difference
from fewseg.reports.numbers import percent


def standard_error(result: RunResult) -> float:
    """Of the mean mIoU, from the width of its 95 % bootstrap interval."""
    low, high = result.miou_ci95
    return (high - low) / (2 * NormalDist().inv_cdf(0.975))


def spread_line(result: RunResult) -> str:
    """One line: mIoU, its standard deviation over seeds, and the smallest difference that can be found.

    The difference is that between two results of so many episodes each, not paired, found 8 times of 10 at
    95 %; paired episodes (``fewseg compare``) find smaller ones.
    """
    episodes = sum(seed.episodes for seed in result.seeds)
    smallest = minimum_detectable_difference(sqrt(2) * standard_error(result), episodes=episodes)
    over = (
        "one seed"
        if result.miou_std is None
        else f"+- {percent(result.miou_std)} over {len(result.seeds)} seeds"
    )
    return (
        f"{result.method} {result.fusion}, {result.shots}-shot, fold {result.fold}: mIoU "
        f"{percent(result.miou_mean)} ({over}); {episodes} episodes find differences from "
        f"{100 * smallest:.1f} points, unpaired"
    )


def protocol_line(result: RunResult) -> str:
    """The protocol in one line, with its digest; of one that is none of the program's, name and digest."""
    try:
        protocol = stored_protocol(result.protocol)
    except (TypeError, ValueError):
        protocol = None
    if protocol is None:
        return f"protocol {result.protocol.get('name', 'without a name')} [{result.protocol_digest}]"
    return f"protocol {protocol.line()}"
