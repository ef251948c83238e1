"""A checkpoint (or a recipe without training) on the test images of its fold, as figures use it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fewseg.data.draws import Draws
from fewseg.data.episodes import EpisodeSampler, EpisodeSpec
from fewseg.data.folds import FoldData
from fewseg.data.transforms import EvalView, binary_mask
from fewseg.engine.checkpoint import check_split
from fewseg.engine.evaluate import Evaluator
from fewseg.engine.executors import Question, questions_of
from fewseg.engine.features import FeatureStore
from fewseg.methods.base import FewShotSegmenter, warn_of_square
from fewseg.methods.fusion import Fusion
from fewseg.methods.matcher import MatcherConfig
from fewseg.ops.geometry import Letterbox, restore
from fewseg.ops.progress import tracked
from fewseg.ops.resize import resize
from fewseg.recipes.recipe import Recipe
from fewseg.recipes.registry import variants
from fewseg.recipes.resolve import Resolved, best_device, resolve
from fewseg.recipes.run import precision_of, training_store
from fewseg.recipes.variants import MATCHER, SDAANET, SDAANET_BASELINE, SDAANET_SAAM, SDAANET_SDPM
from fewseg.reports.marked_pictures import Picture, picture_of, spotlight
from fewseg.reports.options import FiguresOptions
from fewseg.types import Features

T = TypeVar("T")
SeededEpisode = tuple[int, EpisodeSpec]
"""The seed of a test run, and one of its episodes."""

TABLE_III = tuple(v.name for v in (SDAANET_BASELINE, SDAANET_SAAM, SDAANET_SDPM, SDAANET))
"""The variants of SD-AANet's ablation, in its order."""


def label_of(variant: str) -> str:
    """The name of a variant in figures."""
    return variants()[variant].label if variant in variants() else variant


class Support(NamedTuple):
    """A class and an image that shows it."""

    class_id: int
    image: str

    @classmethod
    def first_of(cls, spec: EpisodeSpec) -> Support:
        """The first support of a 1-way episode."""
        return cls(spec.class_id, spec.supports[0])


@dataclass(eq=False, kw_only=True)
class FigureModel:
    """A method on the test images of its fold; network, data and features are loaded on first use."""

    resolved: Resolved  # a checkpoint or a recipe without training
    recipe: Recipe  # with the checkpoint's config
    fold: int  # the fold that it is tested on
    options: FiguresOptions  # options of the run
    read_data: Callable[[], FoldData]  # reads the fold

    @classmethod
    def find(
        cls, name: str, options: FiguresOptions, read_data: Callable[[Recipe, int], FoldData]
    ) -> FigureModel:
        """Reads the header of a checkpoint, or finds a recipe without training."""
        resolved = resolve(name)
        recipe, split = resolved.known_recipe, resolved.about.class_split
        if split is None and options.fold is None:
            raise ValueError(f"{name} does not state which fold it belongs to: give --fold")
        fold = int(split["fold"] if split else options.fold or 0)
        return cls(
            resolved=resolved,
            recipe=recipe,
            fold=fold,
            options=options,
            read_data=lambda: read_data(recipe, fold),
        )

    @property
    def name(self) -> str:
        """The name that the user gave."""
        return self.resolved.name

    @property
    def variant(self) -> str:
        """Name of its variant, or of its recipe if that declares none."""
        return self.recipe.variant.name or self.recipe.name

    @property
    def label(self) -> str:
        """Its name in figures."""
        return label_of(self.variant)

    @property
    def title(self) -> str:
        """Label and fold."""
        return f"{self.label} fold {self.fold}"

    @property
    def group(self) -> str:
        """Label and fold on two lines, for a group of bars."""
        return f"{self.label}\nfold {self.fold}"

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.resolved.about.training.get("config", {}).get("seed", 0))

    @property
    def columns(self) -> dict[str, str | int]:
        """Columns that identify it in each row of a table."""
        return {"method": self.label, "fold": self.fold, "training_seed": self.seed}

    @property
    def place(self) -> tuple[int, str]:
        """Sort key: the order in which variants are declared."""
        order = list(variants())
        return (order.index(self.variant) if self.variant in order else len(order)), self.variant

    @cached_property
    def data(self) -> FoldData:
        """The images and class split of its fold."""
        return self.read_data()

    @cached_property
    def method(self) -> FewShotSegmenter:
        """The network in eval mode, on its device."""
        if self.resolved.about.digest:
            check_split(self.resolved.about, self.data.split, Path(self.name))
        method = self.resolved.load()
        warn_of_square(method, self.recipe.size)
        return method.to(best_device()).to(memory_format=torch.channels_last)

    @cached_property
    def store(self) -> FeatureStore:
        """Features of the plain view; only missing ones are computed."""
        return training_store(self.recipe, self.method, self.data, precision_of(self.recipe))

    @property
    def progress(self) -> bool:
        """Whether progress bars are shown."""
        return not self.options.quiet

    def evaluator(self) -> Evaluator:
        """A new evaluator."""
        precision = precision_of(self.recipe)
        return Evaluator(
            self.method, self.data.source, self.store, precision=precision, progress=self.progress
        )

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Computes without gradients, in the recipe's precision."""
        device, lower = best_device().type, precision_of(self.recipe) == "bf16"
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=lower):
            yield

    def episodes(self, shots: int = 1) -> list[SeededEpisode]:
        """The episodes of all seeds of the protocol, up to the number per seed in the options."""
        protocol = self.recipe.protocol
        if self.options.episodes is not None:
            protocol = replace(protocol, episodes=self.options.episodes)
        sampler = EpisodeSampler(self.data.test, self.data.split, protocol, shots)
        return [(seed, spec) for seed in protocol.seeds for spec in sampler.episodes(seed)]

    def examples(self, figure: str) -> list[SeededEpisode]:
        """The 1-shot episodes that a figure shows."""
        key = (figure, self.options.seed, self.fold)
        return example_episodes(self.episodes(), self.options.examples, *key)

    @cached_property
    def supports(self) -> dict[Support, int]:
        """The distinct supports of the 1-shot episodes, and how often each was drawn."""
        return distinct_supports([spec for _, spec in self.episodes()])

    def class_name(self, class_id: int) -> str:
        """The data set's name of a class."""
        return self.data.split.class_names[class_id]

    def fusion(self, shots: int) -> Fusion:
        """The recipe's fusion of so many shots; the first if it names several."""
        evaluations = [e for e in self.recipe.evaluations if e.shots == shots and e.ways == 1]
        return evaluations[0].fusion if evaluations else self.method.fusion

    def matcher(self) -> FigureModel:
        """The training-free matcher on the frozen trunk, which shares its stored features."""
        config: Any = self.recipe.method
        if not config.backbone.fixed:
            raise ValueError(f"{self.label} trains its backbone: it has no trunk to match on")
        wanted = getattr(config, "mid_levels", config.backbone.levels[-1:])
        method = MatcherConfig(backbone=config.backbone, levels=tuple(wanted)).build()
        method.backbone = self.method.backbone
        matcher = replace(
            self, recipe=replace(self.recipe, variant=MATCHER, method=method.config, evaluations=())
        )
        matcher.data, matcher.method, matcher.store = self.data, method.eval(), self.store
        return matcher

    def box(self, image: str) -> Letterbox:
        """The letterbox of an image in the network's view."""
        view, entry = self.store.views[0], self.data.test.images[image]
        assert isinstance(view, EvalView)
        return view.box((entry.height, entry.width))

    def content(self, image: str, side: int) -> tuple[int, int]:
        """Rows and columns of a grid of ``side`` cells that lie on the image rather than the padding."""
        h, w = self.box(image).content
        step = (self.store.size - 1) / (side - 1)
        return int((h - 1) / step) + 1, int((w - 1) / step) + 1

    def over_supports(
        self,
        supports: Sequence[Support],
        look: Callable[[Features, Tensor], T],
        what: str,
        *,
        batch: int = 8,
    ) -> list[T]:
        """Calls ``look`` with features and binary masks (n, H, W) of a few supports at a time."""
        images = self.evaluator().images
        self.store.ensure(list(dict.fromkeys(s.image for s in supports)), [0], progress=self.progress)
        chunks = [supports[start : start + batch] for start in range(0, len(supports), batch)]
        batches = []
        with self.inference():
            for chunk in tracked(self.progress, what, chunks):
                masks = torch.cat([images.masks([s.image], [s.class_id]) for s in chunk])
                batches.append(look(images.features([s.image for s in chunk]), masks))
        return batches

    def predictions(
        self, specs: Sequence[EpisodeSpec], shots: int = 1
    ) -> Iterator[tuple[Question, npt.NDArray[np.bool_]]]:
        """Yields the predictions of the distinct 1-way episodes, each once."""
        for question, logits in self.evaluator().answers(specs, self.fusion(shots)):
            margins = restore((logits[1:] - logits[:1]).unsqueeze(0), self.box(question.target))
            yield question, (margins[0, 0] > 0).cpu().numpy()

    def picture(self, image: str, class_id: int) -> tuple[Picture, Picture]:
        """An image (H, W, 3) and its mask (H, W) in {0, 1, 255}, at its own size."""
        mask = binary_mask(self.data.source.read_labels(image), class_id)
        return picture_of(self.data.source.read_image(image)), np.asarray(mask.numpy()).astype(np.uint8)

    def marked(self, image: str, class_id: int) -> Picture:
        """An image with its mask marked, at its own size."""
        return spotlight(*self.picture(image, class_id))

    def network_view(self, image: str) -> Picture:
        """An image at the network's resolution, without the padding."""
        pixels = self.store.view(image, 0)[0]
        h, w = self.box(image).content
        return picture_of((pixels[:, :h, :w] * 255).round().to(torch.uint8))

    def on_pixels(self, image: str, cells: Tensor) -> npt.NDArray[np.float32]:
        """A map (h, w) of cells, resized to the pixels of ``network_view``."""
        size = self.store.size
        h, w = self.box(image).content
        return np.asarray(resize(cells.float()[None, None], (size, size))[0, 0, :h, :w].cpu().numpy())


def episode_record(seed: int, spec: EpisodeSpec) -> dict[str, str | int]:
    """Columns that identify an episode in a row of a table."""
    about: dict[str, str | int] = {"seed": seed, "episode": spec.index, "class": spec.class_id}
    return about | {"support": spec.supports[0], "query": spec.query}


def question_of(spec: EpisodeSpec) -> Question:
    """The question of an episode: its query, class and supports."""
    return questions_of(spec, "query")[0]


def distinct_supports(specs: Sequence[EpisodeSpec]) -> dict[Support, int]:
    """The distinct supports of episodes, in order of class and image, and how often each was drawn."""
    drawn = Counter(Support(spec.class_id, image) for spec in specs for image in spec.supports)
    return dict(sorted(drawn.items()))


def example_episodes(episodes: Sequence[SeededEpisode], count: int, *key: str | int) -> list[SeededEpisode]:
    """Draws some episodes at random; a class is repeated only after all others."""
    queues: dict[int, list[SeededEpisode]] = {}
    for episode in Draws("figure", *key).sample(episodes, len(episodes)):
        queues.setdefault(episode[1].class_id, []).append(episode)
    chosen: list[SeededEpisode] = []
    while len(chosen) < min(count, len(episodes)):
        for class_id in sorted(queues):
            if queues[class_id]:
                chosen.append(queues[class_id].pop(0))
    return chosen[:count]


def in_table_iii(model: FigureModel) -> bool:
    """Whether it is a row of SD-AANet's Table III."""
    return model.variant in TABLE_III
