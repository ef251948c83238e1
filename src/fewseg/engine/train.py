"""The training loop, read from top to bottom."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch.utils.tensorboard import SummaryWriter

from fewseg.data.draws import Draws
from fewseg.data.fold_data import FoldData
from fewseg.engine.batches import Batches
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
from fewseg.ops.progress import progress_bar
from fewseg.types import EncodedEpisodes, EncodedShots, Features, ImageEpisodes, LossTerms

logger = logging.getLogger(__name__)

LAST, BEST = "last.safetensors", "best.safetensors"
_LOG_EVERY = 20


class TrainingDivergedError(RuntimeError):
    """A loss or gradient became NaN or infinite."""


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


def train(
    method: FewShotSegmenter,
    config: TrainConfig,
    batches: Batches,
    run: Run,
    fabric: Fabric,
    *,
    progress: bool = True,
) -> Path:
    """Trains a method, or goes on where an earlier run in the same folder stopped.

    Step s depends on the seed, s and the weights alone, so a resumed run gives the losses that an
    unbroken one would have given.

    Args:
        method: the model; its trainable parameters are changed in place.
        config: schedule, optimiser, precision, seed.
        batches: the training stream.
        run: folder, names and validation.
        fabric: devices and precision, launched.
        progress: show a bar with the time left.

    Returns:
        The path of the best checkpoint (of the last, without validation).

    Raises:
        TrainingDivergedError: a loss or gradient is not finite; the last checkpoint is kept.
        ValueError: the folder holds a run of another config or fold.
        KeyboardInterrupt: after saving, when interrupted.
    """
    parameters = [p for p in method.parameters() if p.requires_grad]
    optimiser = config.optimiser.build(parameters)
    start, best = _resume(method, optimiser, config, run)
    model, optim = fabric.setup(method, optimiser)
    model.mark_forward_method("losses")
    step, whole = start, True  # whole: the weights are those of a step, not of half an update
    about = _about(config, run)
    with progress_bar(progress and fabric.is_global_zero) as bar, closing(_writer(run, fabric)) as writer:
        task = bar.add_task(
            f"training {run.recipe or type(method).__name__}", total=config.steps, completed=start
        )
        method.train()
        try:
            for batch in batches.stream(start, config.steps):
                _set_lr(optimiser, config.optimiser.lr_at(step, config.steps))
                torch.manual_seed(Draws("dropout", config.seed, fabric.global_rank, step).below(2**63))
                with fabric.autocast():
                    terms: LossTerms = model.losses(_to_device(batch, fabric.device))
                loss = terms.total
                fabric.backward(loss)
                loss = loss.detach()
                norm = _gradient_norm(fabric, model, optim, config)
                _check_finite(loss, norm, terms, step, run)
                whole = False
                optim.step()
                optim.zero_grad(set_to_none=True)
                step, whole = step + 1, True
                bar.update(task, completed=step, description=f"training · loss {float(loss):.3f}")
                if fabric.is_global_zero and (step % _LOG_EVERY == 0 or step == config.steps):
                    _log(writer, run, step, optimiser, terms, float(norm))
                if config.validate_every and run.validate and step % config.validate_every == 0:
                    best = _validate(method, about, run, step, best, writer, fabric)
                if step % config.save_every == 0 and step < config.steps:
                    _save(method, optimiser, about, run, step, best, fabric)
        except KeyboardInterrupt:
            if whole:
                _save(method, optimiser, about, run, step, best, fabric)
            logger.warning("interrupted at step %d; the same command goes on from the last save", step)
            raise
        _save(method, optimiser, about, run, step, best, fabric)
    if best is None and fabric.is_global_zero:
        save_checkpoint(run.folder / BEST, method, _at(about, step, None))
    fabric.barrier()
    return run.folder / BEST


def _about(config: TrainConfig, run: Run) -> Checkpoint:
    return Checkpoint(
        config=run.method_config,
        recipe=run.recipe,
        dataset=run.data.dataset,
        class_split=split_json(run.data.split),
        training={"config": as_json(config)},
    )


def _at(about: Checkpoint, step: int, best: float | None) -> Checkpoint:
    return replace(about, training={**about.training, "step": step, "best": best})


def _save(
    method: FewShotSegmenter,
    optimiser: torch.optim.Optimizer,
    about: Checkpoint,
    run: Run,
    step: int,
    best: float | None,
    fabric: Fabric,
) -> None:
    if fabric.is_global_zero:
        save_checkpoint(run.folder / LAST, method, _at(about, step, best), optimiser)


def _resume(
    method: FewShotSegmenter, optimiser: torch.optim.Optimizer, config: TrainConfig, run: Run
) -> tuple[int, float | None]:
    """Loads the folder's last checkpoint, if there is one; returns its step and best score."""
    path = run.folder / LAST
    if not path.exists():
        return 0, None
    stored = read_checkpoint(path)
    wanted = {
        "method": as_json(run.method_config),
        "training": as_json(config),
        "dataset": run.data.dataset,
        "class_split": split_json(run.data.split),
    }
    found = {
        "method": as_json(stored.config),
        "training": stored.training["config"],
        "dataset": stored.dataset,
        "class_split": stored.class_split,
    }
    if wanted != found:
        different = _differences(found, wanted)
        raise ValueError(
            f"{run.folder} holds a run of another config ({'; '.join(different[:5])}): "
            "choose another folder, or the same config to go on"
        )
    load_tensors(method, path)
    load_optimiser(optimiser, path)
    logger.info("going on from step %d of %s", stored.training["step"], path)
    return int(stored.training["step"]), stored.training["best"]


def _differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        keys = sorted(set(found) | set(wanted))
        return [d for k in keys for d in _differences(found.get(k), wanted.get(k), f"{name}.{k}".strip("."))]
    return [] if found == wanted else [f"{name}: {found!r} there, {wanted!r} here"]


def _set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr


def _to_device(
    batch: ImageEpisodes | EncodedEpisodes, device: torch.device
) -> ImageEpisodes | EncodedEpisodes:
    if isinstance(batch, ImageEpisodes):
        return ImageEpisodes(
            support_images=batch.support_images.to(device),
            support_masks=batch.support_masks.to(device),
            query_images=batch.query_images.to(device),
            query_masks=batch.query_masks.to(device),
        )
    support = EncodedShots(
        features=_features_to(batch.support.features, device), masks=batch.support.masks.to(device)
    )
    return EncodedEpisodes(
        support=support,
        query=_features_to(batch.query, device),
        query_masks=batch.query_masks.to(device),
    )


def _features_to(features: Features, device: torch.device) -> Features:
    return features.to(device)


def _gradient_norm(fabric: Fabric, model: Any, optim: Any, config: TrainConfig) -> torch.Tensor:
    """Clips the gradient where the config says so; returns its norm before."""
    limit = math.inf if config.clip is None else config.clip
    norm: torch.Tensor = fabric.clip_gradients(model, optim, max_norm=limit, error_if_nonfinite=False)
    return norm


def _check_finite(loss: torch.Tensor, norm: torch.Tensor, terms: LossTerms, step: int, run: Run) -> None:
    if math.isfinite(float(loss)) and math.isfinite(float(norm)):
        return
    values = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in terms.terms.items())
    raise TrainingDivergedError(
        f"step {step}: the loss or its gradient is not finite (gradient norm {float(norm):.4g}; {values}). "
        f"{run.folder / LAST} keeps the last good state: lower the learning rate, set clip, or train in "
        "32-true"
    )


def _writer(run: Run, fabric: Fabric) -> SummaryWriter:
    run.folder.mkdir(parents=True, exist_ok=True)
    return SummaryWriter(str(run.folder / "tensorboard" / f"rank{fabric.global_rank}"))


def _log(
    writer: SummaryWriter,
    run: Run,
    step: int,
    optimiser: torch.optim.Optimizer,
    terms: LossTerms,
    norm: float,
) -> None:
    values = {name: float(value.detach()) for name, value in terms.terms.items()}
    values |= {
        "total": float(terms.total.detach()),
        "gradient_norm": norm,
        "lr": optimiser.param_groups[0]["lr"],
    }
    for name, value in values.items():
        writer.add_scalar(f"train/{name}", value, step)
    with (run.folder / "losses.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, **values}) + "\n")


def _validate(
    method: FewShotSegmenter,
    about: Checkpoint,
    run: Run,
    step: int,
    best: float | None,
    writer: SummaryWriter,
    fabric: Fabric,
) -> float | None:
    """Scores the method on held-out base classes and keeps it if it is the best so far."""
    assert run.validate is not None
    method.eval()
    score = run.validate(method)
    method.train()
    writer.add_scalar("validation/miou", score, step)
    logger.info("step %d: held-out mIoU %.4f", step, score)
    if best is not None and score <= best:
        return best
    if fabric.is_global_zero:
        save_checkpoint(run.folder / BEST, method, _at(about, step, score))
    return score
