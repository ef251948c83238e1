"""The demo's fold: a training set of base classes and a test set of all."""

from __future__ import annotations

from pathlib import Path

from fewseg.data.fold_data import FoldData, JoinedSource
from fewseg.data.index import build_index
from fewseg.data.synthetic import SyntheticSource, synthetic_5i
from fewseg.demo.config import DemoConfig
from fewseg.ops.progress import progress_bar


def training_source(config: DemoConfig) -> SyntheticSource:
    """Pictures without any object of an unseen class, not even in the background."""
    base = synthetic_5i(config.fold).base
    return SyntheticSource(config.train_images, config.size, seed=config.seed, classes=base, split="train")


def test_source(config: DemoConfig) -> SyntheticSource:
    """Pictures of all twenty classes: an unseen class is to be told from seen ones and from clutter."""
    return SyntheticSource(config.test_images, config.size, seed=config.seed, split="val")


def read_fold(config: DemoConfig, cache: Path) -> FoldData:
    """Renders both sets and builds their index.

    Args:
        config: fold, sizes, seed.
        cache: folder for the index.
    """
    train, test = training_source(config), test_source(config)
    with progress_bar(config.progress) as bar:
        task = bar.add_task("rendering pictures", total=len(train) + len(test))
        for part in (train, test):
            for id in part.ids:
                part.read_image(id)
                bar.advance(task)
    source = JoinedSource("synthetic", [train, test])
    index = build_index(source, cache_dir=cache, progress=config.progress)
    return FoldData(
        dataset="synthetic-5i",
        source=source,
        split=synthetic_5i(config.fold),
        train=index.only(train.ids),
        test=index.only(test.ids),
    )
