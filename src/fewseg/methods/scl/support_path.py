"""SCL's support path, whatever the baseline: a first pass under v_s, and a second one under v_pri and v_aux.

Source: SCL (Zhang et al. 2021), Sec. 4.2.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fewseg.decoders.pyramid import PyramidOutput
from fewseg.fusion import CrossPath
from fewseg.methods.pair_scorer import PairScorer, cross_pairs
from fewseg.methods.scl.self_guided import SelfGuided
from fewseg.ops.masks import foreground_cells
from fewseg.ops.pooling import masked_average
from fewseg.types import EncodedShots, Features, Guides


@dataclass(frozen=True, kw_only=True)
class SupportPass:
    """The support path's first pass on n shots: feature, cells, v_s, and what the decoder said."""

    mid: Tensor
    cells: Tensor
    initial: Tensor
    first: PyramidOutput

    def select(self, index: Tensor) -> SupportPass:
        """Returns the shots at ``index``."""
        first = PyramidOutput(
            logits=self.first.logits[index],
            inner=tuple(maps[index] for maps in self.first.inner),
            levels=tuple(maps[index] for maps in self.first.levels),
        )
        return SupportPass(
            mid=self.mid[index], cells=self.cells[index], initial=self.initial[index], first=first
        )


class SupportPathScorer(PairScorer):
    """A pair scorer with SCL's self-guided module on a support path of its own."""

    self_guided: SelfGuided

    @abstractmethod
    def support_map(self, features: Features) -> Tensor:
        """The support's mid-level feature, (n, d, h, w)."""

    @abstractmethod
    def _decode_support(
        self, mid: Tensor, vectors: Tensor, *, deep: bool, previous: Sequence[Tensor] | None = None
    ) -> PyramidOutput:
        """Segments shots (n, d, h, w) under guide vectors (n, V, d); see ``PyramidTrunk.forward``."""

    def first_pass(self, features: Features, masks: Tensor, *, deep: bool = False) -> SupportPass:
        """Segments n shots under their own v_s (Eq. 1-3)."""
        mid = self.support_map(features)
        cells = foreground_cells(masks, (mid.shape[-2], mid.shape[-1]), mid.dtype)
        initial = masked_average(mid, cells)
        first = self._decode_support(mid, self.self_guided.first(initial), deep=deep)
        return SupportPass(mid=mid, cells=cells, initial=initial, first=first)

    def second_vectors(self, support: SupportPass) -> Tensor:
        """The guide vectors (n, V, d) that the first pass yields (Eq. 4-6)."""
        logits = support.first.logits
        return self.self_guided.second(support.mid, support.cells, support.initial, logits)

    def second_pass(self, support: SupportPass, vectors: Tensor, *, deep: bool = False) -> PyramidOutput:
        """Segments n shots under the given guide vectors (n, V, d) through the support path (Eq. 8-9)."""
        released = self.self_guided.second_pass == "released"
        previous = support.first.levels if released else None
        return self._decode_support(support.mid, vectors, deep=deep, previous=previous)

    def cross_logits(self, support: EncodedShots, guides: Guides, path: CrossPath = "query") -> Tensor:
        """Every shot's prediction of every support image; ``path="support"`` is the released form.

        The released code segments the supports by the second support pass, without prior map or history.
        """
        if path == "query":
            return super().cross_logits(support, guides, path)
        of_guide, of_target = cross_pairs(*support.masks.shape[:2])
        targets = self.first_pass(support.features, support.masks.flatten(0, 1)).select(of_target)
        return self.second_pass(targets, guides.vectors[of_guide]).logits
