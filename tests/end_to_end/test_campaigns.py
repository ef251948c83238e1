"""A few of the kills and of the broken inputs of ``benchmarks/kills.py`` and ``benchmarks/fuzz.py``."""

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
    assert done.returncode == 0, (lines, done.stderr[-2000:])
    return lines


@pytest.mark.slow
def test_killed_works_end_as_undisturbed_ones_and_leave_nothing():
    works = ("label", "train", "evaluate", "index", "features", "serve")
    found = run("kills.py", "--kills", "3", "--amount", "12", "--only", *works)
    assert [(each["work"], each["kills"], each["wrong"]) for each in found] == [(k, 3, []) for k in works]


@pytest.mark.slow
def test_broken_inputs_end_in_success_or_in_one_clear_line():
    readers = (
        "png",
        "coco",
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
