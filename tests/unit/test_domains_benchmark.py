"""``benchmarks/domains.py`` on sets of rendered squares."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fewseg.inference import Model, choose
from fewseg.inference.choose import candidate_configs
from fewseg.inference.model import Whole
from fewseg.methods.fitted import FittedConfig
from small_segmenters import SIZE, model, picture

FILE = Path(__file__).parents[2] / "benchmarks/domains.py"


@pytest.fixture
def domains(monkeypatch):
    """The benchmark with a tiny network and quick fits."""
    spec = importlib.util.spec_from_file_location("benchmarks_domains", FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "benchmarks_domains", module)
    spec.loader.exec_module(module)

    def small(backbone):
        return {
            kind: [
                (name, replace(own, cells=200, steps=5) if isinstance(own, FittedConfig) else own)
                for name, own in configs
            ]
            for kind, configs in candidate_configs(backbone).items()
        }

    def load(options):
        tiny = model("fitted")
        return Model(tiny.method, tiny.config, options.size, Whole(), "auto", chooses=True)

    monkeypatch.setattr(choose, "candidate_configs", small)
    monkeypatch.setattr(module, "candidate_configs", small)
    monkeypatch.setattr(module, "load_model", load)
    return module


@pytest.fixture
def sets(tmp_path):
    """Two sets of six images; in one a second class is shown on half of them."""
    for name in ("one", "two"):
        for part in ("images", "masks"):
            (tmp_path / "sets" / name / part).mkdir(parents=True)
        for k in range(6):
            image, mask = picture(k, box=(5 + 2 * k, 30 + 2 * k, 8 * k, 8 * k + 30))
            if name == "two" and k % 2:
                mask[40:, :20] = 2
            mask[:2] = 255
            Image.fromarray(image).save(tmp_path / "sets" / name / f"images/{k}.png")
            Image.fromarray(mask).save(tmp_path / "sets" / name / f"masks/{k}.png")
    return tmp_path / "sets"


def test_every_cell_is_measured_once_and_a_second_run_goes_on(domains, sets, tmp_path, capsys):
    out = tmp_path / "lines.jsonl"
    names = ("auto", "matcher")
    work = domains.Work(
        folder=sets,
        shots=(2,),
        draws=1,
        queries=3,
        size=SIZE,
        candidates=names,
        out=out,
        cache=tmp_path / "cache",
    )
    domains.main(work)
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    assert len(lines) == 2 * 3  # sets; auto, and the matcher with and without refined edges
    assert {line["set"] for line in lines} == {"one", "two"}
    assert all(set(line["iou"]) == ({"1", "2"} if line["set"] == "two" else {"1"}) for line in lines)
    auto = [line for line in lines if line["candidate"] == "auto"]
    assert len(auto) == 2
    assert all(line["candidate"] in auto[0]["choice"]["candidates"] for line in lines if line not in auto)
    text = capsys.readouterr().out
    assert "2-shot: mean IoU" in text
    assert "expected IoU of a class against the real one" in text
    out.write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    domains.main(work)
    again = [json.loads(text) for text in out.read_text().splitlines()]
    times = {"fit_s", "image_s", "encode_s"}
    assert [{k: v for k, v in line.items() if k not in times} for line in again] == [
        {k: v for k, v in line.items() if k not in times} for line in lines
    ]


def test_supports_show_each_class_k_times_and_are_not_tested(domains, sets):
    found = domains.domain(sets / "two", domains.load_model(domains.ModelOptions(size=SIZE)), None)
    taken, left = domains.drawn(found, 1, "0")
    assert sorted(taken + left) == list(range(6))
    shown = [{int(v) for v in np.unique(found.masks[i])} & {1, 2} for i in taken]
    assert sum(2 in own for own in shown) == 1
    assert domains.drawn(found, 1, "0") == (taken, left)
    assert {tuple(domains.drawn(found, 1, str(k))[0]) for k in range(9)} != {tuple(taken)}


def test_the_boundary_is_what_an_erosion_takes_off(domains):
    mask = np.zeros((120, 160), bool)
    mask[10:90, :100], mask[50:60, 20:30] = True, False
    reach = round(0.02 * 200)
    inner = ndimage.binary_erosion(mask, np.ones((2 * reach + 1, 2 * reach + 1)))
    np.testing.assert_array_equal(domains.boundary(mask), mask & ~inner)


def test_the_scores_of_a_cell_are_those_by_hand(domains):
    """A square of 5 x 5 pixels found without its middle, and a line of 7 of which 3 are found."""
    masks, labels = np.zeros((2, 2, 7, 7), np.uint8)
    masks[0, 0], masks[0, 1:6, 1:6] = 255, 1
    labels[0, 0], labels[0, 1:6, 1:6], labels[0, 3, 3] = 1, 1, 0
    masks[1, 6], masks[1, 0, :2] = 1, 2
    labels[1, 6, :3], labels[1, 0, 0] = 1, 2
    scores = [{"1": 0.9, "2": 0.7}, {"1": 0.5, "2": 0.25}]

    def segment(k, quality):
        assert quality
        classes = {name: SimpleNamespace(score=score) for name, score in scores[k].items()}
        return SimpleNamespace(labels=labels[k], quality=SimpleNamespace(classes=classes))

    images = [SimpleNamespace(image=k) for k in range(2)]
    found = domains.Domain(supports=SimpleNamespace(images=images), masks=masks, numbers=(1, 2), seconds=0.0)
    supports = SimpleNamespace(classes=("1", "2"))
    made = domains.tested(SimpleNamespace(supports=supports, choice="one", segment=segment), found, [0, 1])
    assert made["iou"] == {"1": round((24 + 3) / (25 + 7), 4), "2": 0.5}
    # a rim of 16 pixels of the square, but all 24 that were found are near an edge
    assert made["boundary"] == {"1": round((16 + 3) / (24 + 7), 4), "2": 0.5}
    assert made["rows"] == [[0, "1", 0.96, 0.9], [1, "1", 0.4286, 0.5], [1, "2", 0.5, 0.25]]


def line(draw, ious, expected, candidate="auto", calibrated=True, **fields):
    """A finished cell."""
    classes = {name: {"iou": iou} for name, iou in zip("12", expected, strict=True)}
    return {
        "set": "s",
        "shots": 5,
        "draw": draw,
        "candidate": candidate,
        "iou": dict(zip("12", ious, strict=True)),
        "boundary": {"1": 0.1, "2": 0.2},
        "fit_s": 1.0 + draw,
        "image_s": 0.5,
        "rows": [],
        "choice": {"calibrated": calibrated, "classes": classes},
        **fields,
    }


def rows_of(table):
    return list(zip(*(column.cells for column in table.columns), strict=True))


def test_the_tables_are_those_by_hand(domains):
    first = [[k, "1", iou, score] for k, (iou, score) in enumerate([(1, 1), (2, 2), (3, 4), (4, 3)])]
    second = [[k, "2", k, -k] for k in range(4)]
    lines = [
        line(0, (0.2, 0.7), (0.1, 0.9), rows=first + second),
        line(1, (0.3, 1.0), (0.3, 0.8), rows=first[:3]),  # too few for a rank correlation
        line(2, (0.6, 0.6), (0.6, None), candidate="matcher", rows=second),
        line(3, (0.5, 0.5), (0.9, 0.9), calibrated=False),
    ]
    lines[1]["choice"]["classes"]["3"] = {"iou": None}
    scores, expected, ranks = domains.shown(lines)
    assert rows_of(scores) == [
        ("auto", "53.3, 15.0", "53.3, 15.0", "2.33", "0.50"),
        ("matcher", "60.0, 15.0", "60.0, 15.0", "3.00", "0.50"),
    ]
    assert "4 pairs, rank correlation 0.80, mean distance 0.125" in expected.title
    assert rows_of(expected) == [
        ("0.0-0.2", "1", "0.10", "0.20"),
        ("0.2-0.4", "1", "0.30", "0.30"),
        ("0.8-1.0", "2", "0.85", "0.85"),
    ]
    assert rows_of(ranks) == [("auto", "s", f"{(0.8 - 1) / 2:.2f}")]
