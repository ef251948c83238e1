"""What a figure looks at: a checkpoint (or a recipe without training) on the test images of its fold."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from fewseg.data.episodes import EpisodeSampler, EpisodeSpec
from fewseg.data.folds import FoldData
from fewseg.data.transforms import EvalView
from fewseg.engine.checkpoint import Checkpoint, check_split, load_method
from fewseg.engine.evaluate import Evaluator
from fewseg.engine.features import FeatureStore
from fewseg.engine.precision import Precision
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.fusion import Fusion
from fewseg.methods.matcher import MatcherConfig
from fewseg.ops.geometry import Letterbox
from fewseg.ops.progress import tracked
from fewseg.recipes.recipe import Recipe
from fewseg.recipes.resolve import best_device, build_method, resolve
from fewseg.recipes.run import precision_of, training_store
from fewseg.reports.figures.data_files import Cell
from fewseg.reports.paper_rows import recipe_stem
from fewseg.types import Features

logger = logging.getLogger(__name__)

T = TypeVar("T")

NAMES = {
    "pfenet": "PFENet",
    "scl": "SCL (PFENet)",
    "scl_pfenet": "SCL (PFENet)",
    "canet": "CANet",
    "scl_canet": "SCL (CANet)",
    "sdaanet_baseline": "baseline",
    "sdaanet_saam": "baseline + SAAM",
    "sdaanet_sdpm": "baseline + SDPM",
    "sdaanet": "SD-AANet",
    "panet": "PANet",
    "srpnet_cos": "SRPNet, cosine",
    "srpnet_f": "SRPNet, fidelity",
    "srpnet": "SRPNet",
    "matcher": "matcher",
}
"""Stem of a recipe: what figures call it. Others go by their stem."""


@dataclass(frozen=True)
class Shot:
    """A class and an image that shows it."""

    class_id: int
    image: str


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A checkpoint by its header; nothing is loaded yet.

    Attributes:
        what: its path, or the name of a recipe without training.
        recipe: with the checkpoint's config.
        about: its header.
        fold: the fold that it is tested on.
        root: folder of the data set; the recipe's own by default.
    """

    what: str
    recipe: Recipe
    about: Checkpoint
    fold: int
    root: Path | None = None

    @property
    def stem(self) -> str:
        """The recipe's name without data set and backbone."""
        return recipe_stem(self.recipe.name)

    @property
    def label(self) -> str:
        """What figures call it."""
        return NAMES.get(self.stem, self.stem)

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.about.training.get("config", {}).get("seed", 0))

    @property
    def said(self) -> dict[str, Cell]:
        """What a row of a table says of it."""
        return {"method": self.label, "fold": self.fold, "training_seed": self.seed}


def subject_of(what: str, *, fold: int | None = None, root: Path | None = None) -> Subject:
    """Reads what a checkpoint says, or finds a recipe without training.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: it cannot be used, or nothing says which fold it belongs to.
    """
    found = resolve(what)
    recipe, about = found.known_recipe, found.about
    trained = about.class_split["fold"] if about.class_split else None
    if trained is None and fold is None:
        raise ValueError(f"{what} does not say which fold it belongs to: give --fold")
    own = int(trained if trained is not None else fold or 0)
    return Subject(what=what, recipe=recipe, about=about, fold=own, root=root)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A subject with its network, its data and the features of the plain view.

    Attributes:
        subject: what was opened.
        method: in eval mode, on its device.
        data: the fold.
        store: features; only what is missing is computed.
        precision: of features and head.
    """

    subject: Subject
    method: FewShotSegmenter
    data: FoldData
    store: FeatureStore
    precision: Precision

    def evaluator(self, *, progress: bool = True) -> Evaluator:
        """An evaluator with nothing in memory yet."""
        return Evaluator(
            self.method, self.data.source, self.store, precision=self.precision, progress=progress
        )

    def episodes(self, shots: int, per_seed: int | None = None) -> list[tuple[int, EpisodeSpec]]:
        """(seed, episode) of all seeds of the protocol, the first ``per_seed`` of each where that is given.

        Raises:
            ValueError: a class has too few images.
        """
        protocol = self.subject.recipe.protocol
        if per_seed is not None:
            protocol = replace(protocol, episodes=per_seed)
        sampler = EpisodeSampler(self.data.test, self.data.split, protocol, shots)
        return [(seed, spec) for seed in protocol.seeds for spec in sampler.episodes(seed)]

    def fusion(self, shots: int) -> Fusion:
        """How the recipe joins so many shots where it names several ways: the first."""
        own = [e for e in self.subject.recipe.evaluations if e.shots == shots and e.ways == 1]
        return own[0].fusion if own else self.method.fusion

    def box(self, image: str) -> Letterbox:
        """Where an image lies in the network's view."""
        view, facts = self.store.views[0], self.data.test.images[image]
        assert isinstance(view, EvalView)
        return view.box((facts.height, facts.width))

    def content(self, image: str, side: int) -> tuple[int, int]:
        """How many rows and columns of a grid with ``side`` cells lie on the image and not on the padding."""
        h, w = self.box(image).content
        step = (self.store.size - 1) / (side - 1)
        return int((h - 1) / step) + 1, int((w - 1) / step) + 1

    def over_shots(
        self,
        shots: Sequence[Shot],
        look: Callable[[Features, Tensor], T],
        what: str,
        *,
        progress: bool = True,
        batch: int = 8,
    ) -> list[T]:
        """Looks at different supports, a few at a time; each is read from the store once.

        Args:
            shots: the supports, each once.
            look: from their features and binary masks (n, H, W) to what is kept of them.
            what: is being done, for the progress bar.
            progress: show it.
            batch: supports at a time.

        Returns:
            One item a batch.
        """
        images = self.evaluator(progress=progress).images
        self.store.ensure(list(dict.fromkeys(s.image for s in shots)), [0], progress=progress)
        chunks = [shots[start : start + batch] for start in range(0, len(shots), batch)]
        found = []
        device = images.device.type
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
            for chunk in tracked(progress, what, chunks):
                masks = torch.cat([images.masks([s.image], [s.class_id]) for s in chunk])
                found.append(look(images.features([s.image for s in chunk]), masks))
        return found


def open_subject(subject: Subject, data: FoldData) -> Opened:
    """Loads the network of a subject.

    Raises:
        FileNotFoundError: the checkpoint is gone.
        ValueError: it cannot be used, or was trained on classes of the fold.
    """
    if subject.about.digest:
        method, about = load_method(Path(subject.what))
        check_split(about, data.split, Path(subject.what))
    else:
        method = build_method(subject.recipe).eval()
    method.to(best_device()).to(memory_format=torch.channels_last)
    precision = precision_of(subject.recipe)
    store = training_store(subject.recipe, method, data, precision)
    return Opened(subject=subject, method=method, data=data, store=store, precision=precision)


def matcher_on(opened: Opened) -> Opened:
    """The training-free matcher on the frozen trunk of a subject, which shares its stored features.

    Raises:
        ValueError: the trunk is trained: its features are the method's own.
    """
    config: Any = opened.subject.recipe.method
    if not config.backbone.fixed:
        raise ValueError(f"{opened.subject.label} trains its backbone: it has no trunk to match on")
    wanted = getattr(config, "mid_levels", config.backbone.levels[-1:])
    method = MatcherConfig(backbone=config.backbone, levels=tuple(wanted)).build()
    method.backbone = opened.method.backbone
    method.eval()
    recipe = replace(opened.subject.recipe, name="matcher", method=method.config, evaluations=())
    return replace(opened, method=method, subject=replace(opened.subject, recipe=recipe))


def distinct_shots(episodes: Sequence[tuple[int, EpisodeSpec]]) -> dict[Shot, int]:
    """The different supports of episodes, in order of class and image, and how often each was drawn."""
    drawn: dict[Shot, int] = {}
    for _, spec in episodes:
        for image in spec.supports:
            shot = Shot(spec.class_id, image)
            drawn[shot] = drawn.get(shot, 0) + 1
    return dict(sorted(drawn.items(), key=lambda item: (item[0].class_id, item[0].image)))
