"""The readers on real photographs, where they are at hand."""

from __future__ import annotations

import csv

import pytest

from fewseg.data.episodes import EpisodeSampler
from fewseg.data.folder import ListFileSource
from fewseg.data.folds import VOC_CLASSES, pascal_5i
from fewseg.data.index import build_index
from fewseg.data.protocols import VOC5I_MINI


@pytest.fixture
def source(shared):
    root = shared / "data" / "voc5i-mini"
    if not root.is_dir():
        pytest.skip(f"no voc5i-mini at {root}")
    return ListFileSource(root, root / "lists" / "fold0_val.txt", VOC_CLASSES)


def test_the_index_of_real_masks_has_the_pixel_counts_of_the_reference_table(source, shared):
    index = build_index(source, progress=False)
    assert len(index) == 97
    table: dict[str, dict[int, int]] = {}
    sizes = {}
    with (shared / "reference" / "voc_class_areas.csv").open() as file:
        for row in csv.DictReader(file):
            table.setdefault(row["id"], {})[int(row["class"])] = int(row["pixels"])
            sizes[row["id"]] = (int(row["height"]), int(row["width"]))
    for id, facts in index.images.items():
        assert facts.areas == table[id]
        assert (facts.height, facts.width) == sizes[id]


def test_real_episodes_cover_every_novel_class(source):
    index = build_index(source, progress=False)
    specs = list(EpisodeSampler(index, pascal_5i(0), VOC5I_MINI, shots=5).episodes(0))
    assert len(specs) == 1000
    assert {s.class_id for s in specs} == {1, 2, 3, 4, 5}
