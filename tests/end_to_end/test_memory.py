"""What an evaluation takes of memory stays within its budget of bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("memory_of_an_evaluation.py")
MARGIN = 32 << 20
"""What the network works on at a time, four pairs of maps, and 8 MiB that the allocator may hold."""


def growth(folder, memory):
    environment = {**os.environ, "FEWSEG_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(SCRIPT), str(folder), str(memory)]
    done = subprocess.run(words, env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted as Linux counts it")
@pytest.mark.skipif("FEWSEG_MEASURE_MEMORY" not in os.environ, reason="a minute: set FEWSEG_MEASURE_MEMORY")
def test_the_peak_of_memory_is_the_budget_and_a_margin(tmp_path):
    growth(tmp_path, 1 << 30)  # computes the features, which takes memory for a while
    wide, narrow = growth(tmp_path, 1 << 30), growth(tmp_path, 8 << 20)
    assert wide > narrow + (40 << 20)  # there is more to keep than the narrow budget has room for
    assert narrow < (8 << 20) + MARGIN
