"""The training loop, read from top to bottom."""

from __future__ import annotations

import json
import logging
import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch.utils.tensorboard import SummaryWriter

from fewseg.data.draws import Draws
from fewseg.engine.batches import Batches
from fewseg.engine.checkpoint import (
    Checkpoint,
    save_checkpoint,
)
from fewseg.engine.gradients import TrainingDivergedError, average_gradients, check_finite, loss_scaler
from fewseg.engine.train_config import TrainConfig
from fewseg.engine.training_state import BEST, LAST, LOSSES, Run, describe, reached, resume, save_state
from fewseg.methods.base import FewShotSegmenter
from fewseg.ops.progress import progress_bar
from fewseg.types import EncodedEpisodes, EncodedShots, ImageEpisodes, LossTerms

__all__ = ["BEST", "LAST", "LOSSES", "Run", "TrainingDivergedError", "train"]

logger = logging.getLogger(__name__)

_LOG_EVERY = 20


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
    method.to(fabric.device)
    parameters = [p for p in method.parameters() if p.requires_grad]
    optimiser = config.optimiser.build(parameters)
    scaler = loss_scaler(config, fabric)
    about = describe(config, run, fabric)
    start, best = resume(method, optimiser, scaler, about, run)
    step, whole = start, True  # whole: a step is over, its validation included
    with (
        progress_bar(progress and fabric.is_global_zero) as bar,
        closing(_writer(run, fabric, start)) as writer,
    ):
        task = bar.add_task(
            f"training {run.recipe or type(method).__name__}", total=config.steps, completed=start
        )
        method.train()
        try:
            for batch in batches.stream(start, config.steps):
                _set_lr(optimiser, config.optimiser.lr_at(step, config.steps))
                torch.manual_seed(Draws("dropout", config.seed, fabric.global_rank, step).below(2**63))
                with fabric.autocast():
                    terms: LossTerms = method.losses(_to_device(batch, fabric.device))
                loss = terms.total
                scaler.scale(loss).backward()
                average_gradients(fabric, parameters)
                scaler.unscale_(optimiser)
                limit = math.inf if config.clip is None else config.clip
                norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
                check_finite(loss.detach(), norm, scaler, terms, step, run.folder / LAST)
                whole = False
                scaler.step(optimiser)
                scaler.update()
                optimiser.zero_grad(set_to_none=True)
                step += 1
                bar.update(task, completed=step, description=f"training · loss {float(loss.detach()):.3f}")
                if fabric.is_global_zero and (step % _LOG_EVERY == 0 or step == config.steps):
                    _log(writer, run, step, optimiser, terms, float(norm))
                if config.validate_every and run.validate and step % config.validate_every == 0:
                    best = _validate(method, about, run, step, best, writer, fabric)
                whole = True
                if step % config.save_every == 0 and step < config.steps:
                    save_state(method, optimiser, scaler, about, run, step, best, fabric)
        except KeyboardInterrupt:
            if whole:
                save_state(method, optimiser, scaler, about, run, step, best, fabric)
            logger.warning("interrupted at step %d; the same command goes on from the last save", step)
            raise
        save_state(method, optimiser, scaler, about, run, step, best, fabric)
    if best is None and fabric.is_global_zero:
        save_checkpoint(run.folder / BEST, method, reached(about, step, None, scaler))
    fabric.barrier()
    return run.folder / BEST


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
            way_of=batch.way_of,
            pair_ids=batch.pair_ids,
        )
    support = EncodedShots(
        features=batch.support.features.to(device),
        masks=batch.support.masks.to(device),
        way_of=batch.support.way_of,
    )
    return EncodedEpisodes(
        support=support,
        query=batch.query.to(device),
        query_masks=batch.query_masks.to(device),
        pair_ids=batch.pair_ids,
    )


def _writer(run: Run, fabric: Fabric, start: int) -> SummaryWriter:
    run.folder.mkdir(parents=True, exist_ok=True)
    folder = str(run.folder / "tensorboard" / f"rank{fabric.global_rank}")
    return SummaryWriter(folder, purge_step=start + 1 if start else None)


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
    with (run.folder / LOSSES).open("a") as file:
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
        save_checkpoint(
            run.folder / BEST,
            method,
            replace(about, training={**about.training, "step": step, "best": score}),
        )
    return score
