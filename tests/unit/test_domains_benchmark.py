"""``benchmarks/domains.py`` on sets of rendered squares."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

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
    assert all(
        0 <= value <= 1 for line in lines for kind in ("iou", "boundary") for value in line[kind].values()
    )
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
