"""Loader of the golden reference cases: numbers that the authors' released code produced.

The cases lie outside the repository, under $FEWSEG_SHARED or a folder ``shared`` beside the checkout.
Tests that need them are skipped, with the reason, where they are absent.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor


def shared_folder() -> Path:
    """$FEWSEG_SHARED, else the folder ``shared`` beside the repository."""
    return Path(os.environ.get("FEWSEG_SHARED") or Path(__file__).resolve().parents[3] / "shared")


def released_folder() -> Path:
    """Folder of the golden cases; skips the calling test where it is absent."""
    folder = shared_folder() / "reference" / "released"
    if not folder.is_dir():
        pytest.skip(f"golden reference tensors are not at {folder}: set FEWSEG_SHARED")
    return folder


@dataclass(frozen=True)
class GoldenCase:
    """One case: its description, arrays and weights under the official keys."""

    about: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    weights: Mapping[str, Tensor]

    def input(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[f"in_{name}"])

    def output(self, name: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.arrays[f"out_{name}"]))

    def atol(self, name: str) -> float:
        return float(self.about["outputs"][name]["suggested_atol"])

    def assert_close(self, ours: Tensor, name: str) -> None:
        """Compares within the case's own tolerance; the shapes must be equal too."""
        expected = self.output(name)
        ours = ours.detach()
        assert ours.shape == expected.shape, f"{name}: {tuple(ours.shape)} is not {tuple(expected.shape)}"
        difference = float((ours.double() - expected.double()).abs().max())
        assert difference <= self.atol(name), (
            f"{name}: off by {difference:.3g}, allowed {self.atol(name):.3g}"
        )


@cache
def load_case(name: str) -> GoldenCase:
    """Reads a case and generates its weights by the rule of the reference folder."""
    folder = released_folder()
    about = json.loads((folder / f"{name}.json").read_text())
    with np.load(folder / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return GoldenCase(about=about, arrays=arrays, weights=_weights(folder, about))


def _weights(folder: Path, about: Mapping[str, Any]) -> dict[str, Tensor]:
    if "state_dict" not in about:
        return {}
    rule = _module(folder / "make_weights.py")
    shapes = {entry["key"]: tuple(entry["shape"]) for entry in about["state_dict"]}
    arrays = rule.make_weights(shapes, about["weight_seed_string"], about["weight_overrides"])
    assert rule.weights_crc(arrays) == about["weights_crc32"], "this numpy draws other weights"
    return {key: torch.from_numpy(np.asarray(value)) for key, value in arrays.items()}


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden() -> Callable[[str], GoldenCase]:
    """Loads a golden case by name."""
    return load_case
