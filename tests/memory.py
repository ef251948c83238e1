"""The memory of this process, as Linux tells it."""

from pathlib import Path

import pytest

STATUS = Path("/proc/self/status")


def resident(kind):
    """Bytes that the process has now (VmRSS), or had at most (VmHWM)."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(kind)]
    return int(line.split()[1]) * 1024


def growth(call):
    """Bytes by which the most that the process has during a call is above what it had before."""
    if not STATUS.exists():
        pytest.skip("needs Linux's /proc")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before
