"""SAAM as a part of the config, and the null object in its place (SD-AANet, Table III)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fewseg.decoders.affinity import AffinityModule


@dataclass(frozen=True, kw_only=True)
class SupervisedAttention:
    """The supervised affinity attention module: one more channel for the decoder, and one more loss.

    Source: SD-AANet (Zhao et al. 2022), Sec. III-C.
    """

    kind: Literal["saam"] = "saam"

    @property
    def channels(self) -> int:
        """1."""
        return 1

    def build(self, channels: int) -> AffinityModule | None:
        """The module for features of ``channels`` channels."""
        return AffinityModule(channels)


@dataclass(frozen=True, kw_only=True)
class NoAttention:
    """No attention: zero channels, no loss."""

    kind: Literal["none"] = "none"

    @property
    def channels(self) -> int:
        """0."""
        return 0

    def build(self, channels: int) -> AffinityModule | None:
        """None."""
        del channels
        return None


AttentionConfig = SupervisedAttention | NoAttention
