"""What a number was made with: versions of the software and one line about the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from fewseg.engine.choices import Precision
from fewseg.ops.parallel import cores

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "fewseg")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Software and hardware of this process."""

    # package name to version; "python"; "revision" when the package lies in a git work tree, with "+changed"
    # where files of the package differ from it
    versions: dict[str, str]
    hardware: str  # one line: CPU, cores and threads in use, memory, GPU


def precision_on(device: torch.device) -> Precision:
    """bf16 where a device multiplies in it natively (GPUs from Ampere on, CPUs with AVX-512-BF16 or AMX).

    Elsewhere bf16 is emulated, up to six times slower than fp32.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    has_bf16 = any(getattr(torch.cpu, name, bool)() for name in names)
    return "bf16" if device.type == "cpu" and torch.backends.mkldnn.is_available() and has_bf16 else "fp32"


def environment() -> Environment:
    """Describes this process. Host and user names are left out."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    revision = _revision_at_first_look()
    if revision:
        versions["revision"] = revision
    return Environment(versions=versions, hardware=_hardware())


@cache
def _revision_at_first_look() -> str | None:
    """A file that is edited later is not what this process runs."""
    return _revision(Path(__file__).resolve().parents[1])


def _hardware() -> str:
    parts = [f"{_cpu_model()}, {cores()} cores, {torch.get_num_threads()} threads, {_memory()}"]
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        parts.append(f"{torch.cuda.device_count()} x {gpu.name}, {gpu.total_memory / 2**30:.0f} GiB")
    return "; ".join(parts)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return "memory unknown"
    return f"{total / 2**30:.0f} GiB"


def _revision(package: Path) -> str | None:
    """Commit of the work tree that tracks the package, or None (an installed copy, or no git)."""
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    if commit is None:
        return None
    return commit if _git(package, "diff", "--quiet", "HEAD", "--", ".") is not None else f"{commit}+changed"


def _git(folder: Path, *arguments: str) -> str | None:
    """Standard output of a git command, or None when it fails or git is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
