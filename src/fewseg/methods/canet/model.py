"""CANet: dense comparison with a support vector, and iterative refinement of the answer.

Source: CANet (Zhang et al., CVPR 2019), a baseline of SCL, as SCL (Zhang et al. 2021) describes it in
Sec. 5.1 and Fig. 5.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.decoders.dense_comparison import DenseComparison, ShotWeights, weighted_shots
from fewseg.decoders.history import PredictionHistory
from fewseg.decoders.iterative import IterativeTrunk, Refinement
from fewseg.decoders.mid_level import MidLevel
from fewseg.decoders.prior import NoPrior
from fewseg.fusion import AttendedFusion, MeanVector, ShotAttention
from fewseg.losses.segmentation import cross_entropy_full_size
from fewseg.methods.pair_scorer import PairScorer
from fewseg.ops.masks import foreground_cells
from fewseg.ops.pooling import masked_average
from fewseg.types import EncodedEpisodes, Features, Guides, LossTerms, QueryMaps


@dataclass(frozen=True, kw_only=True)
class CANetConfig:
    """CANet's parts and sizes.

    Attributes:
        backbone: the frozen trunk; no level above layer3 is read.
        channels: d, width of the head.
        mid_levels: levels of the mid-level feature, in the order of concatenation.
        fusion: how K shots become one answer. ``ShotAttention`` is the original paper's and adds the
            branch that learns the weights; the mean vector is the default because models are trained on
            1-shot episodes here, which teach that branch nothing.
        refinement: how often inference feeds its answer back.
        history_reset: probability with which a training pair begins from zeros instead of from its last
            answer: 0.7 in the paper, 0.9 in the released SCL code.
        mid_dropout: Dropout2d after the mid-level convolution.
        head_dropout: Dropout2d after the dense comparison and in the classifier.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(levels=("layer2", "layer3")))
    channels: int = 256
    mid_levels: tuple[str, ...] = ("layer2", "layer3")
    fusion: AttendedFusion = field(default_factory=MeanVector)
    refinement: Refinement = field(default_factory=Refinement)
    history_reset: float = 0.7
    mid_dropout: float = 0.5
    head_dropout: float = 0.5

    def build(self) -> CANet:
        """Builds the model with a randomly initialised head."""
        return CANet(self)


class CANet(PairScorer):
    """CANet for any K; see the module's docstring for the source.

    G(I_q | I_k) includes the refinements: each pair is refined on its own, so that its score depends on
    nothing else and is shared between episodes.
    """

    def __init__(self, config: CANetConfig) -> None:
        super().__init__()
        self.config = config
        self.fusion = config.fusion
        self.backbone = config.backbone.build()
        d, width = config.channels, sum(self.backbone.channels[level] for level in config.mid_levels)
        self.mid = MidLevel(width, d, config.mid_levels, config.mid_dropout, kernel=3)
        self.comparison = DenseComparison(d, vectors=1, dropout=config.head_dropout)
        self.attention: ShotWeights | None = None
        if isinstance(config.fusion, ShotAttention):
            self.attention = ShotWeights(d)
            self.fusions = (*PairScorer.fusions, ShotAttention())
        self.trunk = IterativeTrunk(d, dropout=config.head_dropout)
        self.history = PredictionHistory(config.history_reset)

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """The support vector of each shot (masked average pooling)."""
        mid = self.mid.of(features)
        cells = foreground_cells(masks, (mid.shape[-2], mid.shape[-1]), mid.dtype)
        keys, valid = NoPrior().keys(features, masks, self.backbone.rerun)
        return Guides(vectors=masked_average(mid, cells).unsqueeze(1), keys=keys, valid=valid)

    def encode_query(self, features: Features) -> QueryMaps:
        """The query's mid-level feature."""
        return QueryMaps(mid=self.mid.of(features), prior=NoPrior().query_map(features))

    def compare(self, query: QueryMaps, guides: Guides) -> Tensor:
        """Dense comparison of n (query, guide) pairs, the shots of a guide weighed by the attention.

        Args:
            query: n queries, or one that stands with every guide.
            guides: n guides of J vectors, one a shot; J is 1 without attention.

        Returns:
            (n, d, h, w).
        """
        shots = guides.vectors.shape[1]
        maps = query.mid if len(query.mid) == 1 else query.mid.repeat_interleave(shots, dim=0)
        vectors = guides.vectors.flatten(0, 1).unsqueeze(1)
        compared: Tensor = self.comparison(maps, vectors)
        if self.attention is None:
            return compared
        return weighted_shots(compared, self.attention(maps, vectors, shots))

    def score(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> Tensor:
        """Logits (n, 2, h, w) of n (query, guide) pairs after the refinements."""
        del prior
        return self.config.refinement.run(self.trunk, self.compare(query, guides))

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """Cross-entropy of the query, decoded once from its pair's history.

        K shots are joined as inference joins them: by the attention where there is one, else by the mean.
        """
        support = episodes.support
        guides = self.encode_shots(support.features, support.masks.flatten(0, 1))
        fusion = MeanVector() if self.attention is None else ShotAttention()
        compared = self.compare(
            self.encode_query(episodes.query), self.join_shots(guides, support.shots, fusion)
        )
        logits = self.trunk(compared, self.history.recall(episodes.pair_ids, compared))
        self.history.remember(episodes.pair_ids, logits)
        return LossTerms(terms={"query": cross_entropy_full_size(logits, episodes.query_masks)})
