from __future__ import annotations

import numpy as np
import pytest

from fewseg.data.check import check_source, fold_line
from fewseg.data.folder import ListFileSource
from fewseg.data.folds import even_split
from fewseg.types import DataError

NAMES = ["cat", "dog"]


def test_the_check_counts_images_per_class_and_shots_per_fold(tmp_path, write_list):
    images = {"a": np.array([[1, 1, 2]]), "b": np.array([[1, 1, 0]]), "c": np.array([[1, 1, 1]])}
    source = ListFileSource(tmp_path, write_list({**images, "d": np.array([[0, 255, 0]])}), NAMES)
    splits = [even_split(NAMES, 2, fold, "s") for fold in range(2)]
    lines = check_source(source, min_area=2, splits=splits, progress=False)
    assert lines[0].startswith("list: 4 images, 2 classes, content ")
    assert lines[0].endswith("; 1 images without any class")
    assert lines[1].split() == ["1", "cat", "3", "images", "from", "2", "px", "(3", "with", "any)"]
    assert lines[2].split() == ["2", "dog", "0", "images", "from", "2", "px", "(1", "with", "any)"]
    assert lines[3:] == ("s fold 0: cat 3; up to 2 shots", "s fold 1: dog 0; TOO FEW IMAGES for 1 shot")


def test_the_check_raises_what_the_index_raises(tmp_path, write_list):
    source = ListFileSource(tmp_path, write_list({"a": np.array([[9]])}), NAMES)
    with pytest.raises(DataError, match="1 of 1 images cannot be used"):
        check_source(source, progress=False)


def test_the_shots_of_a_fold_are_those_of_its_rarest_class(make_index):
    index = make_index({f"i{k}": {1: 9, **({2: 9} if k < 2 else {})} for k in range(8)})
    split = even_split(["a", "b", "c", "d"], 2, 0, "s")
    assert fold_line(index, split, 9) == "s fold 0: a 8, b 2; up to 1 shots"
