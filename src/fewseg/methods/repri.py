"""RePRI: a linear classifier fitted to each episode, with the unlabelled query taking part in the fit.

Source: RePRI (Boudiaf et al., CVPR 2021; arXiv 2012.06166), Sec. 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.backbones import BackboneConfig
from fewseg.methods.base import ABSENT, FewShotSegmenter, MethodConfig, sets_of_queries, warn_of_absent
from fewseg.methods.fusion import JointFit, one_vs_rest
from fewseg.methods.registry import register_method
from fewseg.ops.masks import masked_averages
from fewseg.ops.resize import pixels_to_cells, resize
from fewseg.ops.similarity import products, unit_cells
from fewseg.types import IGNORE, EncodedShots, Features, State, check_above, check_at_least

_LEAST = 1e-7  # a probability is taken as at least this in a logarithm


@dataclass(frozen=True, kw_only=True)
class RePRIConfig(MethodConfig):
    """What is classified and how it is fitted.

    Attributes:
        backbone: the frozen trunk; the paper's is trained on the base classes.
        level: the level that is classified.
        temperature: tau of Eq. 1.
        rate: of gradient descent.
        steps: of gradient descent.
        update_at: t_pi, the step at which the proportion pi is estimated again.
        query_weight: of the entropy and of the divergence; 1 / K where None.
        fusion: how K shots become one answer; there is one way.

    Raises:
        ValueError: a level is not the backbone's, or a number is out of range.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(levels=("layer4",)))
    level: str = "layer4"
    temperature: float = 20.0
    rate: float = 0.025
    steps: int = 50
    update_at: int = 10
    query_weight: float | None = None
    fusion: JointFit = field(default_factory=JointFit)

    def __post_init__(self) -> None:
        self.backbone.check_gives((self.level,))
        check_above(self, 0, "temperature", "rate")
        check_at_least(self, 0, "steps", "update_at")
        if self.query_weight is not None:
            check_at_least(self, 0, "query_weight")


def classifier_logits(cells: Tensor, vectors: Tensor, biases: Tensor, temperature: float) -> Tensor:
    """The foreground's log-odds (n, P) of unit cells (n, P, C): tau (cos(z, w) - b).

    Source: RePRI (Boudiaf et al. 2021), Eq. 1; vectors (n, C) are w, biases (n,) are b.
    """
    cosine = products(cells, F.normalize(vectors, dim=1).unsqueeze(1)).squeeze(2)
    return temperature * (cosine - biases.unsqueeze(1))


def support_cross_entropy(logits: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """Mean cross-entropy (n,) of the supports' cells (n, P), which count as many pixels of each class.

    Source: RePRI (Boudiaf et al. 2021), Eq. 3; the cells are weighted by their pixels instead of having a
    downsampled label, so that no object vanishes.
    """
    terms = foreground * F.softplus(-logits) + background * F.softplus(logits)
    return terms.sum(dim=1) / (foreground + background).sum(dim=1).clamp(min=1)


def query_entropy(logits: Tensor) -> Tensor:
    """Mean Shannon entropy (n,) of the query's cells (n, P).

    Source: RePRI (Boudiaf et al. 2021), Eq. 4.
    """
    p = logits.sigmoid()
    return (p * F.softplus(-logits) + (1 - p) * F.softplus(logits)).mean(dim=1)


def proportion_divergence(proportion: Tensor, expected: Tensor) -> Tensor:
    """KL(p || pi) (n,) of the predicted share of foreground (n,) to the expected one (n,).

    Source: RePRI (Boudiaf et al. 2021), Eq. 5.
    """
    p = torch.stack([proportion, 1 - proportion]).clamp(min=_LEAST)
    pi = torch.stack([expected, 1 - expected]).clamp(min=_LEAST)
    return (p * (p / pi).log()).sum(dim=0)


@dataclass(frozen=True, kw_only=True)
class WayCells:
    """The cells of the K shots of one way, of B support sets.

    Attributes:
        centres: (B, C), the mean of the shots' cells.
        cells: (B, K * h * w, C) less the centre, of unit length.
        foreground, background: (B, K * h * w), each cell's pixels of the two.
        vectors: (B, C), w at the start.
        present: (B,), whether any shot shows the way.
        shots: K.
    """

    centres: Tensor
    cells: Tensor
    foreground: Tensor
    background: Tensor
    vectors: Tensor
    present: Tensor
    shots: int


@dataclass(frozen=True, kw_only=True)
class RePRIState(State):
    """The cells of each of N ways; the fit itself needs the query."""

    ways: tuple[WayCells, ...]


@register_method("repri", RePRIConfig)
class RePRI(FewShotSegmenter):
    """Fits a linear classifier to support and query: cross-entropy, entropy and a prior on the proportion.

    All queries are fitted at once, each on its own. Several ways are fitted one against the rest.

    Deviations: the backbone is what the config names, frozen on ImageNet by default, where the paper trains
    a PSPNet on the base classes. Its features come out of a ReLU, so that all cosines are close to each
    other: the mean of the supports' cells is taken off every cell. w starts with unit length, so that the
    rate does not depend on the features' scale, and b from the mean cosine of the query's cells with w.
    """

    config: RePRIConfig
    fusions = (JointFit(),)

    def cells(self, features: Features, centres: Tensor) -> Tensor:
        """The level's cells (n, h * w, C) less a centre each (n, C), of unit length, float32."""
        maps = features[self.config.level].float() - centres[..., None, None]
        return unit_cells(maps).flatten(2).transpose(1, 2)

    def encode_support(self, support: EncodedShots) -> RePRIState:
        """Keeps the supports' cells and pools the start of each way's classifier (Eq. 7)."""
        self.check_support(support)
        with torch.autocast(support.masks.device.type, enabled=False):
            ways = tuple(self._way(support.one_way(j)) for j in range(1, support.ways + 1))
        warn_of_absent(torch.stack([torch.ones_like(ways[0].present), *(way.present for way in ways)], dim=1))
        return RePRIState(ways=ways)

    def _way(self, support: EncodedShots) -> WayCells:
        maps, masks = support.features[self.config.level].float(), support.masks.flatten(0, 1)
        regions = torch.stack([masks == 1, (masks != 1) & (masks != IGNORE)], dim=1)
        weights = pixels_to_cells(regions.flatten(0, 1), (int(maps.shape[-2]), int(maps.shape[-1])))
        weights = weights.unflatten(0, (-1, 2)).squeeze(2)
        centres = maps.unflatten(0, (-1, support.shots)).mean(dim=(1, 3, 4))
        of_shots = centres.repeat_interleave(support.shots, dim=0)
        pooled = masked_averages(maps - of_shots[..., None, None], weights[:, :1])[:, 0].unflatten(
            0, (-1, support.shots)
        )
        shown = regions[:, 0].flatten(1).any(dim=1).view(-1, support.shots, 1)
        per_set = weights.flatten(2).unflatten(0, (-1, support.shots)).transpose(1, 2).flatten(2)
        return WayCells(
            centres=centres,
            cells=self.cells(support.features, of_shots).unflatten(0, (-1, support.shots)).flatten(1, 2),
            foreground=per_set[:, 0],
            background=per_set[:, 1],
            vectors=(pooled * shown).sum(dim=1) / shown.sum(dim=1).clamp(min=1),
            present=shown.any(dim=1).squeeze(1),
            shots=support.shots,
        )

    def segment(self, query: Features, state: RePRIState) -> Tensor:
        """Fits a classifier to every query and its support set, and applies it to the query."""
        h, w = query[self.config.level].shape[-2:]
        with torch.inference_mode(False), torch.autocast(state.ways[0].cells.device.type, enabled=False):
            margins = torch.stack([self._fitted(query, way) for way in state.ways], dim=1)
        scores = torch.stack([torch.zeros_like(margins), margins], dim=2).unflatten(3, (h, w))
        return resize(scores[:, 0] if len(state.ways) == 1 else one_vs_rest(scores), query.image_size)

    def _fitted(self, query: Features, way: WayCells) -> Tensor:
        """The foreground's log-odds (n, P) of the cells of n queries after gradient descent on Eq. 2."""
        config, of_set = self.config, sets_of_queries(way.present, len(query))
        cells = self.cells(query, way.centres[of_set]).clone()
        support, foreground, background, vectors = (
            values[of_set].clone() for values in (way.cells, way.foreground, way.background, way.vectors)
        )
        vectors = F.normalize(vectors, dim=1)
        weight = 1 / way.shots if config.query_weight is None else config.query_weight
        biases = products(cells, F.normalize(vectors, dim=1).unsqueeze(1)).mean(dim=(1, 2))
        expected = self._proportion(cells, vectors, biases)
        for step in range(config.steps):
            if step == config.update_at:
                expected = self._proportion(cells, vectors, biases)
            with torch.enable_grad():
                w, b = vectors.detach().requires_grad_(), biases.detach().requires_grad_()
                of_query = classifier_logits(cells, w, b, config.temperature)
                of_support = classifier_logits(support, w, b, config.temperature)
                loss = support_cross_entropy(of_support, foreground, background)
                divergence = proportion_divergence(of_query.sigmoid().mean(dim=1), expected)
                loss = loss + weight * (query_entropy(of_query) + divergence)
                along_w, along_b = torch.autograd.grad(loss.sum(), (w, b))
            vectors, biases = vectors - config.rate * along_w, biases - config.rate * along_b
        logits = classifier_logits(cells, vectors, biases, config.temperature)
        return logits.masked_fill(~way.present[of_set].unsqueeze(1), ABSENT)

    def _proportion(self, cells: Tensor, vectors: Tensor, biases: Tensor) -> Tensor:
        """The share (n,) of foreground that the classifier now predicts in the query, pi."""
        return (
            classifier_logits(cells, vectors, biases, self.config.temperature).sigmoid().mean(dim=1).detach()
        )
