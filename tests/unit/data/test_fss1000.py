"""FSS-1000 on folders that the tests write, with more classes than 8 bits hold."""

import logging
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fewseg.data.check import check_fss1000
from fewseg.data.draws import Draws
from fewseg.data.episodes import EpisodeSampler
from fewseg.data.folds import numbered_in_16_bits
from fewseg.data.fss1000 import FSS1000Source, find_fss1000, fss1000_parts, fss1000_split
from fewseg.data.index import build_index
from fewseg.data.protocols import Protocol
from fewseg.data.transforms import EvalView, TrainView, way_labels
from fewseg.recipes.datasets import fss1000
from fewseg.recipes.registry import recipe
from fewseg.types import DataError

NAMES = [f"class{i:03d}" for i in range(300)]


def write(folder, name, numbers=(1, 2, 10)):
    (folder / name).mkdir(parents=True)
    for n in numbers:
        Image.new("RGB", (8, 6), (n, 9, 9)).save(folder / name / f"{n}.jpg")
        mask = np.zeros((6, 8), dtype=np.uint8)
        mask[1:4, 2:7] = 255
        mask[4, 2:7] = (127, 128, 60, 200, 1)
        Image.fromarray(mask).convert("RGB" if n == 1 else "L").save(folder / name / f"{n}.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fss")
    first = folder / "fewshot_data" / NAMES[0]
    write(first.parent, NAMES[0])
    for name in NAMES[1:]:
        (first.parent / name).mkdir()
        for file in first.iterdir():
            os.link(file, first.parent / name / file.name)
    return folder


@pytest.fixture(scope="module")
def source(made):
    return FSS1000Source(made)


def test_three_hundred_classes_have_numbers_of_16_bits_that_are_not_255(source):
    assert (len(source.class_names), len(source.ids)) == (300, 900)
    ids = [source.class_of[n] for n in ("class000", "class253", "class254", "class299")]
    assert ids == [1, 254, 256, 301]
    assert 255 not in source.class_names
    assert source.ids[:3] == ("class000/1", "class000/2", "class000/10")
    assert max(numbered_in_16_bits(["x"] * 65_534)) == 65_535
    for wrong in ([], ["x"] * 65_535):
        with pytest.raises(ValueError, match="1 to 65534 classes"):
            numbered_in_16_bits(wrong)


@pytest.mark.parametrize("id", ["class000/1", "class254/1", "class299/2"])
def test_a_mask_is_the_class_of_its_folder_from_half_white(source, id):
    labels = source.read_labels(id)
    wanted = torch.zeros(6, 8, dtype=torch.int32)
    wanted[1:4, 2:7] = wanted[4, 3] = wanted[4, 5] = source.class_of[id[:8]]
    assert labels.dtype == torch.int32
    assert torch.equal(labels, wanted)


def test_the_index_and_episodes_treat_wide_classes_as_any_other(source):
    index = build_index(source, progress=False)
    assert index.images["class299/2"].areas == {301: 17}
    assert build_index(source, progress=False) == index  # from the cache
    parts = fss1000_parts(NAMES)
    split = fss1000_split(source.class_names, parts)
    protocol = Protocol(name="p", query_order="class_first", min_area=1)
    specs = [EpisodeSampler(index, split, protocol, shots=2).episode(0, i) for i in range(40)]
    assert max(spec.class_id for spec in specs) > 255
    for spec in specs:
        assert {id.split("/")[0] for id in spec.images} == {source.class_names[spec.class_id]}


def test_views_and_episode_labels_of_wide_maps_are_those_of_narrow_ones(source):
    """The same map with class 7 in 8 bits and with class 300 in 32 goes the same way."""
    generator = torch.Generator().manual_seed(0)
    narrow = torch.randint(0, 3, (40, 50), generator=generator).mul(7).to(torch.uint8)
    narrow[:5] = 255
    wide = narrow.int()
    wide[narrow == 7], wide[narrow == 14] = 300, 65_535
    image = torch.randint(0, 256, (3, 40, 50), generator=generator).to(torch.uint8)
    views = [
        lambda labels, keep: EvalView(33)(image, labels)[1],
        lambda labels, keep: TrainView(25, flip=1.0)(image, labels, Draws("v"), keep=keep)[1],
        lambda labels, keep: TrainView(25, resize="letterbox")(image, labels, Draws("w"), keep=keep)[1],
    ]
    for view in views:
        of_narrow, of_wide = view(narrow, 7), view(wide, 300)
        assert of_wide.dtype == torch.int32
        found = way_labels(of_wide, [300, 65_535])
        assert found.dtype == torch.uint8
        assert torch.equal(found, way_labels(of_narrow, [7, 14]))


def test_parts_are_read_from_a_folder_of_lists(tmp_path):
    for file, names in (("trn.txt", "ab"), ("val.txt", "c"), ("test.txt", "d")):
        (tmp_path / file).write_text("\n".join(names) + "\n\n")
    parts = fss1000_parts("abcd", tmp_path)
    assert (parts.train, parts.validation, parts.test) == (("a", "b"), ("c",), ("d",))
    assert parts.official


def test_a_file_of_the_test_classes_leaves_the_others_to_be_drawn(tmp_path, caplog):
    (tmp_path / "test.txt").write_text("\n".join(NAMES[:60]))
    parts = fss1000_parts(NAMES, tmp_path / "test.txt")
    assert parts.test == tuple(NAMES[:60])
    assert (len(parts.train), len(parts.validation)) == (165, 75)  # 240 in 520 : 240, rounded down
    assert not parts.official
    assert "train and validation classes are drawn here" in caplog.text


def test_without_lists_the_parts_are_drawn_alike_every_time_with_a_warning(caplog):
    caplog.set_level(logging.WARNING)
    names = [f"n{i}" for i in range(1000)]
    parts = fss1000_parts(names)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (520, 240, 240)
    assert sorted((*parts.train, *parts.validation, *parts.test)) == sorted(names)
    assert parts == fss1000_parts(names[::-1])
    assert "not those of the publication" in caplog.text
    assert parts.test[:3] != tuple(names[:3])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train.txt": "a", "val.txt": "b"}, r"no test\.txt"),
        ({"train.txt": "a", "val.txt": "b", "test.txt": " \n"}, "is empty"),
        (
            {"train.txt": "a", "val.txt": "b", "test.txt": "z"},
            "1 classes are not in the data set, like \\['z'",
        ),
        ({"train.txt": "a", "val.txt": "b", "test.txt": "a"}, "1 are named twice, like \\['a'"),
    ],
)
def test_lists_that_do_not_belong_are_reported(tmp_path, files, message):
    for file, names in files.items():
        (tmp_path / file).write_text(names)
    with pytest.raises(DataError, match=message):
        fss1000_parts("ab", tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        fss1000_parts("ab", tmp_path / "none.txt")


def test_the_fold_trains_and_tests_on_images_of_its_classes(made):
    data = recipe("fss1000_matcher_resnet50").read(0, made)
    split = data.split
    assert (split.name, data.dataset, len(split.base)) == ("fss-1000-drawn", "fss-1000-drawn", 156)
    assert {c for f in data.test.images.values() for c in f.areas} == set(split.novel)
    assert {c for f in data.train.images.values() for c in f.areas} == set(split.base)
    validation = fss1000(0, made, test="validation")
    assert validation.split.base == split.base
    assert not set(validation.split.novel) & set(split.novel)
    with pytest.raises(ValueError, match="fold 0, not 1"):
        fss1000(1, made)
    with pytest.raises(DataError, match="needs --root"):
        fss1000(0)


def test_the_folder_is_found_and_what_is_wrong_in_it_is_reported(made, tmp_path):
    assert find_fss1000(made) == find_fss1000(made / "fewshot_data") == made / "fewshot_data"
    with pytest.raises(DataError, match="is empty"):
        find_fss1000(tmp_path)
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match="HKUSTCV/FSS-1000"):
        find_fss1000(tmp_path)
    write(tmp_path, "y")
    with pytest.raises(DataError, match="x has no photograph"):
        FSS1000Source(tmp_path)
    shutil.rmtree(tmp_path / "x")
    (tmp_path / "y" / "2.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"2\.png cannot be read"):
        FSS1000Source(tmp_path).read_labels("y/2")
    (tmp_path / "y" / "2.png").unlink()
    with pytest.raises(DataError, match=r"2\.jpg has no mask 2\.png"):
        FSS1000Source(tmp_path)


def test_the_check_counts_classes_and_images_and_empty_masks(tmp_path):
    write(tmp_path, "y", numbers=(1, 2))
    Image.new("L", (8, 6)).save(tmp_path / "y" / "2.png")
    lines = check_fss1000(tmp_path)
    assert lines[0] == f"ok    FSS-1000: {tmp_path}"
    assert lines[1] == "WRONG classes: 1 (expected 1000)"
    assert '1 classes have not 10 images, like {"y": 2}' in lines[2]
    assert "1 masks are empty, like ['y/2']" in lines[-1]
    assert check_fss1000(tmp_path / "none")[0].startswith("WRONG FSS-1000")
