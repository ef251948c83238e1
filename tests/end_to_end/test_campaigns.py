"""A little of what ``kills.py``, ``fuzz.py``, ``load.py`` and ``long.py`` do, and how they judge."""

import asyncio
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

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
    "jobs",  # those that take minutes are in .ci/campaigns
    [("label", "label-polygons", "train"), ("evaluate", "index", "features", "serve")],
)
def test_killed_jobs_end_as_undisturbed_ones_and_leave_nothing(jobs):
    found = run("kills.py", "--kills", "1", "--amount", "12", "--only", *jobs)
    assert {each["work"] for each in found} == set(jobs)
    assert all(not each["wrong"] for each in found)


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


@pytest.mark.slow
def test_some_users_at_once_get_what_they_ask_for():
    given = {"users": 6, "seconds": 4, "pause": 0.03, "idle": 3, "rare": 1, "slow": 0.5, "size": 65}
    words = [f"--{name}={value}" for name, value in given.items()]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "load.py"), *words], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
    found = json.loads(done.stdout)
    assert given.items() <= found.items()
    assert min(found["successes"].values()) >= 1


@pytest.fixture
def benchmark_file(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def fuzz(benchmark_file):
    return benchmark_file("fuzz")


def written(folder):
    """Whole files by name, with a temporary one."""
    files = {
        "a.json": b'{"a": 1}', "a.jsonl": b'{"a": 1}\n{"a"', "a.txt": b"0 0.5 0.5\n", "empty.txt": b"",
        "a.csv": b"name,count\na,1\n", "a.html": b"<html></html>\n", "a.yaml": b"names: [a, b]\n",
        "a.xml": b"<a><b/></a>", ".a.0badcafe-12-0123456789ab.png": b"half",
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content)
    Image.new("L", (9, 9)).save(folder / "a.png")
    np.savez(folder / "a.npz", a=np.zeros(9))
    save_file({"a": torch.zeros(9)}, folder / "a.safetensors", {"about": '{"size": 1, "created": 5}'})


def test_half_files_and_what_is_left_are_found(benchmark_file, tmp_path):
    kills = benchmark_file("kills")
    written(tmp_path)
    assert kills.broken(tmp_path, temporary=True) == []
    assert kills.broken(tmp_path, temporary=False) == ["left: .a.0badcafe-12-0123456789ab.png"]
    whole = {file: file.read_bytes() for file in tmp_path.glob("a.*")}
    for file, content in whole.items():
        file.write_bytes(content[: len(content) // 2] + b"\n" * (file.suffix == ".jsonl"))
        (problem,) = kills.broken(tmp_path, temporary=True)
        assert problem.startswith(f"half written: {file.name}")
        file.write_bytes(content)


@pytest.mark.parametrize(
    ("metadata", "differs"), [('{"size": 2}', True), ('{"size": 1, "created": 6}', False)]
)
def test_an_end_differs_in_metadata_but_not_in_time(benchmark_file, tmp_path, metadata, differs):
    kills = benchmark_file("kills")
    written(tmp_path)
    (tmp_path / "a.jsonl").unlink()  # whole at the end
    before = kills.outcome(tmp_path)
    save_file({"a": torch.zeros(9)}, tmp_path / "a.safetensors", {"about": metadata})
    assert (kills.outcome(tmp_path) != before) == differs


def test_a_user_who_is_refused_is_told(benchmark_file):
    load = benchmark_file("load")

    def refuse(request):
        opened = request.url.path == "/api/sessions"
        return httpx.Response(201, json={"token": "x"}) if opened else httpx.Response(422, text="no")

    async def page(user):
        async with httpx.AsyncClient(base_url="http://x", transport=httpx.MockTransport(refuse)) as user.http:
            await user.page(time.monotonic() + 60)

    user = load.User(0, load.Options(pause=0.0), "http://x")
    asyncio.run(page(user))
    assert user.wrong == ["upload: 422 no"]
    assert user.successes == {"open": 1}
    assert "draw: 0 successes, at least 1 expected" in load.lacking([user])
    user.check("slow reader", b"HTTP/1.1 200 OK half", b"whole")
    assert len(user.wrong) == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{root}/a.json: it is no JSON", "done refused"),
        ("{root}: it is no JSON", "wrong names no file"),
        ("{root}/b.json: it lacks a.jpg", "done refused"),
        ("a.json: it is\nno JSON", "wrong several lines"),
        ("", "wrong ValueError"),
    ],
)
def test_a_refusal_names_the_file(fuzz, tmp_path, text, found):
    def read(root):
        raise ValueError(text.format(root=root))

    reader = fuzz.Reader(make=None, mutate=None, read=read, other=r"b\.json: it lacks")
    assert fuzz.check(reader, tmp_path, "a.json").startswith(found)


@pytest.mark.parametrize(
    ("kinds", "wrong"),
    [
        ({"success": 500}, 1),
        ({"refused": 500}, 1),
        ({"success": 1, "refused": 499}, 0),
        ({"backend success": 1, "422": 499}, 0),
        ({"success": 499}, 0),  # too few to tell
    ],
)
def test_a_reader_that_takes_all_or_none_is_wrong(fuzz, kinds, wrong):
    found = {"reader": "x", "inputs": sum(kinds.values()), "wrong": 0, "first": [], **kinds}
    fuzz.judge(found)
    assert (found["wrong"], len(found["first"])) == (wrong, wrong)


def test_the_memory_of_an_input_does_not_depend_on_the_one_before(fuzz):
    code = """
import fuzz
for mib in (96, 64):
    fuzz.limited(print, 0, fuzz.Options(), lambda: bytearray(b"x" * (mib << 20)) and "done")
"""  # in a process of its own, whose memory nothing else takes or frees
    folder = Path(fuzz.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    first, second = (int(line.split()[2]) for line in done.stdout.splitlines()[2::3])
    assert first >= 96
    assert second >= 64


LONG = {
    "images": 10_000,
    "in all": 10_000,
    "s for each 5th of coco.json": [0.5, 0.5, 0.5, 0.5, 0.6],
    "MiB after each 5th": [600, 610],
    "most MiB at the end": 620,
    "processor's ms an image in each 5th": [10.0, 10.1],
}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, ""),
        ({"MiB after each 5th": [610, 650]}, "memory is not flat"),
        ({"most MiB at the end": 650}, "memory is not flat"),
        ({"processor's ms an image in each 5th": [10.0, 11.0]}, "an image costs more and more"),
        ({"s for each 5th of coco.json": [0.5, 0.5, 0.5, 0.6, 0.7]}, "coco.json of 20000 images is not lin"),
    ],
)
@pytest.mark.parametrize("before", [[], [LONG]])
def test_a_long_run_that_grows_is_named(before, change, text, benchmark_file, tmp_path):
    long = benchmark_file("long")
    lines = [*before, LONG | {"in all": 20_000} | change]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = long.main(long.Options(images=20_000, entries=0, log=tmp_path / "a.jsonl"))
    assert bool(found) == bool(text)
    assert all(text in each for each in found)
