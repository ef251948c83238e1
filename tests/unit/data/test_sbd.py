import os

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from fewseg.data import pascal as sbd
from fewseg.data.pascal import convert_masks, read_mat
from fewseg.types import DataError

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
