"""Loader of the golden reference cases: numbers that the authors' released code produced.

The cases lie outside the repository, under $FEWSEG_SHARED or a folder ``shared`` beside the checkout.
Tests that need them are skipped, with the reason, where they are absent.
"""

import copy
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewseg.engine.checkpoint import load_method
from fewseg.engine.released import import_checkpoint, released_canet_key, released_sdaanet_key
from fewseg.methods.pair_scorer import PairScorer
from fewseg.types import EncodedShots, Features, ImageEpisodes


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


@dataclass(frozen=True)
class ReleasedRun:
    """A golden case's weights in our model, and its episode after the backbone.

    The stored images are normalised already, so they go past the backbone's own normalisation. The model
    is in eval mode: what the cases call train mode is dropout off and batch-norm in eval.
    """

    case: GoldenCase
    model: PairScorer

    def features(self, images: Tensor) -> Features:
        maps = self.model.backbone.maps(images)
        return Features(maps=maps, image_size=(images.shape[-2], images.shape[-1]))

    @cached_property
    def query(self) -> Features:
        return self.features(self.case.input("query"))

    @cached_property
    def support(self) -> EncodedShots:
        """One backbone call a shot, as in the released code: it matters where batch-norm is in training."""
        shots = [self.features(images) for images in self.case.input("support").unbind(1)]
        maps = {k: torch.stack([shot[k] for shot in shots], dim=1).flatten(0, 1) for k in shots[0].maps}
        features = Features(maps=maps, image_size=shots[0].image_size)
        return EncodedShots(features=features, masks=self.case.input("support_mask"))

    def pixels(self, name: str) -> Tensor:
        """Images whose normalisation is undone."""
        backbone = self.model.backbone
        return self.case.input(name) * backbone.std.view(3, 1, 1) + backbone.mean.view(3, 1, 1)

    @property
    def episodes(self) -> ImageEpisodes:
        """The case's training episodes as images, whose normalisation is undone; a pair's id is its place."""
        query, support = self.pixels("query"), self.pixels("support")
        return ImageEpisodes(
            support_images=support if support.ndim == 5 else support.unsqueeze(1),  # CANet's have one shot
            support_masks=self.case.input("support_mask").byte(),
            query_images=query,
            query_masks=self.case.input("query_mask"),
            pair_ids=torch.arange(len(query)),
        )

    @cached_property
    def losses(self) -> dict[str, Tensor]:
        """Our loss terms, with "main", "aux" and the "total" whose gradients the case has."""
        found = self.model.losses(self.episodes)
        sums = {
            "main": sum(value for name, value in found.terms.items() if not name.endswith("_deep")),
            "aux": sum(value for name, value in found.terms.items() if name.endswith("_deep")),
            "total": found.total,
        }
        return {**found.terms, **sums}

    def gradient_norms(self) -> Tensor:
        """L2 norms of the gradients of the total loss, in the order of the case's ``grad_keys``.

        Summed in float64: a float32 sum over a 3x3 convolution is off by 2e-5 by itself.
        """
        self.model.zero_grad(set_to_none=True)
        self.losses["total"].backward()
        parameters = dict(self.model.named_parameters())
        canet = "layer5.0.weight" in self.case.weights
        ours = released_canet_key if canet else released_sdaanet_key
        grads = [parameters[ours(key)].grad for key in self.case.about["grad_keys"]]
        assert all(grad is not None for grad in grads)
        return torch.stack([grad.double().norm() for grad in grads])

    def check_losses(self, ending: str = "") -> None:
        """Compares the sums of the loss terms with those of the case."""
        self.case.assert_close(self.losses["main"], f"main_loss{ending}")
        self.case.assert_close(self.losses["aux"], f"aux_loss{ending}")

    def check_gradient_norms(self) -> None:
        """Compares ``gradient_norms`` with those of the case."""
        rtol = self.case.about["grad_suggested_rtol"]
        expected = self.case.output("grad_l2").double()
        torch.testing.assert_close(self.gradient_norms(), expected, rtol=rtol, atol=0)


@cache
def run_released(name: str) -> ReleasedRun:
    """Imports a case's weights into a checkpoint and loads it, as a user does."""
    case = load_case(name)
    scales = tuple(case.about["constructor"].get("ppm_scales", ())) or None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "imported.safetensors"
        import_checkpoint(case.weights, path, scales=scales)
        return ReleasedRun(case=case, model=load_method(path))


def with_batch_norm_training(run: ReleasedRun) -> ReleasedRun:
    """The run's model as the released code trains it, batch-norm of the frozen backbone included."""
    model = copy.deepcopy(run.model)
    model.backbone.config = replace(model.backbone.config, bn="train")
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    return ReleasedRun(case=run.case, model=model)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], GoldenCase]:
    """Loads a golden case by name."""
    return load_case


@pytest.fixture(scope="session")
def released() -> Callable[[str], ReleasedRun]:
    """Runs a golden case of PFENet or SCL(PFENet) by name."""
    return run_released


@pytest.fixture(scope="session")
def batch_norm_training() -> Callable[[ReleasedRun], ReleasedRun]:
    """Puts a run's batch-norm in training mode, dropout off."""
    return with_batch_norm_training
