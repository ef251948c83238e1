"""``fewseg label`` as a user runs it, mistakes included, on a tiny network."""

import base64
import io
import json
import logging
import os
import re
import shutil
from weakref import WeakSet

import numpy as np
import pytest
import torch
from PIL import Image

from fewseg.annotations.formats import read_supports
from fewseg.annotations.jsonl import read_jsonl
from fewseg.annotations.values import Prediction
from fewseg.cli import main
from fewseg.inference import Segmenter, advice, folder_run, model, outputs, segmenter
from fewseg.inference.advice import verdict
from fewseg.inference.find import find_images
from fewseg.inference.folder_run import CHOICE, run_record
from fewseg.inference.model import Model
from fewseg.ops.files import folder_alone
from fewseg.types import DataError
from small_segmenters import SIZE, picture, tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def place(tmp_path):
    """Supports of one class and five photographs, two of them of one name in two folders."""
    for k in range(2):
        write(tmp_path / f"sup/images/{k}.png", picture(k)[0])
        write(tmp_path / f"sup/masks/{k}.png", picture(k)[1])
    for k, name in enumerate(["a.png", "b c é.png", "one/same.png", "two/same.png", "two/deep/d.jpg"]):
        write(tmp_path / "photos" / name, picture(10 + k, hw=(40 + k, 60))[0])
    return tmp_path


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def run(place, checkpoint, capfd, caplog):
    """Runs the command; gives its exit status and all it text, in one line."""

    def call(*words, support="sup", images=("photos",), out="out"):
        given = ["label", "--support", place / support, "--out", place / out, "--model", checkpoint]
        given += ["--size", SIZE, "--images", *(place / i for i in images), "--quiet", *words]
        status = main([str(word) for word in given])
        text = capfd.readouterr()
        warned = " ".join(record.getMessage() for record in caplog.records)
        caplog.clear()
        return status, re.sub(r"\s+", " ", text.out + text.err + warned)

    return call


def lines(place, out="out"):
    return {p.name: p for p in read_jsonl(place / out / "predictions.jsonl")}


NAMES = ["a.png", "b c é.png", "one/same.png", "two/deep/d.jpg", "two/same.png"]


def test_a_folder_is_labelled_as_the_segmenter_does(place, run, checkpoint):
    status, text = run("--class-name", "square")
    assert status == 0, text
    assert "labelled: 5; skipped: 0" in text
    found = lines(place)
    assert list(found) == NAMES
    it = Segmenter.from_checkpoint(checkpoint, size=SIZE)
    it.add_class("square", [place / f"sup/images/{k}.png" for k in (0, 1)], [picture(k)[1] for k in (0, 1)])
    for name, line in found.items():
        own = it.segment(place / "photos" / name)
        assert (line.labels == own.labels).all()
        assert line.facts["quality"] == pytest.approx(own.quality.score, abs=1e-5)
        stored = np.array(Image.open(place / "out/masks" / (name.rsplit(".", 1)[0] + ".png")))
        assert (stored == own.labels).all()
    assert (place / "out/masks/classes.txt").read_text() == "background\nsquare\n"


def test_classes_keep_the_order_of_their_list_and_those_of_no_image_are_named(place, run):
    for k, (first, second) in enumerate([(0, 3), (1, 3)]):  # the first image shows the last class alone
        mask = first * picture(k)[1]
        mask[:4, :4] = second
        write(place / f"sup/masks/{k}.png", mask.astype(np.uint8))
    (place / "sup/classes.txt").write_text("square\nnowhere\ncorner\n")
    status, text = run("--format", "png", "yolo")
    assert status == 0, text
    assert "lists classes that no image shows: nowhere; the others are numbered in the order of" in text
    assert (place / "out/masks/classes.txt").read_text() == "background\nsquare\ncorner\n"
    assert all(line.classes == ("square", "corner") for line in lines(place).values())


def test_a_second_run_does_what_is_missing_and_nothing_else(place, run, monkeypatch):
    assert run()[0] == 0
    before = {f: f.stat().st_mtime_ns for f in (place / "out/masks").rglob("*.png")}
    write(place / "photos/new.png", picture(30)[0])
    (place / "out/masks/a.png").unlink()
    read = []
    step = folder_run.read_image
    monkeypatch.setattr(
        folder_run, "read_image", lambda path, *rest: read.append(path.name) or step(path, *rest)
    )
    status, text = run()
    assert status == 0
    assert "labelled: 2, 4 were labelled before" in text
    assert sorted(read) == ["a.png", "new.png"]
    after = {f: f.stat().st_mtime_ns for f in (place / "out/masks").rglob("*.png")}
    assert {f for f in before if before[f] == after[f]} == set(before) - {place / "out/masks/a.png"}
    assert len(lines(place)) == 6


def test_another_support_model_or_threshold_does_not_mix_with_an_earlier_run(place, run):
    assert run()[0] == 0
    for words, what in ((["--threshold", "0.6"], "threshold"), (["--size", "73"], "model")):
        status, text = run(*words)
        assert status == 1
        assert f"holds a run with a different {what}" in text
    write(place / "sup/images/2.png", picture(2)[0])
    write(place / "sup/masks/2.png", picture(2)[1])
    assert "holds a run with a different shots, supports" in run()[1]


def test_a_killed_run_goes_on(place, run, monkeypatch):
    step = folder_run.write_thumbnail

    def dies(folder, name, *rest):
        if name >= "one":
            raise KeyboardInterrupt
        step(folder, name, *rest)

    monkeypatch.setattr(folder_run, "write_thumbnail", dies)

    status, text = run("--format", "coco")
    assert status == 130
    assert "the same command does what is missing" in text
    assert not (place / "out/coco.json").exists()
    monkeypatch.setattr(folder_run, "write_thumbnail", step)
    status, text = run("--format", "coco")
    assert "labelled: 3, 2 were labelled before" in text
    assert len(json.loads((place / "out/coco.json").read_bytes())["images"]) == 5


def test_a_full_disk_ends_the_run_with_whole_files(place, run, monkeypatch):
    import fewseg.annotations.mask_files as png

    write_bytes = png.atomic_write_bytes

    def full(path, data):
        if path.name == "same.png":
            raise OSError(28, f"could not write {path}: No space left on device")
        write_bytes(path, data)

    monkeypatch.setattr(png, "atomic_write_bytes", full)
    status, text = run()
    assert status == 1
    assert "No space left" in text
    assert set(lines(place)) == {"a.png", "b c é.png"}
    assert not list((place / "out/masks").rglob(".*"))
    monkeypatch.setattr(png, "atomic_write_bytes", write_bytes)
    assert run()[0] == 0
    assert list(lines(place)) == NAMES


FORMATS = ["png", "probability", "coco", "coco-results", "labelme", "label-studio", "jsonl"]


def test_all_formats_at_once_and_each_read_back_as_supports(place, run):
    assert run("--format", *FORMATS, "--class-name", "square")[0] == 0
    out, found = place / "out", lines(place)
    assert len(json.loads((out / "coco-results.json").read_bytes())) <= 5
    probability = np.array(Image.open(out / "probability/one/same.square.png"))
    assert ((probability > 128) <= (found["one/same.png"].labels == 1)).mean() > 0.99
    from fewseg.annotations.options import ReadOptions

    options = ReadOptions(images=place / "photos", predictions=True)
    for source in ("coco.json", "masks", "labelme/a.json"):
        for item in read_supports(out / source, options):
            name = item.image.relative_to(place / "photos").as_posix()
            mask = item.masks.get("square", np.zeros(item.size, np.uint8))
            assert (mask == (found[name].labels == 1)).all(), (source, name)


def test_outputs_below_the_images_are_not_labelled_in_turn(place, run):
    for _ in range(2):
        assert run(out="photos/labels")[0] == 0
        assert list(lines(place, "photos/labels")) == NAMES


def test_bad_images_are_reported_and_skipped_and_the_status_says_so(place, run):
    (place / "photos/bad.tif").write_bytes((place / "photos/a.png").read_bytes()[:200])
    (place / "photos/phone.HEIC").write_bytes(b"ftypheic")
    (place / "photos/link.png").symlink_to(place / "nowhere.png")
    Image.fromarray(picture(11)[0]).save(place / "photos/moving.gif")
    status, text = run()
    assert status == 3
    assert "cannot be read" in text
    assert "phone.HEIC cannot be read" in text
    assert "link.png" in text
    assert "labelled: 6; skipped: 3" in text
    assert sorted(lines(place)) == sorted([*NAMES, "moving.gif"])
    assert "bad.tif" in (place / "out/contact-sheet.html").read_text()
    assert run()[0] == 3  # they are still there, and still bad


def test_names_that_file_systems_part_with_are_reported(place, run):
    write(place / "photos/back\\slash.png", picture(3)[0])
    raw = os.fsencode(place / "photos") + b"/\xff.png"
    shutil.copy(place / "photos/a.png", raw)
    status, text = run()
    assert status == 3
    assert "back" in text
    assert "not UTF-8" in text
    assert "labelled: 5; skipped: 2" in text


@pytest.mark.parametrize(
    ("form", "fits", "too_long"),
    [
        ("png", "f" * 251, "?" * 84),  # beside .png; each ? becomes %3F
        ("labelme", "f" * 250, "t" * 251),
        ("probability", "f" * 244, "t" * 245),  # beside .object.png
    ],
)
def test_a_name_that_leaves_no_room_for_an_output_is_reported_and_skipped(place, run, form, fits, too_long):
    for name in (fits, too_long):
        write(place / "photos" / f"{name}.jpg", picture(3)[0])
    status, text = run("--format", form)
    assert status == 3, text
    assert "255 are possible: rename the file" in text
    assert "labelled: 6; skipped: 1" in text
    assert lines(place).keys() == {*NAMES, f"{fits}.jpg"}


def test_shapes_of_labelme_of_another_kind_do_not_mix(place, run):
    assert run("--format", "labelme")[0] == 0
    status, text = run("--format", "labelme-polygons")
    assert (status, "a different shapes of labelme" in text) == (1, True)
    assert run("--format", "png")[0] == 0
    assert run("--format", "labelme-polygons")[0] == 1
    assert run("--format", "labelme", "png")[0] == 0


@pytest.fixture
def no_model(monkeypatch):
    """Fails the test where a model is loaded."""
    monkeypatch.setattr(segmenter, "load_model", lambda *_: pytest.fail("a model was loaded"))


@pytest.mark.usefixtures("no_model")
def test_an_output_that_cannot_be_written_is_reported_before_the_model_is_loaded(place, run):
    (place / "file").write_text("x")
    for out in ("file", "file/below"):
        status, text = run(out=out)
        assert status == 1
        assert re.search(r"fewseg: could not write .*file is a file; choose another output folder", text)
    status, text = run("--save-support", place / "photos")
    assert status == 1
    assert "photos: it is a folder; give the name of a file in it" in text
    assert not (place / "out").exists()


def test_an_export_into_a_file_is_reported_before_the_model_is_loaded(place, no_model, capfd):
    (place / "file").write_text("x")
    assert main(["export", "--support", str(place / "sup"), "--out", str(place / "file")]) == 1
    assert "file is a file; choose another output folder" in " ".join(capfd.readouterr().err.split())


JSON = {
    "broken": "{",
    "coco without categories": '{"images": [], "annotations": []}',
    "labelme": '{"shapes": 3, "imagePath": "a.png"}',
    "nested deeply": "[" * 100_000,
    "coco that marks nothing": '{"images": [{"id": 1, "file_name": "photos/a.png", "width": 60, "height": 4}]'
    ', "annotations": [], "categories": [{"id": 1, "name": "x"}]}',
    "labelme that marks nothing": '{"shapes": [], "imagePath": "photos/a.png", "imageData": null}',
    "label studio": '[{"data": {"image": "a.png"}, "annotations": [{"result": 3}]}]',
}


@pytest.mark.parametrize("text", JSON.values(), ids=JSON.keys())
def test_malformed_json_is_reported_in_a_line_and_nothing_is_written(place, run, text):
    (place / "sup.json").write_text(text)
    status, text = run(support="sup.json")
    assert status == 1
    assert "sup.json" in text
    assert "Traceback" not in text
    assert "add_class" not in text  # that is Python's
    assert not (place / "out").exists()


def test_a_pattern_and_files_name_images_from_their_common_folder(place, run):
    assert run(images=("photos/**/*.png",), out="x")[0] == 0
    assert list(lines(place, "x")) == [name for name in NAMES if name.endswith("png")]
    assert run(images=("photos/one/same.png", "photos/two/same.png"), out="y")[0] == 0
    assert list(lines(place, "y")) == ["one/same.png", "two/same.png"]


def test_hidden_files_are_no_images(place):
    write(place / "photos/.cache/x.png", picture(0)[0])
    assert list(find_images([place / "photos"])) == NAMES


def test_supports_can_be_kept_and_used_again(place, run):
    assert run("--save-support", place / "kept.safetensors")[0] == 0
    status, text = run(support="kept.safetensors", out="again")
    assert status == 0, text
    first, second = lines(place), lines(place, "again")
    assert all((first[name].labels == second[name].labels).all() for name in NAMES)
    assert run(support="kept.safetensors")[0] == 0  # the same run: it goes on
    status, text = run("--size", "73", support="kept.safetensors", out="third")
    assert status == 1
    assert "was encoded by the model" in text


def test_the_contact_sheet_begins_with_the_lowest_quality(place, run):
    assert run()[0] == 0
    found = sorted(lines(place).values(), key=lambda p: p.facts["quality"])
    html = (place / "out/contact-sheet.html").read_text()
    at = [html.index(f"</strong>{p.name}") for p in found]
    assert at == sorted(at)
    assert html.count("data:image/jpeg") == html.count("data:image/png") == 5
    assert "http" not in html.replace("http-equiv", "")
    assert run("--sheet", "2")[0] == 0
    assert (place / "out/contact-sheet.html").read_text().count("data:image/jpeg") == 2


def test_the_contact_sheet_of_many_images_keeps_the_facts_of_those_it_shows_alone(tmp_path, monkeypatch):
    class Facts(dict):
        """Facts that can be counted."""

        __hash__ = object.__hash__

    kept, most, labels = WeakSet(), 0, np.zeros((2, 2), np.uint8)

    def many(path):
        nonlocal most
        for k in range(500):
            facts = Facts(quality=(k * 7 % 500 // 10) / 50)  # each value ten times
            kept.add(facts)
            most = max(most, len(kept))
            yield Prediction(name=f"{k:03}.png", labels=labels, classes=("a",), scores=(1.0,), facts=facts)

    monkeypatch.setattr(outputs, "read_jsonl", many)
    outputs.write_sheet(tmp_path, {}, 15)
    assert most < 20
    html = (tmp_path / "contact-sheet.html").read_text()
    ranked = sorted(range(500), key=lambda k: k * 7 % 500 // 10)[:15]  # equal ones as they came
    assert re.findall(r"</strong>(\d+)\.png", html) == [f"{k:03}" for k in ranked]
    assert "500 images, lowest quality first. The 485 with the highest are left out." in html


def test_the_contact_sheet_tells_the_colours_of_the_classes(place, run):
    for k, name in enumerate(["rust", "moss"]):
        write(place / f"two/{name}/images/{k}.png", picture(k)[0])
        write(place / f"two/{name}/masks/{k}.png", picture(k)[1])
    assert run(support="two")[0] == 0
    html = (place / "out/contact-sheet.html").read_text()
    legend = re.search(r'<ul class="legend" aria-label="Colours of the classes">(.*?)</ul>', html, re.S)[1]
    assert re.findall(r"background:(#\w+)\"></i>([^<]+)</li>", legend) == [
        ("#56b4e9", "moss"),
        ("#e69f00", "rust"),
    ]


def test_masks_on_the_contact_sheet_are_apart_from_their_pictures(place, run):
    assert run("--sheet", "1")[0] == 0
    worst = min(lines(place).values(), key=lambda p: p.facts["quality"])
    html = (place / "out/contact-sheet.html").read_text()
    (shown,) = re.findall(r'data:image/png;base64,([^"]+)"', html)
    found = np.array(Image.open(io.BytesIO(base64.b64decode(shown))).convert("RGBA"))
    np.testing.assert_array_equal(found[..., 3] > 0, worst.labels > 0)
    assert found[worst.labels == 1][0].tolist() == [0x56, 0xB4, 0xE9, 255]
    assert f'<figure data-verdict="{verdict(worst.facts["quality"])}">' in html


def test_hostile_names_do_not_become_markup(place, run):
    write(place / "photos/<img src=x onerror=alert(1)>.png", picture(3)[0])
    assert run("--class-name", "<img src=x>")[0] == 0
    assert "<img src=x" not in (place / "out/contact-sheet.html").read_text()


def test_batches_and_tiles_give_what_single_images_give(place, run, monkeypatch):
    seen, encode = [], Model.encode
    monkeypatch.setattr(Model, "encode", lambda self, images: seen.extend(images) or encode(self, images))
    assert run(out="one")[0] == 0
    assert len(seen) == len({image.digest for image in seen}) == 2 + 5  # each image once
    assert run("--batch", "3", "--no-quality", "--sheet", "0", out="three")[0] == 0
    one, three = lines(place, "one"), lines(place, "three")
    assert all((one[name].labels == three[name].labels).mean() > 0.999 for name in NAMES)
    assert "quality" not in three["a.png"].facts
    assert not (place / "three/contact-sheet.html").exists()
    assert run("--tiles", "40", "--overlap", "0.3", out="tiles")[0] == 0
    assert list(lines(place, "tiles")) == NAMES


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tiles", "0"], "at least 1 pixel"),
        (["--size", "8"], "33 pixels or more"),
        (["--fusion", "average"], "cannot use the fusion"),
        (["--stroke", "-4"], "stroke must be a width above 0 pixels, got -4.0"),
        (["--stroke", "nan"], "got nan"),
        (["--sheet", "-1"], "sheet must be a number of images, 0 for no contact sheet, got -1"),
        (["--max-pixels", "0"], "max_pixels must be 1 or more, got 0"),
    ],
)
def test_numbers_out_of_range_are_reported_and_nothing_is_written(place, run, words, message):
    status, text = run(*words)
    assert status == 1
    assert message in text
    assert not (place / "out").exists()


def test_an_image_that_memory_does_not_suffice_for_is_reported_and_skipped(place, run, monkeypatch):
    encode = Model.encode

    def short_of_memory(self, images):
        large = any(image.size == (42, 60) for image in images)
        self.extract = (lambda views: torch.empty(1 << 55)) if large else self.method.extract
        return encode(self, images)

    monkeypatch.setattr(Model, "encode", short_of_memory)
    status, text = run("--batch", "2")
    assert status == 3, text
    assert "one/same.png: there is not enough memory for this image: lower --batch" in text
    assert list(lines(place)) == [name for name in NAMES if name != "one/same.png"]


@pytest.mark.usefixtures("no_model")
def test_an_output_of_json_lines_given_as_support_is_reported_as_such(place, run):
    (place / "predictions.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    status, text = run(support="predictions.jsonl")
    assert status == 1
    assert "predictions.jsonl has JSON lines, which are an output alone; expected a folder" in text
    assert "cut off" not in text


def test_without_a_terminal_progress_is_reported_in_lines(place, run, capfd, checkpoint):
    assert "label: " not in run(out="quiet")[1]
    words = ["--support", place / "sup", "--images", place / "photos", "--out", place / "out"]
    assert main(["label", *map(str, words), "--model", str(checkpoint), "--size", str(SIZE)]) == 0
    text = capfd.readouterr()
    assert "label: 5 of 5" in text.err
    assert "label: 5" not in text.out


def test_two_runs_into_one_folder_at_a_time_are_refused(place, run):
    (place / "out").mkdir()
    with folder_alone(place / "out"):
        status, text = run()
    assert status == 1
    assert "another process labels into" in text
    assert not list((place / "out").iterdir())
    assert run()[0] == 0


def labelme(place, *shapes):
    (place / "drawn").mkdir(exist_ok=True)
    write(place / "drawn/0.png", picture(0)[0])
    shapes = [{"label": n, "shape_type": "linestrip", "points": points} for n, points in shapes]
    height, width = picture(0)[0].shape[:2]
    value = {"imagePath": "0.png", "imageHeight": height, "imageWidth": width, "shapes": shapes}
    (place / "drawn/0.json").write_text(json.dumps(value))


def test_a_scribble_needs_to_be_reported_what_is_background(place, run):
    inside = [[40, 30], [44, 34]]
    labelme(place, ("square", inside))
    status, text = run(support="drawn/0.json")
    assert status == 1
    assert "no pixel of the examples is known to be background" in text
    assert "draw a stroke labelled 'background', or add an image without square" in text
    labelme(place, ("square", inside), ("background", [[2, 2], [60, 2]]))
    status, text = run(support="drawn/0.json")
    assert status == 0, text
    assert all(0 < (line.labels == 1).mean() < 1 for line in lines(place).values())


def test_an_empty_place_is_not_the_present_folder(place, monkeypatch):
    monkeypatch.chdir(place)
    with pytest.raises(DataError, match="an empty place is given"):
        find_images([""])
    assert len(find_images(["."])) == 9


def test_a_folder_is_labelled_in_bf16_and_does_not_mix_with_a_run_in_fp32(place, run):
    assert run("--precision", "bf16")[0] == 0
    low = {name: line.labels for name, line in lines(place).items()}
    status, text = run("--precision", "fp32")
    assert status == 1, text
    assert "a different model, precision;" in text
    assert run("--precision", "fp32", out="exact")[0] == 0
    for name, line in lines(place, "exact").items():
        assert (line.labels == low[name]).mean() > 0.9
    status, text = run("--precision", "bf16", "--backend", "onnx", out="more")
    assert status == 1
    assert "--precision bf16 is for torch" in text


@pytest.mark.parametrize(("fast", "slow"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_the_precision_is_what_the_machine_has_or_what_saved_supports_were_encoded_in(
    place, run, monkeypatch, fast, slow
):
    def precision(out):
        return json.loads((place / out / "run.json").read_text())["precision"]

    monkeypatch.setattr(model, "precision_on", lambda device: fast)
    status, text = run("--save-support", place / "own.safetensors")
    assert status == 0, text
    assert precision("out") == fast
    monkeypatch.setattr(model, "precision_on", lambda device: slow)
    status, text = run(support="own.safetensors")
    assert (status, precision("out")) == (0, fast), text
    assert run(out="other")[0] == 0
    assert precision("other") == slow
    status, text = run("--precision", slow, support="own.safetensors", out="third")
    assert status == 1
    assert f"tiny.safetensors, {fast}), this one is" in text


def test_a_run_from_before_its_precision_was_recorded_continues(place, run):
    assert run()[0] == 0
    facts = json.loads((place / "out/run.json").read_text())
    del facts["precision"]
    (place / "out/run.json").write_text(json.dumps(facts))
    status, text = run()
    assert status == 0, text
    assert "labelled: 0, 5 were labelled before" in text


def test_the_end_states_how_good_each_class_seems_and_what_to_annotate_next(place, run, monkeypatch):
    monkeypatch.setattr(advice, "_LOW", 0.99)
    status, text = run("--class-name", "square")
    assert status == 0
    own = [p.facts["parts"]["square"]["score"] for p in lines(place).values() if (p.labels == 1).any()]
    assert f"square: mean quality {np.mean(own):.2f} on {len(own)} images" in text
    proposed = re.search("the least certain: (.*) or try --model auto", text)[1].split(", ")
    assert len(set(proposed)) == 3
    assert set(proposed) <= set(NAMES)
    _, again = run("--class-name", "square")
    assert "mean quality" not in again  # nothing was labelled now
    assert "quality" not in run("--class-name", "square", "--no-quality", out="other")[1]


def test_16_bit_images_are_scaled_by_the_supports_or_by_a_fixed_range(place, run, caplog):
    caplog.set_level(logging.INFO)

    def deepen(folder):
        for file in [f for f in (place / folder).rglob("*") if f.suffix in (".png", ".jpg")]:
            write(file.with_suffix(".tif"), np.array(Image.open(file).convert("L")).astype(np.uint16) * 11)
            file.unlink()

    deepen("sup/images")
    deepen("photos")
    status, text = run("--format", "png")
    assert status == 0, text
    assert "0 .. 255 in all of them" in text
    low, high = json.loads((place / "out/run.json").read_text())["value_range"]
    assert 0 <= low < high < 3000
    status, text = run("--format", "png", "--value-range", "0", "2805")
    assert status == 1
    assert "different supports, value_range" in text
    status, text = run("--format", "png", "--value-range", "0", "2805", out="fixed")
    assert status == 0, text
    assert "percentiles" not in text
    assert json.loads((place / "fixed/run.json").read_text())["value_range"] == [0, 2805]
    status, text = run("--value-range", "9", "1", out="other")
    assert (status, "the lower one first, got 9 and 1" in text) == (1, True)


def test_16_bit_photographs_beside_8_bit_examples_are_scaled_by_their_own_values(place, run):
    for file in list((place / "photos").rglob("*.*")):
        write(file.with_suffix(".tif"), np.array(Image.open(file).convert("L")).astype(np.uint16) * 11)
        file.unlink()
    assert run("--format", "png")[0] == 0
    values = [np.array(Image.open(file)).ravel() for file in sorted((place / "photos").rglob("*.tif"))]
    known = json.loads((place / "out/run.json").read_text())["value_range"]
    assert known == pytest.approx(np.percentile(np.concatenate(values), [0.1, 99.9]))
    fixed = run("--format", "png", "--value-range", *map(str, known), out="fixed")
    assert fixed[0] == 0, fixed
    for file in (place / "fixed").rglob("*.png"):
        assert file.read_bytes() == (place / "out" / file.relative_to(place / "fixed")).read_bytes()
    write(place / "photos/later.tif", np.full((40, 60), 60_000, np.uint16))
    status, text = run("--format", "png")  # a run goes on with its range
    assert status == 0, text
    assert json.loads((place / "out/run.json").read_text())["value_range"] == known


def test_a_run_goes_on_where_the_supports_have_chosen_differently():
    before = run_record("out", None, {"model": "m", CHOICE: {"name": "a"}})
    after = run_record("out", before.encode(), {"model": "m", CHOICE: {"name": "b"}})
    assert json.loads(after) == {"model": "m", CHOICE: {"name": "b"}}


def test_annotated_images_whose_features_would_fill_the_memory_are_sampled_with_a_note(
    place, run, monkeypatch
):
    for k in range(2, 7):
        write(place / f"sup/images/{k}.png", picture(k)[0])
        write(place / f"sup/masks/{k}.png", picture(k)[1])
    monkeypatch.setattr(segmenter, "MOST_IMAGES", 4)
    status, text = run(out="all")
    assert (status, "annotated images are taken" in text) == (0, False)
    assert json.loads((place / "all/run.json").read_text())["shots"] == {"object": 7}
    monkeypatch.setattr(segmenter, "_SUPPORT_BYTES", 20_000)
    status, text = run(out="few")
    assert status == 0, text
    (shots,) = json.loads((place / "few/run.json").read_text())["shots"].values()
    assert 1 <= shots < 7
    assert f"{shots} of the 7 annotated images are taken, evenly spaced: the features of all would" in text
    monkeypatch.setattr(segmenter, "MOST_IMAGES", 7)
    status, text = run(out="views")
    assert (status, "annotated images are taken" in text) == (0, False)
    status, text = run("--tiles", "25", out="tiles")
    assert status == 0, text
    (of_views,) = json.loads((place / "tiles/run.json").read_text())["shots"].values()
    assert of_views < shots, "an image has several views"


def test_the_one_image_that_shows_a_class_is_taken_and_the_note_counts_those_that_are(
    place, run, monkeypatch
):
    for k in range(7):
        write(place / f"sup/images/{k}.png", picture(k)[0])
        write(place / f"sup/masks/{k}.png", picture(k)[1] * (k == 6))
    monkeypatch.setattr(segmenter, "MOST_IMAGES", 4)
    monkeypatch.setattr(segmenter, "_most_supports", lambda *_: 4)
    status, text = run()
    assert status == 0, text
    assert json.loads((place / "out/run.json").read_text())["shots"] == {"object": 1}
    assert "3 of the 7 annotated images are taken" in text


def test_features_that_are_not_finite_are_reported_of_supports_and_of_single_images(place, run, monkeypatch):
    def broken(self, pixels):
        ready = step_of(self, pixels)
        ready.views[0, 0, 0, 0] = float("nan") if pixels.shape[-2] == broken.height else 0
        return ready

    step_of = Model.prepare
    monkeypatch.setattr(Model, "prepare", broken)
    broken.height = 41  # of "b c é.png"
    status, text = run("--batch", "3")
    assert status == 3, text
    assert "skipped: b c é.png: the features of the image are not finite" in text
    assert [name for name in NAMES if name in lines(place)] == [n for n in NAMES if n != "b c é.png"]
    broken.height = 50  # of the supports
    status, text = run(out="none")
    assert status == 1
    assert "fewseg: the features of the image are not finite" in text
