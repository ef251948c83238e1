"""A training run's identity and where it stands: saved, and taken up again exactly."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from fewseg.data.fold_data import FoldData
from fewseg.engine.checkpoint import (
    Checkpoint,
    load_optimiser,
    load_tensors,
    read_checkpoint,
    save_checkpoint,
    split_json,
)
from fewseg.engine.result_schema import as_json
from fewseg.engine.train_config import TrainConfig
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.registry import MethodConfig
from fewseg.ops.files import atomic_write_text

logger = logging.getLogger(__name__)

_SINCE = {"ways": 1}
"""Fields of ``TrainConfig`` that older checkpoints lack, with what those runs did."""

LAST, BEST, LOSSES = "last.safetensors", "best.safetensors", "losses.jsonl"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a training run is about, beside its config.

    Attributes:
        folder: where checkpoints and logs go.
        method_config: the method's config.
        data: the fold.
        recipe: its name, or "".
        validate: scores the method on held-out base classes (higher is better); None keeps the last
            checkpoint as the best.
    """

    folder: Path
    method_config: MethodConfig
    data: FoldData
    recipe: str = ""
    validate: Callable[[FewShotSegmenter], float] | None = None


def describe(config: TrainConfig, run: Run, fabric: Fabric) -> Checkpoint:
    """What a checkpoint of this run says beside how far it came."""
    return Checkpoint(
        config=run.method_config,
        recipe=run.recipe,
        dataset=run.data.dataset,
        class_split=split_json(run.data.split),
        training={"config": as_json(config), "processes": fabric.world_size},
    )


def reached(about: Checkpoint, step: int, best: float | None, scaler: torch.amp.GradScaler) -> Checkpoint:
    """The same with the step reached, the best score so far and the state of the loss scaler."""
    now = {"step": step, "best": best, "scaler": scaler.state_dict()}
    return replace(about, training={**about.training, **now})


def save_state(
    method: FewShotSegmenter,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    about: Checkpoint,
    run: Run,
    step: int,
    best: float | None,
    fabric: Fabric,
) -> None:
    """Writes the resumable checkpoint, in the first process only."""
    if fabric.is_global_zero:
        save_checkpoint(run.folder / LAST, method, reached(about, step, best, scaler), optimiser)


def resume(
    method: FewShotSegmenter,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    about: Checkpoint,
    run: Run,
) -> tuple[int, float | None]:
    """Loads the folder's last checkpoint, if there is one; returns its step and best score."""
    path = run.folder / LAST
    if not path.exists():
        return 0, None
    stored = read_checkpoint(path)
    if not {"config", "step", "best", "processes"} <= set(stored.training):
        raise ValueError(f"{path} is no checkpoint of a training run: choose another folder")
    found, wanted = _identity(stored), _identity(about)
    if stored.backbone_digest:
        found["backbone"], wanted["backbone"] = stored.backbone_digest, method.backbone.digest()
    if wanted != found:
        different = _differences(found, wanted)
        raise ValueError(
            f"{run.folder} holds a run of another config ({'; '.join(different[:5])}): "
            "choose another folder, or the same config to go on"
        )
    load_tensors(method, path)
    if optimiser.defaults.get("momentum", 1.0):  # SGD without momentum has no state
        load_optimiser(optimiser, path)
    if scaler.is_enabled():
        scaler.load_state_dict(dict(stored.training["scaler"]))
    step = int(stored.training["step"])
    _drop_losses_after(run.folder / LOSSES, step)
    logger.info("going on from step %d of %s", step, path)
    return step, stored.training["best"]


def _identity(about: Checkpoint) -> dict[str, Any]:
    """What two runs must share for one to go on from the other; how often it saves is not part of it."""
    config = _SINCE | about.training["config"]
    config = {k: v for k, v in config.items() if k not in ("save_every", "workers")}
    return {
        "method": as_json(about.config),
        "training": config,
        "processes": about.training["processes"],
        "dataset": about.dataset,
        "class_split": about.class_split,
    }


def _drop_losses_after(path: Path, step: int) -> None:
    """Takes the lines of steps that will be run again out of the log."""
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    atomic_write_text(path, "".join(kept))


def _differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        keys = sorted(set(found) | set(wanted))
        return [d for k in keys for d in _differences(found.get(k), wanted.get(k), f"{name}.{k}".strip("."))]
    return [] if found == wanted else [f"{name}: {found!r} there, {wanted!r} here"]
