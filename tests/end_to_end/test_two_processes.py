"""Two processes on the CPU: the path that several GPUs take."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fewseg.engine.checkpoint import read_checkpoint


def started(work, folder, *options):
    environment = {**os.environ, "FEWSEG_CACHE": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    script = Path(__file__).with_name("several_processes.py")
    words = [sys.executable, str(script), work, str(folder), *options]
    return subprocess.run(words, env=environment, capture_output=True, timeout=300)


def run(work, folder, *options):
    done = started(work, folder, *options)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout.decode()


def test_two_processes_train_one_model_on_different_episodes(tmp_path):
    run("train", tmp_path)
    first, second = ((tmp_path / f"rank{rank}.txt").read_text() for rank in (0, 1))
    assert first == second
    stored = read_checkpoint(tmp_path / "run" / "last.safetensors")
    assert (stored.training["step"], stored.training["processes"]) == (3, 2)


def test_two_processes_evaluate_to_the_counts_of_one(tmp_path):
    run("evaluate", tmp_path)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_killed_process_ends_the_run_and_the_same_command_goes_on_where_it_was(tmp_path, processes):
    (tmp_path / "kill").touch()
    assert started("lose", tmp_path, processes).returncode != 0  # nobody waits for the lost one
    kept = len(list((tmp_path / "work").glob("counts-*")))
    assert kept >= 2
    (tmp_path / "kill").unlink()
    printed = run("lose", tmp_path, processes)
    assert "0 features made again" in printed
    if processes == "1":
        assert f" {32 - kept} shards computed, the counts of one process" in printed


@pytest.mark.parametrize("moment", ["leave", "leave_early"])
def test_no_process_stays_when_the_leading_one_is_killed(tmp_path, moment):
    assert started(moment, tmp_path).returncode == -signal.SIGKILL
    other = Path("/proc") / (tmp_path / "rank1.txt").read_text()
    for _ in range(300):
        if not other.exists() or "State:\tZ" in (other / "status").read_text():
            return
        time.sleep(0.1)
    pytest.fail("the other process goes on")
