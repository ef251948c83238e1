"""A few of the kills and of the broken inputs of ``benchmarks/kills.py`` and ``benchmarks/fuzz.py``."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script, *words):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *words], capture_output=True, text=True, timeout=600
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, ([each["wrong"] for each in lines if each["wrong"]], done.stderr[-2000:])
    return lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "works"),
    [
        (3, ("label", "label-polygons", "train")),
        (3, ("evaluate", "index", "features", "serve")),
        (1, ("export", "evaluate-2")),  # a Python of its own takes seconds; Ray's works take minutes
    ],
)
def test_killed_works_end_as_undisturbed_ones_and_leave_nothing(kills, works):
    found = run("kills.py", "--kills", str(kills), "--amount", "12", "--only", *works)
    assert [(each["work"], each["kills"], each["wrong"]) for each in found] == [(k, kills, []) for k in works]


@pytest.mark.slow
def test_broken_inputs_end_in_success_or_in_one_clear_line():
    readers = (
        "png",
        "coco",
        "labelme-masks",
        "weights-pth",
        "labelme",
        "label-studio-tools",
        "yolo",
        "cvat-xml",
        "via",
        "supports",
        "manifest",
    )
    found = run("fuzz.py", "--count", "15", "--only", *readers, "requests")
    assert len(found) == len(readers) + 1
    assert all(each["inputs"] == 15 and not each["wrong"] for each in found)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, ""),
        ({"MiB after each 5th": [610, 650]}, "memory is not flat"),
        ({"processor's ms an image in each 5th": [10.0, 11.0]}, "an image costs more and more"),
        ({"end of coco.json s": 2.4}, "the end of coco.json is not linear"),
    ],
)
def test_a_long_run_that_grows_is_named(change, text, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    judged = importlib.import_module("long").judged
    line = {
        "images": 10_000,
        "in all": 10_000,
        "end of coco.json s": 1.0,
        "MiB after each 5th": [600, 610],
        "processor's ms an image in each 5th": [10.0, 10.1],
    }
    found = judged([line, line | {"in all": 20_000, "end of coco.json s": 2.0} | change])
    assert bool(found) == bool(text)
    assert all(text in each for each in found)
