import os
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from fewseg.data import pascal as sbd
from fewseg.data.check import check_named, check_pascal
from fewseg.data.pascal import (
    convert_masks,
    find_sbd,
    find_voc,
    pascal_sources,
    pascal_val,
    read_ids,
    read_mat,
    train_ids,
)
from fewseg.types import DataError

# v: VOC val, t: VOC train, s: SBD alone. "x" after it: VOC has a mask of its own and SBD too.
VOC_TRAIN, VOC_VAL = ["t1", "t2x"], ["v1", "v2x"]
SBD_TRAIN, SBD_VAL = ["s1", "t2x", "v2x"], ["s2", "s3"]
MAIN_TRAIN = ["t1", "t2x", "s1", "s3", "m1"]  # detection train: s2 is in detection val


@pytest.fixture
def roots(tmp_path, write_image, write_mask):
    voc, sbd = tmp_path / "VOCdevkit" / "VOC2012", tmp_path / "benchmark_RELEASE" / "dataset"
    for id in VOC_TRAIN + VOC_VAL:
        write_mask(voc / "SegmentationClass" / f"{id}.png", np.array([[0, 1], [255, 1]]))
    for id in VOC_TRAIN + VOC_VAL + ["s1", "s2"]:
        write_image(voc / "JPEGImages" / f"{id}.jpg", (2, 2))
    for id in SBD_TRAIN + SBD_VAL:
        write_image(sbd / "img" / f"{id}.jpg", (2, 2))
        (sbd / "cls").mkdir(exist_ok=True)
        savemat(sbd / "cls" / f"{id}.mat", {"GTcls": {"Segmentation": np.full((2, 2), 7, np.uint8)}})
    sets = voc / "ImageSets"
    for path, ids in (
        (sets / "Segmentation" / "train.txt", VOC_TRAIN),
        (sets / "Segmentation" / "val.txt", VOC_VAL),
        (sets / "Main" / "train.txt", MAIN_TRAIN),
        (sbd / "train.txt", SBD_TRAIN),
        (sbd / "val.txt", SBD_VAL),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(ids) + "\n")
    return tmp_path, tmp_path


def test_the_folders_are_found_at_and_below_the_root(roots):
    voc, sbd = roots[0] / "VOCdevkit" / "VOC2012", roots[0] / "benchmark_RELEASE" / "dataset"
    assert {find_voc(r) for r in (roots[0], roots[0] / "VOCdevkit", voc)} == {voc}
    assert {find_sbd(r) for r in (roots[1], roots[1] / "benchmark_RELEASE", sbd)} == {sbd}


@pytest.mark.parametrize(("find", "what"), [(find_voc, "VOCtrainval"), (find_sbd, "benchmark.tgz")])
def test_missing_folders_are_reported_with_where_to_get_them(tmp_path, find, what):
    with pytest.raises(DataError, match="does not exist"):
        find(tmp_path / "none")
    with pytest.raises(DataError, match="is empty"):
        find(tmp_path)
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match=what):
        find(tmp_path)


def test_both_training_lists_are_voc_train_with_sbd_outside_voc_val(roots):
    voc, sbd = find_voc(roots[0]), find_sbd(roots[1])
    assert train_ids(voc, sbd, "trainaug") == ("s1", "s2", "s3", "t1", "t2x")
    assert train_ids(voc, sbd, "voc+sbd_noval") == ("s1", "s3", "t1", "t2x")  # of detection train alone
    (sbd / "train_noval.txt").write_text("s2\nv2x\n")
    assert train_ids(voc, sbd, "voc+sbd_noval") == ("s2", "t1", "t2x")


def test_without_either_list_the_place_to_get_it_is_reported(roots):
    voc, sbd = find_voc(roots[0]), find_sbd(roots[1])
    (voc / "ImageSets" / "Main" / "train.txt").unlink()
    with pytest.raises(DataError, match=r"train_noval\.txt \(fetch it from https"):
        train_ids(voc, sbd, "voc+sbd_noval")
    assert len(train_ids(voc, sbd, "trainaug")) == 5
    with pytest.raises(ValueError, match="'voc' is unknown"):
        train_ids(voc, sbd, "voc")


def test_the_sources_hold_the_lists_and_vocs_mask_wins(roots):
    train, val = pascal_sources(*roots, train_list="trainaug", masks=roots[0] / "png", progress=False)
    assert val.ids == ("v1", "v2x")
    assert train.ids == ("s1", "s2", "s3", "t1", "t2x")
    assert (train.name, val.name) == ("pascal-trainaug", "pascal-val")
    assert train.class_names[20] == "tvmonitor"
    for id in ("t1", "t2x"):
        assert train.read_labels(id).tolist() == [[0, 1], [255, 1]]
    for id in ("s1", "s2", "s3"):
        assert train.read_labels(id).tolist() == [[7, 7], [7, 7]]
        assert train.read_image(id).shape == (3, 2, 2)
    assert val.read_labels("v2x").tolist() == [[0, 1], [255, 1]]
    assert [train.pair(id).image.parent.name for id in ("s1", "s3")] == ["JPEGImages", "img"]
    assert sorted(p.stem for p in (roots[0] / "png").iterdir()) == ["s1", "s2", "s3"]


def test_missing_files_are_counted_and_named(roots):
    for id in VOC_VAL:
        (find_voc(roots[0]) / "SegmentationClass" / f"{id}.png").unlink()
    with pytest.raises(DataError, match=r"2 files are missing(.|\n)*v1\.png does not exist"):
        pascal_val(roots[0])


def test_image_sets_are_first_words_without_repeats(tmp_path):
    (tmp_path / "a.txt").write_text("x 1\ny -1\n\nx 1\n")
    assert read_ids(tmp_path / "a.txt") == ("x", "y")
    (tmp_path / "a.txt").write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        read_ids(tmp_path / "a.txt")
    with pytest.raises(DataError, match="cannot be read"):
        read_ids(tmp_path / "none.txt")


def test_the_check_compares_all_counts(roots):
    lines = check_pascal(roots[0], "voc+sbd_noval")
    assert lines[0].startswith("ok    VOC2012: ")
    assert lines[1].startswith("ok    SBD: ")
    assert "Main/train.txt is used" in lines[2]
    assert "WRONG val images: 2 (expected 1449)" in lines
    assert "WRONG voc+sbd_noval images: 4 (expected 5953)" in lines
    assert len(lines) == 3 + 9 + 5
    of_trainaug = check_named("pascal", roots[0], 1, None, "trainaug")
    assert of_trainaug[:2] == lines[:2]
    assert of_trainaug[2:11] == lines[3:12]
    assert of_trainaug[11] == "WRONG trainaug images: 5 (expected 10582)"


def test_the_check_reports_what_is_missing_instead_of_failing(roots):
    (find_sbd(roots[1]) / "cls" / "s1.mat").write_bytes(b"")
    assert "s1.mat cannot be read" in check_pascal(roots[0], "trainaug")[-1]
    shutil.rmtree(find_sbd(roots[1]))
    assert pascal_val(roots[0]).ids == ("v1", "v2x")  # needs VOC alone
    lines = check_pascal(roots[0], "trainaug")
    assert lines[0].startswith("ok    VOC2012")
    assert lines[1].startswith("WRONG SBD (https://")
    assert len(lines) == 2
    shutil.rmtree(find_voc(roots[0]) / "SegmentationClass")
    with pytest.raises(DataError, match="lacks SegmentationClass;"):
        find_voc(roots[0] / "VOCdevkit" / "VOC2012")


PLANE = np.array([[0, 1, 20], [5, 0, 0]], dtype=np.uint8)


def write_mat(path, plane=PLANE):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(
        path, {"GTcls": {"Segmentation": plane, "CategoriesPresent": np.array([1, 20])}}, do_compression=True
    )
    return path


def test_a_broken_or_foreign_matlab_file_is_reported(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"not matlab")
    with pytest.raises(DataError, match=r"a\.mat cannot be read.*GTcls"):
        read_mat(tmp_path / "a.mat")
    savemat(tmp_path / "b.mat", {"other": PLANE})
    with pytest.raises(DataError, match=r"b\.mat cannot be read"):
        read_mat(tmp_path / "b.mat")
    with pytest.raises(DataError, match=r"c\.mat cannot be read"):
        read_mat(tmp_path / "c.mat")
    write_mat(tmp_path / "d.mat", np.zeros((2, 2, 2), dtype=np.uint8))
    with pytest.raises(DataError, match=r"must be \(H, W\)"):
        read_mat(tmp_path / "d.mat")


def test_masks_become_palette_files_with_the_same_numbers(tmp_path):
    write_mat(tmp_path / "cls" / "a.mat")
    found = convert_masks(tmp_path / "cls", ["a"], tmp_path / "png", progress=False)
    assert found == {"a": tmp_path / "png" / "a.png"}
    with Image.open(found["a"]) as image:
        assert image.mode == "P"
        assert np.array(image).tolist() == PLANE.tolist()
        assert image.convert("RGB").getpixel((1, 0)) == (128, 0, 0)


def test_a_second_conversion_takes_up_where_the_first_ended(tmp_path, monkeypatch):
    for id in "abc":
        write_mat(tmp_path / "cls" / f"{id}.mat")
    (tmp_path / "cls" / "b.mat").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"1 of 3 images(.|\n)*b\.mat"):
        convert_masks(tmp_path / "cls", ["a", "b", "c"], tmp_path / "png", progress=False)
    assert sorted(p.name for p in (tmp_path / "png").iterdir()) == ["a.png", "c.png"]
    write_mat(tmp_path / "cls" / "b.mat")
    read = []
    monkeypatch.setattr(sbd, "read_mat", lambda path: read.append(path.stem) or PLANE)
    convert_masks(tmp_path / "cls", ["a", "b", "c"], tmp_path / "png", progress=False)
    assert read == ["b"]


def test_a_newer_matlab_file_is_converted_again(tmp_path):
    mat = write_mat(tmp_path / "cls" / "a.mat")
    found = convert_masks(tmp_path / "cls", ["a"], tmp_path / "png", progress=False)
    write_mat(mat, PLANE * 0 + 3)
    later = found["a"].stat().st_mtime_ns + 10**9
    os.utime(mat, ns=(later, later))
    convert_masks(tmp_path / "cls", ["a"], tmp_path / "png", progress=False)
    assert np.array(Image.open(found["a"])).tolist() == [[3, 3, 3], [3, 3, 3]]


def test_the_default_folder_is_in_the_cache_and_belongs_to_the_source(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSEG_CACHE", str(tmp_path / "cache"))
    write_mat(tmp_path / "one" / "a.mat")
    write_mat(tmp_path / "two" / "a.mat", PLANE * 0)
    first = convert_masks(tmp_path / "one", ["a"], progress=False)["a"]
    second = convert_masks(tmp_path / "two", ["a"], progress=False)["a"]
    assert first != second
    assert first.is_relative_to(tmp_path / "cache")
    assert np.array(Image.open(first)).any()
