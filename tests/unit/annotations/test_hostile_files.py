"""Inputs that ended in a traceback (``benchmarks/fuzz.py``): each ends in one line that names the file."""

import json
import struct
import warnings
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fewseg.annotations import parquet, shapes
from fewseg.annotations.formats import read_supports
from fewseg.annotations.jsonl import read_jsonl
from fewseg.annotations.values import Instance, Prediction
from fewseg.annotations.writer import line_of
from fewseg.engine.checkpoint import load_checkpoint
from fewseg.engine.results import load_counts, load_with_counts
from fewseg.inference import Segmenter, Tiles
from fewseg.types import DataError
from result_files import make_counts, make_result, without_seal
from small_segmenters import model, picture, tiny_checkpoint, with_squares

REGION = {
    "id": "r",
    "original_width": 70,
    "original_height": 50,
    "value": {"points": [[10, 10], [60, 10], [60, 60]], "polygonlabels": ["thing"]},
}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("id",), {}),
        (("id",), [[]]),
        (("value", "xlabels"), [[]]),
        (("value", "polygonlabels"), [{}]),
        (("value", "polygonlabels"), {"a": 1}),
        (("value", "points"), {"a": 1}),
        (("value", "points"), [[10**400, 0]] * 3),
        (("value", "points"), [[float("nan"), 0]] * 3),
        (("original_width",), [70]),
        (("original_width",), 10**30),
        (("value",), []),
        (("image_rotation",), "x"),
    ],
)
def test_label_studio_with_values_of_other_kinds(tmp_path, place, value):
    Image.fromarray(picture(0)[0]).save(tmp_path / "a.png")
    region = json.loads(json.dumps(REGION))
    *lead, last = place
    inner = region
    for key in lead:
        inner = inner[key]
    inner[last] = value
    task = {"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": [region]}]}
    (tmp_path / "a.json").write_text(json.dumps([task]))
    with suppress(DataError):  # of some values nothing is needed
        assert read_supports(tmp_path / "a.json")


@pytest.mark.parametrize("far", [-(2**63), 10**12, 1e300, 10**7])
def test_polygons_that_reach_far_past_the_image(tmp_path, far):
    """These crashed in pycocotools, or took memory for all that they reach over."""
    Image.fromarray(picture(0)[0]).save(tmp_path / "a.png")
    shape = {"name": "polygon", "all_points_x": [5, 30, 30], "all_points_y": [far, 5, 30]}
    region = {"shape_attributes": shape, "region_attributes": {"class": "thing"}}
    (tmp_path / "a.json").write_text(json.dumps({"a": {"filename": "a.png", "size": 1, "regions": [region]}}))
    words = r"a.json: 1 of 1 annotated images cannot be used\n  a polygon reaches \d+ pixels past the image"
    with pytest.raises(DataError, match=words):
        read_supports(tmp_path / "a.json")


def test_polygons_with_an_outline_of_more_than_ten_million_pixels(tmp_path):
    Image.fromarray(picture(0)[0]).save(tmp_path / "a.png")
    points = {"all_points_x": [5, 60_000] * 200, "all_points_y": [5, 30] * 200}
    region = {"shape_attributes": {"name": "polygon", **points}, "region_attributes": {"class": "thing"}}
    (tmp_path / "a.json").write_text(json.dumps({"a": {"filename": "a.png", "size": 1, "regions": [region]}}))
    words = r"outline of a polygon must have up to 10000000 pixels, got 23998000: use a mask"
    with pytest.raises(DataError, match=words):
        read_supports(tmp_path / "a.json")


@pytest.mark.parametrize("kind", ["polygon", "linestrip", "points", "mask"])
def test_shapes_of_too_many_points(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(shapes, "MOST_POINTS", 1000)
    Image.fromarray(picture(0)[0]).save(tmp_path / "a.png")
    shape = {"label": "thing", "shape_type": kind, "points": [[1, 2]] * 1001}
    (tmp_path / "a.json").write_text(json.dumps({"imagePath": "a.png", "shapes": [shape]}))
    with pytest.raises(DataError, match=r"a\.json, shape 0 must have up to 1000 points, got 1001: give"):
        read_supports(tmp_path / "a.json")


POINTS = [(5, 5), (30, 5), (30, 30), (20, 31), (5, 30)]
VIA_SHAPE = {
    "name": "polygon",
    "all_points_x": [x for x, _ in POINTS],
    "all_points_y": [y for _, y in POINTS],
}
VIA_REGIONS = [{"shape_attributes": VIA_SHAPE, "region_attributes": {"class": "thing"}}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps({"a": {"filename": "a.png", "size": 1, "regions": VIA_REGIONS}})),
        (
            "a.xml",
            '<annotations><version>1.1</version><image id="0" name="a.png" width="70" height="50">'
            f'<polygon label="thing" points="{";".join(f"{x},{y}" for x, y in POINTS)}"/></image>'
            "</annotations>",
        ),
        ("labels/a.txt", "0 " + " ".join(f"{x / 70} {y / 50}" for x, y in POINTS)),
    ],
)
def test_a_shape_of_too_many_points_is_refused_before_any_is_read(tmp_path, monkeypatch, name, text):
    """Ten million of them took more than 2 GiB."""
    (tmp_path / "labels").mkdir()
    (tmp_path / "data.yaml").write_text("names: [thing]\ntrain: images\n")
    (tmp_path / "images").mkdir()
    for place in (tmp_path, tmp_path / "images"):
        Image.fromarray(picture(0)[0]).save(place / "a.png")
    (tmp_path / name).write_text(text)
    path = tmp_path if name.startswith("labels") else tmp_path / name
    assert len(read_supports(path)) == 1
    monkeypatch.setattr("fewseg.annotations.shapes.MOST_POINTS", 4)
    with pytest.raises(DataError, match="must have up to 4 points, got 5: give it as a mask"):
        read_supports(path)


COLUMNS = {
    "of no axis": np.array(3),
    "of two axes": np.zeros((60, 2), np.int64),
    "of dates": np.zeros(120, "datetime64[s]"),
    "of NaN": np.full(120, np.nan),
    "of texts": np.array(["x"] * 120),
    "of structures": np.zeros(120, [("a", int)]),
    "of another length": np.zeros(7, np.int64),
}


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("name", ["seed", "fg_pred", "query", "supports"])
def test_counts_with_a_column(tmp_path, kind, name):
    columns = {k: np.asarray(v) for k, v in vars(make_counts()).items()}
    np.savez(tmp_path / "a.counts.npz", **{**columns, name: COLUMNS[kind]})
    with pytest.raises(ValueError, match=r"a.counts.npz is not a whole table of episode counts"):
        load_counts(tmp_path / "a.json")


@pytest.mark.parametrize(
    "head", [b"(" * 5000, b"{'descr': '<i8', 'fortran_order': False, 'shape': (1099511627776,)}"]
)
def test_counts_with_a_broken_or_huge_header(tmp_path, head):
    with zipfile.ZipFile(tmp_path / "a.counts.npz", "w") as out:
        for name in vars(make_counts()):
            out.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)
    with pytest.raises(ValueError, match=r"a.counts.npz is not a whole table of episode counts"):
        load_counts(tmp_path / "a.json")


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "\ud800", json.loads("[" * 100 + "]" * 100)])
def test_results_with_a_value_that_no_json_has(tmp_path, value):
    """A text of half a character ended the table of all results."""
    counts = make_counts()
    make_result(counts).save(tmp_path / "a.json", counts)
    stored = without_seal(json.loads((tmp_path / "a.json").read_text()))
    stored["training"]["note"] = value
    (tmp_path / "a.json").write_text(json.dumps(stored | {"counts_sha256": "", "digest": ""}))
    with pytest.raises(ValueError, match=r"a\.json is not a whole JSON file \(.*(float|surrogate|deep)"):
        load_with_counts(tmp_path / "a.json")


@pytest.mark.parametrize(("cx", "rx"), [(1e308, 1e-300), (20, 5e-324), (1e200, 1e200)])
def test_ellipses_of_odd_numbers_give_no_warning(tmp_path, cx, rx):
    Image.fromarray(picture(0)[0]).save(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text(
        '<annotations><version>1.1</version><image id="0" name="a.png" width="70" height="50">'
        f'<ellipse label="thing" cx="{cx}" cy="9" rx="{rx}" ry="9"/></image></annotations>'
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert len(read_supports(tmp_path / "a.xml")) == 1


@pytest.mark.parametrize("size", [(10**18, 10**18), (2**31, 2**31), (40_000, 40_000)])
def test_predictions_of_an_impossible_size(tmp_path, size):
    line = {"name": "a.png", "height": size[0], "width": size[1], "scores": {"a": 1}, "regions": []}
    head = {"format": "fewseg-predictions-1", "classes": ["a"]}
    (tmp_path / "p.jsonl").write_text(f"{json.dumps(head)}\n{json.dumps(line)}\n")
    with pytest.raises(DataError, match=r"p.jsonl, image 1 is of .* pixels: it is broken"):
        list(read_jsonl(tmp_path / "p.jsonl"))


SUPPORT_SETS = {
    "views of another size": (lambda t, shot: shot["windows"][0].__setitem__(4, 33), "views at other places"),
    "an image of another size": (lambda t, shot: shot.update(size=[2**40, 9]), "views at other places"),
    "an image of infinite size": (lambda t, shot: shot.update(size=[float("inf"), 9]), "infinity"),
    "no map of a level": (
        lambda t, shot: t.pop("features.0.embedding"),
        r"image 0 needs a map of the level 'embedding' of \(1, 16, 9, 9\) torch.float32, got none",
    ),
    "a map of another rank": (
        lambda t, shot: t.update({"features.0.embedding": t["features.0.embedding"].flatten()}),
        r"'embedding' of \(1, 16, 9, 9\) torch.float32, got \(1296,\)",
    ),
    "a map of other channels": (
        lambda t, shot: t.update({"features.0.embedding": t["features.0.embedding"][:, :4].clone()}),
        r"'embedding' of \(1, 16, 9, 9\) torch.float32, got \(1, 4, 9, 9\)",
    ),
    "a map of integers": (
        lambda t, shot: t.update({"features.0.embedding": t["features.0.embedding"].long()}),
        r"got \(1, 16, 9, 9\) torch.int64",
    ),
    "a map that is not finite": (lambda t, shot: t["features.0.embedding"].fill_(float("nan")), "not finite"),
    "a mask of another size": (
        lambda t, shot: t.update({"masks.0.0": t["masks.0.0"][:, :9].clone()}),
        r"a mask of 'square' of \(1, 65, 65\) torch.uint8, got \(1, 9, 65\)",
    ),
    "a mask of other values": (lambda t, shot: t["masks.0.0"].fill_(7), "values other than 0, 1 and 255"),
    "a mask of the image of another rank": (
        lambda t, shot: t.update({"whole.0.0": t["whole.0.0"].flatten()}),
        r"a mask of 'square' of \(\d+, \d+\) torch.uint8, got \(\d+,\)",
    ),
}


def edited(path, edit, views=None):
    """A support set whose tensors and header were edited is loaded."""
    with_squares(views=views).save_supports(path)
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["fewseg-supports"])
    edit(tensors, header)
    save_file(tensors, path, metadata={"fewseg-supports": json.dumps(header)})
    Segmenter(model(views=views)).load_supports(path)


@pytest.mark.parametrize("kind", SUPPORT_SETS)
def test_support_sets_with(tmp_path, kind):
    change, words = SUPPORT_SETS[kind]
    with pytest.raises(DataError, match=rf"s.safetensors is not a complete support set \(.*{words}"):
        edited(tmp_path / "s.safetensors", lambda tensors, header: change(tensors, header["shots"][0]))


def test_support_sets_of_more_pixels_than_tiles(tmp_path):
    with pytest.raises(DataError, match=r"s.safetensors .*image 0 has \d views, too few for"):
        edited(tmp_path / "s.safetensors", lambda _, head: head["shots"][0].update(size=[2**40] * 2), Tiles())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda head: {"value_range": [1]}, "unpack"),
        (lambda head: {"value_range": [2, 1]}, "two rising numbers"),
        (lambda head: {"classes": ["a", "a"]}, "different names"),
        (lambda head: {"classes": ["a", "b"]}, "not all that it names"),
        (lambda head: {"shots": head["shots"][:1] * 2}, "an image twice"),
    ],
)
def test_support_sets_with_an_edited_header(tmp_path, change, words):
    with pytest.raises(DataError, match=rf"s.safetensors is not a complete support set \(.*{words}"):
        edited(tmp_path / "s.safetensors", lambda _, header: header.update(change(header)))


@pytest.mark.parametrize(
    "change", [{"levels": "a"}, {"backbone": 1}, {"type": "os.system"}, {"[1]": 2}, {"metric": []}]
)
def test_checkpoints_with_an_edited_config(tmp_path, change):
    path = tiny_checkpoint(tmp_path / "m.safetensors")
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["fewseg"])
    header["config"].update(change)
    save_file(tensors, path, metadata={"fewseg": json.dumps(header)})
    with pytest.raises(ValueError, match=r"m.safetensors"):
        load_checkpoint(path)


MASK = np.eye(4, 5, dtype=np.uint8)
THING = Instance(class_name="a", box=(0, 0, 4, 4), piece=MASK[:, :4], score=0.5)
ROW = line_of(Prediction(name="x", labels=MASK, classes=("a",), scores=(0.5,), instances=(THING,)))
ROW = {"name": "x", **ROW, "scores": [("a", 0.5)], "facts": "{}"}
THINGS = ROW["instances"][0]


def results(folder, *rows, schema=None, **written):
    """A file of results with these rows, as read."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as arrow

    table = pyarrow.Table.from_pylist(rows, schema=schema or parquet._schema(("a",)))
    arrow.write_table(table, folder / "part-1.parquet", **written)
    return list(parquet.read_parquet(str(folder)))


def within(value, place, new):
    """A copy of a value with another one at a place in it."""
    if not place:
        return new
    copy = value.copy()
    copy[place[0]] = within(value[place[0]], place[1:], new)
    return copy


def test_whole_results_are_read(tmp_path):
    (found,) = results(tmp_path, ROW)
    assert found.labels.tolist() == MASK.tolist()
    assert found.instances[0].piece.base is None  # else it keeps the image's whole mask
    assert found.instances[0].piece.tolist() == MASK[:, :4].tolist()


INSTANCE = ("instances", 0)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *(((key,), None) for key in ("name", "height", "width", "scores", "facts", "regions")),
        (("name",), ""),
        (("name",), "../x"),
        (("name",), "x" * 10_000),
        (("height",), -4),
        (("height",), 5),
        (("width",), 2**31 - 1),
        (("facts",), "{"),
        (("facts",), "[]"),
        (("facts",), "[" * 10_000),
        (("scores",), [("a", float("nan"))]),
        (("scores",), [("b", 0.5)]),
        (("scores",), []),
        (("regions", 0), None),
        (("regions",), ROW["regions"] * 2),
        (("regions", 0, "class"), "b"),
        (("regions", 0, "segmentation"), None),
        (("regions", 0, "segmentation", "counts"), None),
        (("regions", 0, "segmentation", "counts"), "é"),
        (("regions", 0, "segmentation", "size"), [2**31 - 1] * 2),
        (INSTANCE, None),
        ((*INSTANCE, "class"), None),
        ((*INSTANCE, "bbox"), None),
        ((*INSTANCE, "bbox"), [0, 0, 4]),
        ((*INSTANCE, "bbox"), [0, 0, 0, 0]),
        ((*INSTANCE, "bbox"), [0, 0, 6, 4]),
        ((*INSTANCE, "bbox"), [-5, -4, 4, 4]),
        ((*INSTANCE, "score"), None),
        ((*INSTANCE, "score"), 2.0),
        ((*INSTANCE, "segmentation"), None),
    ],
)
def test_results_with(tmp_path, place, value):
    with pytest.raises(DataError, match=r"part-1.parquet") as caught:
        results(tmp_path, ROW, within(ROW, place, value) | ({} if place == ("name",) else {"name": "y.png"}))
    assert place == ("name",) or "y.png" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "about",
    [b"", b"\xff", b"[" * 9999, b"[]", b"{}", b'{"format":"fewseg-parquet-1"}']
    + [b'{"format":"fewseg-parquet-1","classes":%s}' % text for text in (b"1", b"[]", b"[1]", b'["a","a"]')],
)
def test_results_with_other_facts_of_the_file(tmp_path, about):
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=r"part-1.parquet"):
        results(tmp_path, ROW, schema=parquet._schema(("a",)).with_metadata({"fewseg": about}))


def test_results_with_other_columns(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    schema = parquet._schema(("a",))
    for k, kind in (
        (0, pyarrow.binary()),
        (1, pyarrow.int64()),
        (2, pyarrow.float64()),
        (8, pyarrow.binary()),
    ):
        with pytest.raises(DataError, match=r"part-1.parquet is a broken file of predictions \(it has other"):
            results(tmp_path, schema=schema.set(k, pyarrow.field(schema[k].name, kind)))
    with pytest.raises(DataError, match=r"it has other columns"):
        results(tmp_path, schema=schema.remove(6))


def read(folder):
    """Reads results in both ways; the first error, if any."""
    for way in (parquet.read_parquet, lambda place: parquet.read_columns(place, ["name", "problem"])):
        try:
            list(way(str(folder)))
        except DataError as error:
            return str(error)
    return ""


def test_results_that_would_fill_the_memory(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as arrow

    things = [within(THINGS, ("segmentation", "counts"), "0" * 10**6)] * 100
    before = pyarrow.total_allocated_bytes()
    with pytest.raises(DataError, match=r"part-1.parquet, x: the RLE"):
        results(tmp_path, ROW | {"instances": things})  # 100 MB of masks in 30 kB
    assert pyarrow.total_allocated_bytes() - before < 10**7
    schema = parquet._schema(("a",))
    nulls = [pyarrow.nulls(1_600_000, field.type) for field in schema]
    arrow.write_table(pyarrow.Table.from_arrays(nulls, schema=schema), tmp_path / "part-1.parquet")
    assert "part-1.parquet is a broken file of predictions (its column name unpacks to 1600000" in read(
        tmp_path
    )
    monkeypatch.setattr(parquet, "MOST_PIXELS", 100)
    assert results(tmp_path, ROW | {"instances": [THINGS] * 6})
    with pytest.raises(DataError, match=r"its instances have boxes of more than 100 pixels"):
        results(tmp_path, ROW | {"instances": [THINGS] * 7})
    with pytest.raises(DataError, match=r"or too long"):
        results(tmp_path, ROW | {"instances": [THINGS, *things]})


def test_results_that_were_damaged(tmp_path):
    results(tmp_path, ROW, ROW | {"name": "y"})
    content = (tmp_path / "part-1.parquet").read_bytes()
    found = set()
    for k in range(0, len(content), 97):
        (tmp_path / "part-1.parquet").write_bytes(content[:k] + b"\xff\xff" + content[k + 2 :])
        found.add("part-1.parquet" in read(tmp_path) or read(tmp_path))
    assert found <= {True, ""}
    assert True in found


def test_results_whose_columns_contradict_each_other(tmp_path):
    results(tmp_path, ROW)
    content = (tmp_path / "part-1.parquet").read_bytes()
    field = b"%c\x02\x18\x06counts"  # in the footer: the repetition and the name of a column
    assert content.count(field % 0x25) == 2  # of regions and of instances
    (tmp_path / "part-1.parquet").write_bytes(content.replace(field % 0x25, field % 0x24))
    with pytest.raises(DataError, match=r"part-1.parquet is a broken file .*histogram size mismatch"):
        list(parquet.read_parquet(str(tmp_path)))
