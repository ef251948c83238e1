"""CRNet: query and support strengthen the channels that both have, and both are segmented.

Source: CRNet (Liu et al., CVPR 2020; arXiv 2003.10658), Sec. 4. Its full text was not at hand: the parts are
those that its abstract and later papers describe, and equations bear no numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fewseg.methods.canet import IterativeConfig, IterativeScorer
from fewseg.methods.fusion import PairFusion, ScoreAverage
from fewseg.methods.losses import cross_entropy_full_size
from fewseg.methods.registry import register_method
from fewseg.ops.masks import masked_average
from fewseg.types import EncodedEpisodes, Features, Guides, LossTerms, QueryMaps


@dataclass(frozen=True, kw_only=True)
class CRNetConfig(IterativeConfig):
    """CRNet's parts and sizes; see ``IterativeConfig`` for the fields that are not listed.

    Attributes:
        fusion: how K shots become one answer.
        both_weight: weight of the two losses of what query and support have in common.
    """

    fusion: PairFusion = field(default_factory=ScoreAverage)
    both_weight: float = 1.0


class CrossReference(nn.Module):
    """How much two images both have of each channel: the product of the importance in either.

    The importance of a channel is two layers on the mean of the map, then a sigmoid; both images share them.

    Source: CRNet (Liu et al. 2020), the cross-reference module.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """(n, d) in (0, 1), of the means of the maps of both, (n or 1, d) each."""
        common: Tensor = self.layers(one).sigmoid() * self.layers(other).sigmoid()
        return common


@register_method("crnet", CRNetConfig)
class CRNet(IterativeScorer):
    """Cross-reference, the support's vector beside each query cell, and refinement of the answer.

    Deviations: K shots are averaged. The paper finetunes parts of the network on them; its abstract does not
    say which parts, nor how long and how fast, so that this is left out. Comparison, refinement and history
    are CANet's; the layers of the cross-reference, and one head for what both images have, which is used in
    training alone, are choices of this file.
    """

    config: CRNetConfig

    def __init__(self, config: CRNetConfig) -> None:
        super().__init__(config, vectors=1)

    def _add_branch(self, channels: int) -> None:
        d = channels
        self.reference = CrossReference(d)
        self.both = nn.Sequential(nn.Conv2d(d, d, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(d, 2, 1))

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """The support vector of each shot (masked average pooling) and the mean of its map."""
        return self._guides(self.mid.of(features), masks)

    def _guides(self, maps: Tensor, masks: Tensor) -> Guides:
        vectors = masked_average(maps, self.cells(masks, maps))
        return Guides(maps={"vectors": vectors.unsqueeze(1), "pooled": maps.mean(dim=(2, 3)).unsqueeze(1)})

    def common(self, query: QueryMaps, guides: Guides) -> Tensor:
        """What query and support have in common (n, d), of n (query, guide) pairs."""
        common: Tensor = self.reference(query.mid.mean(dim=(2, 3)), guides["pooled"].squeeze(1))
        return common

    def compare(self, query: QueryMaps, guides: Guides) -> Tensor:
        """Dense comparison (n, d, h, w) of n pairs, the channels of both weighed by what they have in common.

        The average over a mask of weighed channels is the weighed average.

        Source: CRNet (Liu et al. 2020), the condition module.
        """
        common = self.common(query, guides)
        compared: Tensor = self.comparison(
            query.mid * common[..., None, None], guides["vectors"] * common.unsqueeze(1)
        )
        return compared

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """Cross-entropy of the query, decoded once from its pair's history, and of what both have in common.

        The scores of K shots are averaged, as inference does.
        """
        support, shots = episodes.support, episodes.support.shots
        maps, masks = self.mid.of(support.features), support.masks.flatten(0, 1)
        guides = self._guides(maps, masks)
        of_query = torch.arange(len(episodes.query_masks)).repeat_interleave(shots)
        query = self.encode_query(episodes.query).select(of_query)
        compared = self.compare(query, guides)
        history = self.history.recall(episodes.pair_ids, compared[::shots]).repeat_interleave(shots, dim=0)
        logits = self.trunk(compared, history).unflatten(0, (-1, shots)).mean(dim=1)
        self.history.remember(episodes.pair_ids, logits)
        common = self.common(query, guides)[..., None, None]
        terms = {
            "query": cross_entropy_full_size(logits, episodes.query_masks),
            "both_query": cross_entropy_full_size(
                self.both(query.mid * common), episodes.query_masks[of_query.to(masks.device)]
            ),
            "both_support": cross_entropy_full_size(self.both(maps * common), masks),
        }
        weight = self.config.both_weight
        return LossTerms(terms=terms, weights={"both_query": weight, "both_support": weight})
