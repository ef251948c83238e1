"""Training in two processes on the CPU: the path that several GPUs take."""

import os
import subprocess
import sys
from pathlib import Path

from fewseg.engine.checkpoint import read_checkpoint


def test_two_processes_train_one_model_on_different_episodes(tmp_path):
    script = Path(__file__).with_name("two_processes.py")
    environment = {**os.environ, "FEWSEG_CACHE": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=environment, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    first, second = ((tmp_path / f"rank{rank}.txt").read_text() for rank in (0, 1))
    assert first == second
    stored = read_checkpoint(tmp_path / "run" / "last.safetensors")
    assert (stored.training["step"], stored.training["processes"]) == (3, 2)
