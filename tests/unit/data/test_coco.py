"""The COCO reader on annotation files and images that the tests write."""

import json
import logging
import pickle
import shutil

import numpy as np
import pytest

from fewseg.data import coco as coco_module
from fewseg.data.check import ANNOTATED, HSNET_IMAGES, LISTED, check_coco, hsnet_lines
from fewseg.data.coco import coco_source, find_coco
from fewseg.data.folds import CATEGORY_IDS, CLASS_OF_CATEGORY, COCO_CLASSES
from fewseg.data.index import build_index
from fewseg.types import DataError

H, W = 12, 16
CATEGORIES = [{"id": i, "name": n} for i, n in zip(CATEGORY_IDS, COCO_CLASSES, strict=True)]


def box(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def entry(id, image, category, segmentation, crowd=0):
    ids = {"id": id, "image_id": image, "category_id": category}
    return {**ids, "segmentation": segmentation, "iscrowd": crowd, "area": 1.0, "bbox": [0, 0, 1, 1]}


def content(part, **changes):
    images = [
        {"id": i, "file_name": f"COCO_{part}2014_{i:012d}.jpg", "height": H, "width": W, "license": 3}
        for i in (9, 4, 7, 5)
    ]
    column = [0, 4 * H, (W - 4) * H]  # uncompressed: the first four columns
    annotations = [
        entry(1, 4, 1, box(0, 0, 6, 6)),
        entry(2, 9, 90, box(2, 3, 12, 9)),
        entry(3, 9, 18, box(2, 3, 6, 7)),
        entry(4, 7, 1, {"size": [H, W], "counts": column}, crowd=1),
        entry(5, 4, 3, box(8, 8, 30, 11)),
    ]
    return {"info": {}, "images": images, "categories": CATEGORIES, "annotations": annotations} | changes


@pytest.fixture
def root(tmp_path, write_image):
    """COCO as unpacked, four images a part: 9 and 4 with things, 7 with a crowd alone, 5 without anything."""
    for part in ("train", "val"):
        write(tmp_path, content(part), part)
        for i in (9, 4, 7, 5):
            write_image(tmp_path / f"{part}2014" / f"COCO_{part}2014_{i:012d}.jpg", (H, W))
    return tmp_path


def write(root, what, part="val"):
    path = root / "annotations" / f"instances_{part}2014.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(what if isinstance(what, str) else json.dumps(what))


def test_images_with_annotations_are_read_in_file_order_with_classes_one_to_eighty(root):
    source = coco_source(root, "val", progress=False)
    assert source.ids == tuple(f"COCO_val2014_{i:012d}" for i in (9, 4, 7))
    assert (source.name, source.listed, len(source), len(source.class_names)) == ("coco-val2014", 4, 3, 80)
    wanted = np.zeros((H, W), dtype=np.uint8)
    wanted[3:9, 2:12], wanted[3:7, 2:6] = 80, 17
    labels = source.read_labels(source.ids[0])
    assert np.array_equal(labels.numpy(), wanted)
    assert source.read_image(source.ids[0]).shape == (3, H, W)
    assert source.image_size(source.ids[0]) == (H, W)
    labels += 1  # a map is the caller's own
    assert np.array_equal(source.read_labels(source.ids[0]).numpy(), wanted)


def test_the_index_counts_drawn_pixels_and_a_crowd_is_no_presence(root):
    index = build_index(coco_source(root, "val", progress=False), progress=False)
    areas = {id[-1]: dict(facts.areas) for id, facts in index.images.items()}
    assert areas == {"9": {80: 60 - 16, 17: 16}, "4": {1: 36, 3: 24}, "7": {}}
    assert index.images_of(1, 36) == ("COCO_val2014_000000000004",)
    assert index.images_of(1, 37) == ()


def test_all_ninety_category_ids_have_the_number_of_their_name():
    assert (len(COCO_CLASSES), len(set(COCO_CLASSES)), len(CATEGORY_IDS)) == (80, 80, 80)
    assert (CATEGORY_IDS[0], CATEGORY_IDS[-1]) == (1, 90)
    known = {1: 1, 11: 11, 13: 12, 25: 24, 27: 25, 44: 40, 62: 57, 67: 61, 72: 63, 82: 73, 84: 74, 90: 80}
    assert {c: CLASS_OF_CATEGORY[c] for c in known} == known
    assert not {12, 26, 29, 30, 45, 66, 68, 69, 71, 83} & set(CLASS_OF_CATEGORY)
    named = {"person": 1, "dog": 17, "chair": 57, "couch": 58, "dining table": 61, "tv": 63, "toothbrush": 80}
    assert {n: COCO_CLASSES.index(n) + 1 for n in named} == named


def test_a_warm_start_neither_parses_the_annotations_nor_draws(root, monkeypatch):
    first = coco_source(root, "val", progress=False)
    maps = [first.read_labels(id) for id in first.ids]
    for name in ("read_annotations", "draw_labels"):
        monkeypatch.setattr(coco_module, name, None)
    monkeypatch.setattr(coco_module.hashlib, "file_digest", None)
    again = coco_source(root, "val", progress=False)
    assert (again.ids, again.digest(), again.listed) == (first.ids, first.digest(), 4)
    assert all((again.read_labels(i) == m).all() for i, m in zip(again.ids, maps, strict=True))
    assert again.tolerated == {"polygons outside their image, clipped": 1}
    carried = pickle.loads(pickle.dumps(again))
    assert (carried.read_labels(again.ids[0]) == maps[0]).all()


def test_other_annotations_are_another_set_and_the_same_elsewhere_are_not(root, tmp_path_factory):
    before = coco_source(root, "val", progress=False)
    moved = tmp_path_factory.mktemp("moved") / "coco2014"
    shutil.copytree(root, moved)
    assert coco_source(moved.parent, "val", progress=False).digest() == before.digest()
    write(root, content("val", annotations=[entry(1, 4, 1, box(0, 0, 2, 2))]))
    after = coco_source(root, "val", progress=False)
    assert after.digest() != before.digest()
    assert after.ids == ("COCO_val2014_000000000004",)
    assert before.digest() != coco_source(root, "train", progress=False).digest()


def test_what_is_tolerated_is_reported_with_counts(root, caplog):
    caplog.set_level(logging.INFO, logger="fewseg")
    write(root, content("val", annotations=[entry(1, 4, 1, [[1, 1, 2, 2]]), entry(2, 4, 1, box(0, 0, 3, 3))]))
    for _ in range(2):  # cold and warm
        caplog.clear()
        coco_source(root, "val", progress=False)
        assert "1 polygon of fewer than 3 points, left out" in caplog.text
        assert "1 annotation without a polygon" in caplog.text


def test_photographs_that_are_missing_are_counted(root):
    (root / "val2014" / "COCO_val2014_000000000004.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 3 photographs are missing(.|\n)*0004\.jpg does not exist"):
        coco_source(root, "val", progress=False)
    (root / "val2014" / "COCO_val2014_000000000005.jpg").unlink()  # has no annotations: not needed
    shutil.rmtree(root / "train2014")
    with pytest.raises(DataError, match="3 of 3 photographs"):
        coco_source(root, "train", progress=False)


def test_the_folder_is_found_or_where_to_get_it_is_reported(tmp_path, root):
    assert find_coco(root) == root
    (root / "images").mkdir()
    (root / "val2014").rename(root / "images" / "val2014")
    source = coco_source(root, "val", progress=False)
    assert len(source) == 3
    with pytest.raises(DataError, match="coco-val2014 has no image 'x'"):
        source.read_labels("x")
    with pytest.raises(ValueError, match="no part 'test'"):
        coco_source(root, "test", progress=False)
    (tmp_path / "other" / "x").mkdir(parents=True)
    with pytest.raises(DataError, match=r"annotations_trainval2014\.zip"):
        find_coco(tmp_path / "other")
    with pytest.raises(DataError, match="does not exist"):
        find_coco(tmp_path / "none")


def cache_of(root):
    coco_source(root, "val", progress=False)
    found = list((coco_module.cache_folder() / "coco").glob("*/images.json"))
    assert len(found) == 1
    return found[0].parent


@pytest.mark.parametrize("damage", [b"", b"foreign", None])
@pytest.mark.parametrize("file", ["images.json", "labels-0000.npz"])
def test_a_damaged_cache_is_made_again(root, file, damage):
    folder = cache_of(root)
    wanted = coco_source(root, "val", progress=False).read_labels("COCO_val2014_000000000009")
    if damage is None:
        (folder / file).write_bytes((folder / file).read_bytes()[:-1])
    else:
        (folder / file).write_bytes(damage)
    again = coco_source(root, "val", progress=False)
    assert (again.read_labels("COCO_val2014_000000000009") == wanted).all()


def test_a_map_that_rots_while_in_use_is_an_error_with_what_to_delete(root):
    folder = cache_of(root)
    source = coco_source(root, "val", progress=False)
    file = folder / "labels-0000.npz"
    data = bytearray(file.read_bytes())
    data[-5:] = b"\x00\x01\x02\x03\x04"
    file.write_bytes(data)
    with pytest.raises(DataError, match="delete the folder"):
        source.read_labels(source.ids[-1])


def test_a_killed_run_keeps_the_files_that_are_whole(root, monkeypatch):
    monkeypatch.setattr(coco_module, "SHARD", 1)
    drawn = []
    draw = coco_module.draw_labels
    monkeypatch.setattr(coco_module, "draw_labels", lambda *a: drawn.append(1) or draw(*a))
    folder = cache_of(root)
    assert (len(drawn), len(list(folder.glob("labels-*.npz")))) == (3, 3)
    (folder / "images.json").unlink()
    (folder / "labels-0001.npz").unlink()
    source = coco_source(root, "val", progress=False)
    assert len(drawn) == 4
    assert source.read_labels(source.ids[1])[0, 0] == 1


def test_without_room_on_the_disk_the_maps_stay_in_memory(root, monkeypatch, caplog):
    def full(path, data):
        raise OSError(28, "no space left")

    monkeypatch.setattr(coco_module, "atomic_write_bytes", full)
    monkeypatch.setattr(coco_module, "atomic_write_text", full)
    source = coco_source(root, "val", progress=False)
    assert source.read_labels("COCO_val2014_000000000004")[0, 0] == 1
    assert "stay in memory" in caplog.text


def test_the_check_sets_all_counts_beside_the_known_ones(root, monkeypatch):
    monkeypatch.setitem(LISTED, "train", 4)
    monkeypatch.setitem(ANNOTATED, "train", 3)
    lines = check_coco(root, min_area=1)
    assert lines[0] == f"ok    COCO 2014: {root}"
    assert "WRONG val2014 images listed: 4 (expected 40504)" in lines
    assert "WRONG val2014 images with annotations: 3 (expected 40137)" in lines
    assert "ok    train2014 images listed: 4 (expected 4)" in lines
    assert "ok    train2014 images with annotations: 3 (expected 3)" in lines
    assert "note  val2014: 1 polygons outside their image, clipped" in lines
    notes = [line for line in lines if "HSNet" in line]
    assert notes[4] == "note  fold 0 val images with a novel class from 1 px: 2, unlike HSNet's list (26052)"
    assert len(notes) == 8


def test_the_check_names_what_is_missing_and_where_to_get_it(root):
    shutil.rmtree(root / "train2014")
    (root / "annotations" / "instances_val2014.json").unlink()
    lines = check_coco(root, min_area=1)
    missing = [line for line in lines if "is missing" in line]
    assert len(missing) == 2
    assert "train2014 is missing: train2014.zip" in missing[0]
    assert "cocodataset.org" in missing[1]
    shutil.rmtree(root / "annotations")
    assert check_coco(root, min_area=1)[0].startswith("WRONG COCO 2014")


def test_hsnets_lists_are_alike_within_one_percent(make_index, monkeypatch):
    monkeypatch.setitem(HSNET_IMAGES, "val", (400, 100, 1, 0))
    index = make_index({f"i{k}": {1: 9} if k < 396 else {2: 9} for k in range(494)})
    lines = list(hsnet_lines(index, "val"))
    assert "396, like HSNet's list (400)" in lines[0]
    assert "98, unlike HSNet's list (100)" in lines[1]
