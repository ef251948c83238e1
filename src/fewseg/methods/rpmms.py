"""RPMMs: PMMs of growing numbers of prototypes, stacked so that each corrects the answer of the one before.

Source: PMMs (Yang et al., ECCV 2020; arXiv 2008.03898), Sec. 3, the residual PMMs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewseg.methods.canet import DenseComparison, IterativeTrunk
from fewseg.methods.losses import cross_entropy_full_size, deep_supervision
from fewseg.methods.pmms import PMMs, PMMsConfig, p_conv, p_match
from fewseg.methods.registry import register_method
from fewseg.types import EncodedEpisodes, Features, Guides, LossTerms, QueryMaps


@dataclass(frozen=True, kw_only=True)
class RPMMsConfig(PMMsConfig):
    """RPMMs' parts and sizes; see ``PMMsConfig`` for the fields that are not listed.

    Attributes:
        components: prototypes of the last stage.
        earlier: prototypes of the stages before it, one number a stage.
        deep_weight: weight of the earlier stages' mean cross-entropy.

    Raises:
        ValueError: a number is out of range.
    """

    earlier: tuple[int, ...] = (1, 2)
    deep_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.earlier or min(self.earlier) < 1:
            raise ValueError(f"earlier must be one or more numbers of prototypes from 1, got {self.earlier}")


@register_method("rpmms", RPMMsConfig)
class RPMMs(PMMs):
    """A stack of PMMs; each stage after the first reads the probabilities of the stage before it.

    Deviations: besides those of ``PMMs``, the paper's text was not at hand: the numbers of prototypes, that
    the stages share the mid-level feature alone, that a stage's logits are added to those before, and that
    every stage has a loss are choices of this file.
    """

    config: RPMMsConfig

    def __init__(self, config: RPMMsConfig) -> None:
        super().__init__(config)
        d, dropout = config.channels, config.head_dropout
        stages = range(len(config.earlier))
        self.comparisons = nn.ModuleList(DenseComparison(d, vectors=1, dropout=dropout) for _ in stages)
        self.trunks = nn.ModuleList(
            IterativeTrunk(d, dropout=dropout, extra=4 if stage else 2) for stage in stages
        )
        self.trunk = IterativeTrunk(d, dropout=dropout, extra=4)

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """The prototypes of every stage; those of the last are "vectors" and "background"."""
        maps = dict(super().encode_shots(features, masks).maps)
        for stage, components in enumerate(self.config.earlier):
            prototypes = self.prototypes(features, masks, components)
            maps |= zip((f"vectors_{stage}", f"background_{stage}"), prototypes, strict=True)
        return Guides(maps=maps)

    def stages(self, query: QueryMaps, guides: Guides) -> list[Tensor]:
        """Logits (n, 2, h, w) after each stage, of n (query, guide) pairs."""
        config, answers = self.config, list[Tensor]()
        names = [f"_{stage}" for stage in range(len(config.earlier))]
        parts = zip(
            (*names, ""),
            (*config.earlier, config.components),
            (*self.comparisons, self.comparison),
            (*self.trunks, self.trunk),
            strict=True,
        )
        for name, components, comparison, trunk in parts:
            vectors, background = guides[f"vectors{name}"], guides[f"background{name}"]
            extra = p_conv(query.mid, background, vectors, config.kappa)
            matched = p_match(comparison, query.mid, vectors, components)
            if answers:
                extra = torch.cat([extra, answers[-1].softmax(dim=1)], dim=1)
                answers.append(answers[-1] + trunk(matched, extra))
            else:
                answers.append(trunk(matched, extra))
        return answers

    def score(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> Tensor:
        """Logits (n, 2, h, w) of n (query, guide) pairs."""
        del prior
        return self.stages(query, guides)[-1]

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """Cross-entropy of the last stage and of the earlier ones."""
        support = episodes.support
        guides = self.encode_shots(support.features, support.masks.flatten(0, 1))
        joined = self.training_fusion.join(guides, support.shots)
        *earlier, last = self.stages(self.encode_query(episodes.query), joined)
        terms = {
            "query": cross_entropy_full_size(last, episodes.query_masks),
            "query_deep": deep_supervision(earlier, episodes.query_masks),
        }
        return LossTerms(terms=terms, weights={"query_deep": self.config.deep_weight})
