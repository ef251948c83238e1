"""Small data sets that the tests write themselves."""

import os
from pathlib import Path

import numpy as np
import pytest

from fewseg.data.folds import ClassSplit
from fewseg.data.index import ImageFacts, Index

REPO = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FEWSEG_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def write_list(tmp_path, write_image, write_mask):
    """Writes a data set of a list file: id -> labels; returns the list."""

    def write(images, name="list.txt"):
        lines = []
        for id, labels in images.items():
            write_image(tmp_path / "img" / f"{id}.png", np.asarray(labels).shape)
            write_mask(tmp_path / "lab" / f"{id}.png", labels)
            lines.append(f"img/{id}.png lab/{id}.png")
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture
def make_index():
    """Makes an index from id -> {class id: pixels}."""

    def make(images, name="made"):
        classes = sorted({c for areas in images.values() for c in areas})
        facts = {id: ImageFacts(height=100, width=100, areas=dict(areas)) for id, areas in images.items()}
        return Index(name=name, class_names={c: f"class{c}" for c in classes}, images=facts)

    return make


@pytest.fixture
def split():
    """Classes 1-3 base, 4-5 novel."""
    names = {c: f"class{c}" for c in range(1, 6)}
    return ClassSplit(name="made", fold=1, base=(1, 2, 3), novel=(4, 5), class_names=names)


@pytest.fixture
def shared():
    """The folder of shared measuring data, or a skip."""
    folder = Path(os.environ.get("FEWSEG_SHARED", REPO.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}: set FEWSEG_SHARED")
    return folder
