"""PANet: the nearest prototype by cosine, trained end to end with prototype alignment.

Source: PANet (Wang et al., ICCV 2019), Sec. 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.fusion import MeanVector, PrototypeFusion
from fewseg.methods.panet.alignment import Alignment, NoAlignment, PrototypeAlignment, alignment_loss
from fewseg.methods.prototypical import EMBEDDING, PrototypeSegmenter, check_levels
from fewseg.prototypes import Cosine, Metric, Prototypes
from fewseg.types import EncodedEpisodes, Features, LossTerms


def _trained_backbone() -> BackboneConfig:
    return BackboneConfig(name="vgg16", levels=("layer4",), trainable=True, last_relu=False)


@dataclass(frozen=True, kw_only=True)
class PANetConfig:
    """PANet's parts.

    Attributes:
        backbone: trained end to end; VGG-16 without its last ReLU (released code), or a ResNet.
        level: the level that is compared.
        metric: cosine.
        alpha: amplification of the cosine (Eq. 3).
        alignment: the alignment loss, or none (the paper's ablation).
        align_corners: how maps are resized; False is the released code's.
        fusion: the mean of the shots' prototypes.
    """

    backbone: BackboneConfig = field(default_factory=_trained_backbone)
    level: str = "layer4"
    metric: Metric = field(default_factory=Cosine)
    alpha: float = 20.0
    alignment: Alignment = field(default_factory=PrototypeAlignment)
    align_corners: bool = True
    fusion: PrototypeFusion = field(default_factory=MeanVector)

    def __post_init__(self) -> None:
        check_levels((self.level,), self.backbone.levels, self.alpha)

    def build(self) -> PANet:
        """Builds the model; it has no parameters but the backbone's."""
        return PANet(self)


class PANet(PrototypeSegmenter):
    """PANet for any N and K; see the module's docstring for the source."""

    def __init__(self, config: PANetConfig) -> None:
        super().__init__()
        self.config = config
        self.fusion, self.metric, self.alpha = config.fusion, config.metric, config.alpha
        self.align_corners = config.align_corners
        self.backbone = config.backbone.build()

    def embed_maps(self, features: Features) -> Tensor:
        """The backbone's map as it is."""
        return features[self.config.level]

    def added_losses(self, episodes: EncodedEpisodes, pooled: Prototypes, logits: Tensor) -> LossTerms:
        """The alignment loss (Eq. 6-7)."""
        del pooled
        alignment, support = self.config.alignment, episodes.support
        if isinstance(alignment, NoAlignment):
            return LossTerms(terms={})

        def score(maps: Tensor, prototypes: Tensor) -> Tensor:
            return self.scores(self.metric.prepare(maps), prototypes)

        loss = alignment_loss(
            episodes.query[EMBEDDING].unsqueeze(1),
            logits.unsqueeze(1),
            support.features[EMBEDDING].unflatten(0, (-1, support.shots)),
            support.masks,
            support.way_of,
            score,
            align_corners=self.align_corners,
        ).mean()
        return LossTerms(terms={"alignment": loss}, weights={"alignment": alignment.weight})
