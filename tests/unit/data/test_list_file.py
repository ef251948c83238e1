import os

import numpy as np
import pytest

from fewseg.data.folder import ListFileSource
from fewseg.data.source import Source
from fewseg.types import DataError

LABELS = np.array([[0, 1], [2, 255]])


def test_a_list_becomes_ids_images_and_labels(tmp_path, write_list):
    source = ListFileSource(tmp_path, write_list({"b": LABELS, "a": LABELS[:1]}), ["cat", "dog"])
    assert isinstance(source, Source)
    assert (source.name, source.ids, len(source)) == ("list", ("b", "a"), 2)
    assert source.class_names == {1: "cat", 2: "dog"}
    assert source.read_labels("b").tolist() == LABELS.tolist()
    assert source.read_image("a").shape == (3, 1, 2)
    assert source.image_size("a") == (1, 2)


def test_comments_empty_lines_tabs_and_leading_slashes_are_understood(tmp_path, write_list):
    write_list({"a b": LABELS, "c": LABELS})
    path = tmp_path / "other.txt"
    path.write_text("# a comment\n\n/img/a b.png\t/lab/a b.png\n  img/c.png   lab/c.png  \n")
    source = ListFileSource(tmp_path, path, ["x", "y"], name="mine")
    assert (source.ids, source.name) == (("a b", "c"), "mine")


def test_images_that_share_a_file_name_get_their_path_as_id(tmp_path, write_image, write_mask):
    for part in ("one", "two"):
        write_image(tmp_path / part / "0.png", (2, 2))
        write_mask(tmp_path / part / "0_mask.png", LABELS)
    (tmp_path / "l.txt").write_text("one/0.png one/0_mask.png\ntwo/0.png two/0_mask.png\n")
    assert ListFileSource(tmp_path, tmp_path / "l.txt", ["x", "y"]).ids == ("one/0", "two/0")


GOOD = "img/a.png lab/a.png\n"
WRONG_LISTS = [
    (
        "img/a.png lab/a.png\nimg/a.png\n" + "one two three\n" * 6,
        r"7 wrong entries(.|\n)*line 2: 'img/a\.png' has 1(.|\n)*and 2 more",
    ),
    ("img/a.png\t\n\tlab/a.png x\n", "wrong entries"),
    (
        "img/a.png lab/a.png\nimg/b.png lab/a.png\n",
        r"1 wrong entries(.|\n)*line 2: .*img/b\.png does not exist",
    ),
    (f"{GOOD}img/a.png lab/b.png\n", r"line 2: .*lab/b\.png does not exist"),
    (GOOD * 2, r"line 2: img/a\.png is listed twice"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_LISTS, ids=[m for _, m in WRONG_LISTS])
def test_wrong_lines_are_reported_by_number_and_all_are_counted(tmp_path, write_list, text, message):
    path = write_list({"a": LABELS})
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        ListFileSource(tmp_path, path, ["x", "y"])


def test_a_missing_or_empty_list_and_root_are_reported(tmp_path, write_list):
    with pytest.raises(DataError, match="is empty: download"):
        ListFileSource(tmp_path, tmp_path / "l.txt", ["x"])
    with pytest.raises(DataError, match="does not exist: give the path"):
        ListFileSource(tmp_path / "nowhere", tmp_path / "l.txt", ["x"])
    write_list({"a": LABELS})
    with pytest.raises(DataError, match=r"list .*none\.txt cannot be read"):
        ListFileSource(tmp_path, tmp_path / "none.txt", ["x"])
    (tmp_path / "l.txt").write_text("\n# nothing\n")
    with pytest.raises(DataError, match=r"l\.txt is empty"):
        ListFileSource(tmp_path, tmp_path / "l.txt", ["x"])


def test_class_ids_beyond_the_class_list_and_an_unknown_image_are_reported(tmp_path, write_list):
    source = ListFileSource(tmp_path, write_list({"a": LABELS}), ["cat"])
    with pytest.raises(DataError, match=r"holds class ids \[2\]"):
        source.read_labels("a")
    with pytest.raises(DataError, match="no image 'z'"):
        source.read_image("z")


def test_the_digest_follows_content_order_classes_and_time_but_not_the_place(tmp_path, write_list):
    path = write_list({"a": LABELS, "b": LABELS})
    first = ListFileSource(tmp_path, path, ["x", "y"]).digest()
    assert ListFileSource(tmp_path, path, ["x", "y"]).digest() == first
    assert ListFileSource(tmp_path, path, ["x", "z"]).digest() != first
    assert ListFileSource(tmp_path, path, ["x", "y"], name="n").digest() != first
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    os.rename(tmp_path, moved)
    assert ListFileSource(moved, moved / "list.txt", ["x", "y"]).digest() == first
    os.rename(moved, tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(reversed(lines)))
    assert ListFileSource(tmp_path, path, ["x", "y"]).digest() != first
    path.write_text("\n".join(lines))
    os.utime(tmp_path / "lab" / "b.png", (1, 1))
    assert ListFileSource(tmp_path, path, ["x", "y"]).digest() != first
