import numpy as np
import pytest

from fewseg.data.folder import ListFileSource
from fewseg.data.index import build_index
from fewseg.data.source import JoinedSource, RelabelledSource
from fewseg.types import DataError

NEW = {1: "zebra", 2: "dog", 3: "cow", 254: "cat"}


@pytest.fixture
def source(tmp_path, write_list):
    return ListFileSource(tmp_path, write_list({"a": np.array([[0, 1, 2], [255, 2, 2]])}), ["cat", "dog"])


def test_labels_speak_the_other_ids_and_all_else_is_the_same(source):
    found = RelabelledSource(source, {1: 254, 2: 2}, NEW)
    assert found.read_labels("a").tolist() == [[0, 254, 2], [255, 2, 2]]
    assert source.read_labels("a").tolist() == [[0, 1, 2], [255, 2, 2]]
    swapped = RelabelledSource(source, {1: 2, 2: 1}, NEW)
    assert swapped.read_labels("a").tolist() == [[0, 2, 1], [255, 1, 1]]
    assert (found.ids, found.name, found.class_names) == (source.ids, source.name, NEW)
    assert (found.read_image("a") == source.read_image("a")).all()
    assert build_index(found, progress=False).images["a"].areas == {254: 1, 2: 3}


def test_another_mapping_is_another_set(source):
    one, two = RelabelledSource(source, {1: 254, 2: 2}, NEW), RelabelledSource(source, {1: 3, 2: 2}, NEW)
    assert len({one.digest(), two.digest(), source.digest()}) == 3


@pytest.mark.parametrize("mapping", [{1: 1}, {1: 1, 2: 1}, {1: 1, 2: 9}, {1: 1, 2: 2, 3: 3}])
def test_an_invalid_mapping_is_refused(source, mapping):
    with pytest.raises(DataError, match="needs an id of its own"):
        RelabelledSource(source, mapping, NEW)


def test_sets_of_one_list_of_classes_can_be_joined(source, tmp_path, write_list):
    other = ListFileSource(tmp_path, write_list({"b": np.array([[3]])}, "other.txt"), NEW)
    joined = JoinedSource("both", [RelabelledSource(source, {1: 254, 2: 2}, NEW), other])
    assert joined.ids == ("a", "b")
    assert joined.read_labels("b").tolist() == [[3]]
