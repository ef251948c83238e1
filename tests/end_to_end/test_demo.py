"""The whole demo at toy size: it runs, it repeats itself to the digit, and its report stands alone."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from fewseg.backbones import ResNetShape
from fewseg.data.synthetic import synthetic_5i
from fewseg.demo import DemoOptions, PretrainConfig, rich_table, run_demo
from fewseg.demo.report import warning
from fewseg.demo.run import differences, read_fold
from fewseg.engine.checkpoint import load_checkpoint
from result_files import make_counts, make_result
from site_page import Page

TINY = DemoOptions(
    minutes=0,
    fold=1,
    size=65,
    train_images=40,
    test_images=100,
    shape=ResNetShape(layers=(1, 1, 1, 1), channels=(8, 16, 16, 16), stem_width=8),
    pretrain=PretrainConfig(steps=4, batch=4),
    width=8,
    steps=3,
    batch=2,
    episodes=40,
    test_seeds=(0,),
    shots=2,
    threads=1,
    progress=False,
)
ROWS = [
    ("demo_untrained", 1, "average"),
    ("demo_matcher", 1, "mean"),
    ("demo_matcher", 2, "mean"),
    ("demo_pfenet", 1, "mean"),
    ("demo_pfenet", 2, "mean"),
    ("demo_scl", 1, "average"),
    ("demo_scl", 2, "average"),
    ("demo_scl", 2, "cross-guided"),
]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    (out / "notes.txt").write_text("mine")
    (out / "demo-results").mkdir()
    (out / "demo-results" / "old.json").write_text("{}")
    return out, run_demo(replace(TINY, out=out))


def scores(result):
    return [(r.miou_mean, r.fb_iou_mean, dict(r.per_class_mean)) for r in result.results]


def test_every_line_of_the_table_is_measured_on_unseen_classes(done):
    _, result = done
    assert [(r.recipe, r.shots, r.fusion) for r in result.results] == ROWS
    split = synthetic_5i(1)
    for r in result.results:
        assert r.classes == list(split.novel) == [6, 7, 8, 9, 10]
        assert (r.fold, r.dataset, r.seeds[0].episodes) == (1, "synthetic-5i", 40)
        assert 0 <= r.miou_mean < 0.6
    assert len({r.protocol_digest for r in result.results}) == 1


def test_unseen_classes_are_in_no_training_picture_but_in_test_pictures(tmp_path):
    data = read_fold(TINY, tmp_path)
    novel = set(data.split.novel)
    assert not any(novel & set(data.train.classes_in(id)) for id in data.train.ids)
    assert all(data.test.images_of(c, TINY.protocol.min_area) for c in data.split.class_names)
    assert (len(data.train), len(data.test)) == (40, 100)


def test_the_same_config_gives_the_same_numbers(done, tmp_path):
    _, first = done
    torch.rand(3)
    again = run_demo(replace(TINY, out=tmp_path))
    assert scores(again) == scores(first)
    other = run_demo(replace(TINY, out=tmp_path, seed=1, episodes=39))
    assert scores(other) != scores(first)


def test_the_folder_holds_report_results_and_checkpoints_and_no_cache(done):
    out, result = done
    assert sorted(p.name for p in out.iterdir()) == ["demo-results", "notes.txt", "report.html"]
    assert result.report == out / "report.html"
    stored = {p.name for p in (out / "demo-results").glob("*.json")}
    assert stored == {f"{recipe}-{shots}shot-{fusion}.json" for recipe, shots, fusion in ROWS}
    saved = json.loads((out / "demo-results" / "demo_scl-1shot-average.json").read_text())
    assert saved["miou_mean"] == result.results[5].miou_mean
    method, about = load_checkpoint(out / "demo-results" / "demo_scl" / "best.safetensors")
    assert about.class_split["novel"] == [6, 7, 8, 9, 10]
    assert about.training["step"] == 3
    assert not method.training


def test_times_are_measured_by_stage_and_the_terminal_table_has_every_line(done):
    _, result = done
    stages = ["rendering", "backbone", "testing", "training pfenet", "training scl", "pictures"]
    assert list(result.seconds) == stages
    assert all(s > 0 for s in result.seconds.values())
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(rich_table(result.results))
    text = console.export_text()
    for name in ("untrained network", "prototype matching", "PFENet", "SCL", "cross-guided"):
        assert name in text
    assert f"{100 * result.results[-1].miou_mean:.1f} [" in text


def test_the_report_stands_alone_and_shows_pictures_scores_and_how_it_was_made(done):
    out, result = done
    text = (out / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|https?://", text)
    assert str(out.parent) not in text, "a folder of this machine"
    report = Page(text)
    (words,) = (body["text"] for body in report.all("body"))
    images = report.all("img")
    assert len(images) == 2 * 5 * 6 + 20
    assert all(image["alt"] and image["src"].startswith("data:image/png;base64,") for image in images)
    for r in result.results:
        assert f"{100 * r.miou_mean:.1f} [" in words
    for name in ("crescent", "cross", "droplet", "fish", "flower"):
        assert f"Find the {name}" in words
    for part in ("torch 2", "Wall time on", '"train_images": 40', "training scl", warning(result.results)):
        assert part in words, part
    one_shot = [r for r in result.results if r.shots == 1][2:]
    heads = [
        f"{x} with a mean IoU of {100 * r.miou_mean:.1f} %"
        for x, r in zip(("PFENet", "SCL"), one_shot, strict=True)
    ]
    assert " and ".join(heads) in words
    learned = all(r.miou_mean > 0 for r in result.results)
    assert not learned or "SCL over PFENet, 1 shot" in words


def test_a_method_that_finds_nothing_is_named_and_compared_with_nothing():
    found, nothing = make_counts(), empty(make_counts())
    pfenet, scl = make_result(nothing, recipe="demo_pfenet"), make_result(found, recipe="demo_scl")
    assert warning([pfenet, pfenet, scl]).startswith("PFENet found no object: the training was too short")
    assert warning([scl]) == ""
    assert rich_table([pfenet, scl]).caption.endswith(warning([pfenet]))
    counts = {"demo_pfenet-1shot-mean": nothing, "demo_scl-1shot-average": found}
    counts |= {"demo_scl-2shot-average": found, "demo_scl-2shot-cross-guided": found}
    assert list(differences(2, scl.classes, counts)) == ["SCL, 2 shots, cross-guided over average"]
    counts["demo_pfenet-1shot-mean"] = found
    assert len(differences(2, scl.classes, counts)) == 2


def empty(counts):
    """The same episodes where nothing is marked."""
    pred = np.zeros_like(counts.fg_pred)
    pixels = counts.fg_union + counts.bg_inter
    return replace(
        counts,
        fg_inter=pred,
        fg_union=counts.fg_true,
        bg_inter=pixels - counts.fg_true,
        bg_union=pixels,
        fg_pred=pred,
    )
