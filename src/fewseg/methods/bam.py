"""BAM: a network that knows the base classes says what of a query is not the object.

Source: BAM (Lang et al., CVPR 2022; arXiv 2203.07615), Sec. 4. Its full text was not at hand: the parts are
those that are publicly described, and equations bear no numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fewseg.methods.fusion import AllFusion, AllVectors, CrossGuided, ScoreAverage
from fewseg.methods.losses import cross_entropy_full_size, deep_supervision
from fewseg.methods.pfenet import PyramidConfig, PyramidScorer
from fewseg.methods.registry import register_method
from fewseg.ops.masks import masked_average
from fewseg.ops.resize import resize
from fewseg.types import IGNORE, EncodedEpisodes, Features, Guides, LossTerms, QueryMaps, check_at_least

_LEAST = 1e-4  # a probability is taken as at least this in a logarithm


@dataclass(frozen=True, kw_only=True)
class BAMConfig(PyramidConfig):
    """BAM's parts and sizes; see ``PyramidConfig`` for the fields that are not listed.

    Attributes:
        stage: what is trained: "base", the base learner, on the labels of the base classes; then "meta",
            everything else, on episodes.
        base: for the stage "meta", the checkpoint of a training of the stage "base"; training needs it.
        classes: highest class number of the data set.
        base_level: level that the base learner reads.
        scene_level: level whose Gram matrices tell how different two scenes are.
        fusion: how K shots become one answer; the vectors of all, weighed by their scenes, are the default.
        meta_weight: lambda, weight of the meta learner's own loss.

    Raises:
        ValueError: the number of classes is below 1.
    """

    stage: Literal["base", "meta"] = "meta"
    base: str | None = None
    classes: int = 20
    base_level: str = "layer4"
    scene_level: str = "layer2"
    fusion: AllFusion = field(default_factory=AllVectors)
    meta_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "classes")


class BaseLearner(nn.Module):
    """Logits of background and of every class, from one level, by a pyramid of pooled maps.

    Source: PSPNet (Zhao et al., CVPR 2017), the base learner of BAM.
    """

    def __init__(self, in_channels: int, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        d = channels
        self.bins = (1, 2, 3, 6)
        self.reduce = nn.ModuleList(nn.Conv2d(in_channels, d, 1) for _ in self.bins)
        self.join = nn.Conv2d(in_channels + len(self.bins) * d, d, 3, padding=1)
        self.classifier = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(d, 1 + classes, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """Logits (n, 1 + classes, h, w) of maps (n, C, h, w)."""
        size = (int(maps.shape[-2]), int(maps.shape[-1]))
        pooled = [
            resize(F.relu(reduce(F.adaptive_avg_pool2d(maps, cells))), size)
            for cells, reduce in zip(self.bins, self.reduce, strict=True)
        ]
        logits: Tensor = self.classifier(F.relu(self.join(torch.cat([maps, *pooled], dim=1))))
        return logits


def base_foreground(logits: Tensor, without: Tensor | None = None) -> Tensor:
    """The probability (n, 1, h, w) of all base classes together, the object's own (n,) left out.

    Source: BAM (Lang et al. 2022), the base learner's foreground in the ensemble. A class of 0 leaves out
    none.
    """
    chance = logits.float().softmax(dim=1)
    foreground = 1 - chance[:, :1]
    if without is None:
        return foreground
    left_out = chance[torch.arange(len(chance), device=chance.device), without].unsqueeze(1)
    return foreground - left_out * (without > 0)[:, None, None, None]


def gram(maps: Tensor) -> Tensor:
    """The Gram matrix (n, C * C) of the channels of maps (n, C, h, w): A A^T / (C h w).

    Source: BAM (Lang et al. 2022), the style of a scene; the divisor is ours, so that the size of the image
    does not matter.
    """
    cells = maps.flatten(2).float()
    product = cells @ cells.transpose(1, 2) / (cells.shape[1] * cells.shape[2])
    return product.flatten(1)


def scene_difference(support: Tensor, query: Tensor) -> Tensor:
    """Psi (n, K), the Frobenius norm of the difference of Gram matrices (n, K, D) and (n or 1, D).

    Source: BAM (Lang et al. 2022), the adjustment factor.
    """
    difference: Tensor = (support - query.unsqueeze(1)).norm(dim=2)
    return difference


class Ensemble(nn.Module):
    """Joins meta and base learner: two 1x1 convolutions, of one weight an input.

    The meta learner's probabilities are adjusted by psi; its background and the base foreground then make
    the background. In the beginning the meta learner's answer comes out unchanged.

    Source: BAM (Lang et al. 2022), the ensemble module; the initial weights are ours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.adjust = nn.Parameter(torch.tensor([1.0, 0.0]))  # of a probability, of psi
        self.join = nn.Parameter(torch.tensor([1.0, 0.0]))  # of the background, of the base foreground

    def forward(self, meta: Tensor, base: Tensor, psi: Tensor) -> Tensor:
        """Logits (n, 2, h, w) of meta logits (n, 2, h, w), base foreground (n, 1, h, w) and psi (n,)."""
        adjusted = self.adjust[0] * meta.float().softmax(dim=1) + self.adjust[1] * psi[:, None, None, None]
        background = self.join[0] * adjusted[:, :1] + self.join[1] * base
        return torch.cat([background, adjusted[:, 1:]], dim=1).clamp(min=_LEAST).log()


class SceneWeights(nn.Module):
    """Weights (n, K) of K shots by their psi (n, K): two layers a shot, softmax over the shots.

    Source: BAM (Lang et al. 2022), the K-shot setting; the layers are shared by the shots here, so that any
    K goes. They begin by giving a small psi more weight.
    """

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, 1))
        with torch.no_grad():
            self.layers[0].weight.abs_()  # type: ignore[operator]
            self.layers[2].weight.abs_().neg_()  # type: ignore[operator]

    def forward(self, psi: Tensor) -> Tensor:
        """Returns (n, K), each row of sum 1."""
        strength: Tensor = self.layers(psi.unsqueeze(2)).squeeze(2)
        return strength.softmax(dim=1)


def base_tensors(path: Path) -> dict[str, Tensor]:
    """The base learner's tensors in the checkpoint of a training of the stage "base".

    Raises:
        ValueError: the file is no such checkpoint.
    """
    prefix = "model.base."
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            tensors = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a safetensors file ({error}): give a checkpoint of the stage 'base'"
        ) from error
    if not tensors:
        raise ValueError(f"{path} holds no base learner: give a checkpoint of BAM trained with stage 'base'")
    return tensors


@register_method("bam", BAMConfig)
class BAM(PyramidScorer):
    """A base learner and a meta learner, joined by how different the scenes of support and query are.

    Train the stage "base" first, then give its checkpoint as ``base`` to the stage "meta".

    Deviations: both learners read one frozen ImageNet network, on which the stage "base" trains a head, where
    the paper trains a whole PSPNet on the base classes; the meta learner is PFENet; the ensemble's output is
    taken as probabilities, whose logarithms are the logits; Gram matrices are divided by their number of
    terms; weights of shots for any K; initial weights of the ensemble.
    """

    config: BAMConfig
    fusions = (AllVectors(), ScoreAverage(), CrossGuided())

    def __init__(self, config: BAMConfig) -> None:
        super().__init__(config)
        config.backbone.check_gives((config.scene_level,))
        d = config.channels
        self.ensemble, self.scenes = Ensemble(), SceneWeights()
        self.base = BaseLearner(
            self.backbone.width((config.base_level,)), d, config.classes, config.head_dropout
        )
        self.register_buffer("has_base", torch.tensor(False))
        for name, part in self.named_children():
            if name != "backbone":
                part.requires_grad_((name == "base") == (config.stage == "base"))
        if config.base and Path(config.base).is_file():  # else it comes with the weights of a checkpoint
            self._take_base(Path(config.base))

    has_base: Tensor

    def _take_base(self, path: Path) -> None:
        try:
            self.base.load_state_dict(base_tensors(path))
        except RuntimeError as error:
            raise ValueError(
                f"the base learner in {path} has other sizes: give the channels, classes and base_level "
                "of its training"
            ) from error
        self.has_base.fill_(True)

    def train(self, mode: bool = True) -> Self:
        """Sets training mode; a base learner that is not trained stays in eval mode."""
        super().train(mode)
        self.base.train(mode and self.config.stage == "base")
        return self

    def encode_shots(self, features: Features, masks: Tensor) -> Guides:
        """The support vector of each shot, the Gram matrix of its scene, and its prior keys."""
        mid = self.mid_support.of(features)
        vectors = masked_average(mid, self.cells(masks, mid)).unsqueeze(1)
        keys, valid = self.prior_keys(features, masks)
        scene = gram(features[self.config.scene_level]).unsqueeze(1)
        return Guides(maps={"vectors": vectors, "scene": scene}, keys=keys, valid=valid)

    def encode_query(self, features: Features, without: Tensor | None = None) -> QueryMaps:
        """PFENet's maps, the Gram matrix of the scene and the foreground of the base classes."""
        maps = super().encode_query(features)
        base = base_foreground(self.base(features[self.config.base_level]), without)
        return replace(
            maps, maps={"scene": gram(features[self.config.scene_level]), "base": resize(base, maps.size)}
        )

    def weighed(self, query: QueryMaps, guides: Guides) -> tuple[Guides, Tensor]:
        """The guides with the vectors of their shots joined by the scenes, and the joined psi (n,)."""
        psi = scene_difference(guides["scene"], query.maps["scene"])
        weights = self.scenes(psi)
        vector = torch.einsum("nk,nkd->nd", weights.to(guides["vectors"].dtype), guides["vectors"]).unsqueeze(
            1
        )
        return replace(guides, maps={"vectors": vector}), (weights * psi).sum(dim=1)

    def score(self, query: QueryMaps, guides: Guides, prior: Tensor | None = None) -> Tensor:
        """Logits (n, 2, h, w) of n (query, guide) pairs after the ensemble."""
        joined, psi = self.weighed(query, guides)
        logits: Tensor = self.ensemble(super().score(query, joined, prior), query.maps["base"], psi)
        return logits

    def training_losses(self, episodes: EncodedEpisodes) -> LossTerms:
        """Of the stage "base" the cross-entropy of all classes; else those of ensemble and meta learner.

        Raises:
            ValueError: the labels of the classes are missing or out of range, or there is no base learner.
        """
        config, labels = self.config, episodes.labels
        if labels is None:
            raise ValueError("BAM learns the base classes from the labels of the queries: give ``labels``")
        highest = int((labels * (labels != IGNORE)).max())
        if highest > config.classes:
            raise ValueError(
                f"the labels hold class {highest} and classes is {config.classes}: raise method.classes"
            )
        if config.stage == "base":
            logits = self.base(episodes.query[config.base_level])
            return LossTerms(terms={"base": cross_entropy_full_size(logits, labels)})
        if not bool(self.has_base):
            where = f" (there is no file {config.base!r})" if config.base else ""
            raise ValueError(
                f"BAM needs a base learner{where}: train one on the same fold, such as with `fewseg train "
                "voc5i_mini_bam_base`, and give its checkpoint by --method.base"
            )
        support, episode_class = episodes.support, labels * ((episodes.query_masks == 1) & (labels != IGNORE))
        guides = self.encode_shots(support.features, support.masks.flatten(0, 1))
        query = self.encode_query(episodes.query, episode_class.flatten(1).amax(dim=1).long())
        joined, psi = self.weighed(query, AllVectors().join(guides, support.shots))
        meta = self.trunk(self.query(query, joined), query.size, deep=True)
        logits = self.ensemble(meta.logits, query.maps["base"], psi)
        terms = {
            "query": cross_entropy_full_size(logits, episodes.query_masks),
            "query_meta": cross_entropy_full_size(meta.logits, episodes.query_masks),
            "query_deep": deep_supervision(meta.inner, episodes.query_masks),
        }
        weights = {"query_meta": config.meta_weight, "query_deep": config.deep_weight}
        return LossTerms(terms=terms, weights=weights)
