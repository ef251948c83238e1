"""Training: one loop that resumes exactly, with its state and its gradients."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fewseg.data.draws import Draws
from fewseg.data.folds import FoldData
from fewseg.engine.batches import Batches
from fewseg.engine.checkpoint import (
    Checkpoint,
    config_of,
    load_optimiser,
    load_tensors,
    read_checkpoint,
    save_checkpoint,
    split_json,
)
from fewseg.engine.results import as_json
from fewseg.engine.train_config import TrainConfig
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.registry import MethodConfig
from fewseg.ops.files import atomic_write_text, naming, parse_json
from fewseg.ops.progress import progress_bar
from fewseg.types import Features, LossTerms

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch.utils.tensorboard import SummaryWriter


class TrainingDivergedError(RuntimeError):
    """A loss or gradient became NaN or infinite."""


def average_gradients(fabric: Fabric, parameters: Sequence[torch.nn.Parameter]) -> None:
    """Puts the mean over all processes in the place of every gradient, by one reduction."""
    if fabric.world_size == 1:
        return
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    mean = fabric.all_reduce(flat, reduce_op="mean")
    assert isinstance(mean, torch.Tensor)
    for p, part in zip(parameters, mean.split([p.numel() for p in parameters]), strict=True):
        p.grad = part.view_as(p)


def loss_scaler(config: TrainConfig, fabric: Fabric) -> torch.amp.GradScaler:
    """Scales the loss in fp16, where small gradients vanish; does nothing otherwise."""
    enabled = config.precision == "16-mixed" and fabric.device.type == "cuda"
    return torch.amp.GradScaler(fabric.device.type, enabled=enabled)


def check_finite(
    loss: torch.Tensor,
    norm: torch.Tensor,
    scaler: torch.amp.GradScaler,
    terms: LossTerms,
    step: int,
    saved: Path,
) -> None:
    """Stops at a loss or gradient that is not finite, unless the scaler can still lower its scale."""
    finite = math.isfinite(float(loss))
    if finite and (math.isfinite(float(norm)) or (scaler.is_enabled() and scaler.get_scale() > 1.0)):
        return
    values = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in terms.terms.items())
    state = f"{saved} keeps the last good state" if saved.exists() else "nothing was saved yet"
    raise TrainingDivergedError(
        f"step {step}: the loss or its gradient is not finite (gradient norm {float(norm):.4g}; {values}). "
        f"{state}: lower the learning rate, set clip, or train in 32-true"
    )


COLLAPSED = 0.01
"""Share of its first value below which a watched size counts as vanished."""


@dataclass
class Watch:
    """The sizes of ``LossTerms.watched``: where each began, and the steps since which some have vanished."""

    start: dict[str, float] = field(default_factory=dict)
    collapsed: dict[str, int] = field(default_factory=dict)

    def see(self, step: int, sizes: Mapping[str, float]) -> None:
        """Notes the sizes of a step, and warns where one has just vanished."""
        for name, size in sizes.items():
            if size >= COLLAPSED * self.start.setdefault(name, size):
                self.collapsed.pop(name, None)
            elif name not in self.collapsed:
                self.collapsed[name] = step
                logger.warning(
                    "step %d: %s is %.3g and was %.3g: the training has collapsed; lower the weight of the "
                    "loss that shrinks it",
                    step,
                    name.replace("_", " "),
                    size,
                    self.start[name],
                )


logger = logging.getLogger(__name__)

_SINCE = {"ways": 1, "queries": "independent", "train_list": None, "novel_pixels": "background"}
_SINCE_OF_VIEW = {"rotate_probability": 1.0}
"""Fields of ``TrainConfig`` and its view that older checkpoints lack, with what those runs did."""

LAST, BEST, LOSSES = "last.safetensors", "best.safetensors", "losses.jsonl"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a training run is about, beside its config."""

    folder: Path  # where checkpoints and logs go
    method_config: MethodConfig  # the method's config
    data: FoldData  # the fold
    recipe: str = ""  # its name, or ""
    # scores the method on held-out base classes (higher is better); None keeps the last checkpoint as the
    # best
    validate: Callable[[FewShotSegmenter], float] | None = None


def describe(config: TrainConfig, run: Run, fabric: Fabric) -> Checkpoint:
    """The checkpoint header of this run, without how far it came."""
    return Checkpoint(
        config=run.method_config,
        recipe=run.recipe,
        dataset=run.data.dataset,
        class_split=split_json(run.data.split),
        training={"config": as_json(config), "processes": fabric.world_size},
    )


def reached(
    about: Checkpoint, step: int, best: float | None, scaler: torch.amp.GradScaler, watch: Watch
) -> Checkpoint:
    """The same with the step reached, the best score so far, the loss scaler's state and what vanished."""
    now = {"step": step, "best": best, "scaler": scaler.state_dict()}
    if watch.start:
        now["watched"] = asdict(watch)
    return replace(about, training={**about.training, **now})


def save_state(
    method: FewShotSegmenter,
    optimiser: torch.optim.Optimizer,
    about: Checkpoint,
    run: Run,
    fabric: Fabric,
) -> None:
    """Writes the resumable checkpoint, in the first process only."""
    if fabric.is_global_zero:
        save_checkpoint(run.folder / LAST, method, about, optimiser)


def resume(
    method: FewShotSegmenter,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    about: Checkpoint,
    run: Run,
) -> tuple[int, float | None, Watch]:
    """Loads the folder's last checkpoint, if there is one; returns its step, best score and watched sizes."""
    path = run.folder / LAST
    if not path.exists():
        _drop_losses_after(run.folder / LOSSES, 0)
        return 0, None, Watch()
    stored = read_checkpoint(path)
    if not {"config", "step", "best", "processes"} <= set(stored.training):
        raise ValueError(f"{path} is not a checkpoint of a training run: choose a different folder")
    with config_of(path):
        stored_identity, identity = _identity(stored), _identity(about)
        step, watched = int(stored.training["step"]), Watch(**stored.training.get("watched", {}))
        best = stored.training["best"] if stored.training["best"] is None else float(stored.training["best"])
    if stored.backbone_digest:
        stored_identity["backbone"], identity["backbone"] = stored.backbone_digest, method.backbone.digest()
    if identity != stored_identity:
        different = _differences(stored_identity, identity)
        raise ValueError(
            f"{run.folder} holds a run of a different config ({'; '.join(different[:5])}): "
            "choose a different folder, or the same config to go on"
        )
    load_tensors(method, path)
    if optimiser.defaults.get("momentum", 1.0):  # SGD without momentum has no state
        load_optimiser(optimiser, path)
    if scaler.is_enabled():
        scaler.load_state_dict(dict(stored.training["scaler"]))
    _drop_losses_after(run.folder / LOSSES, step)
    logger.info("going on from step %d of %s", step, path)
    return step, best, watched


def finished(folder: Path, steps: int) -> bool:
    """Whether a training of so many steps has come to its end in a folder."""
    if not ((folder / LAST).exists() and (folder / BEST).exists()):
        return False
    return bool(read_checkpoint(folder / LAST).training.get("step") == steps)


def _identity(about: Checkpoint) -> dict[str, Any]:
    """What two runs must share for one to go on from the other; how often it saves is not part of it."""
    config = _SINCE | about.training["config"]
    config["view"] = _SINCE_OF_VIEW | config["view"]
    config = {k: v for k, v in config.items() if k not in ("save_every", "workers")}
    return {
        "method": as_json(about.config),
        "training": config,
        "processes": about.training["processes"],
        "dataset": about.dataset,
        "class_split": about.class_split,
    }


def _drop_losses_after(path: Path, step: int) -> None:
    """Takes the lines of steps that will be run again, and broken lines, out of the log."""
    if not path.exists():
        return
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    atomic_write_text(path, "".join(line for line in lines if _logged_step(line) <= step))


def _logged_step(line: str) -> float:
    """The step of a line of the log; infinite for one that a kill or a full disk broke."""
    with suppress(ValueError, TypeError, KeyError, OverflowError):
        return int(parse_json(line)["step"]) if line.endswith("\n") else math.inf
    return math.inf


def _differences(stored: Any, given: Any, name: str = "") -> list[str]:
    if isinstance(stored, Mapping) and isinstance(given, Mapping):
        keys = sorted(set(stored) | set(given))
        return [d for k in keys for d in _differences(stored.get(k), given.get(k), f"{name}.{k}".strip("."))]
    return [] if stored == given else [f"{name}: {stored!r} there, {given!r} here"]


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
    """Trains a method in place, or goes on where an earlier run in the same folder stopped.

    Step s depends on the seed, s and the weights alone, so a resumed run gives the losses that an
    unbroken one would have given. Returns the best checkpoint (the last, without validation).
    """
    method.to(fabric.device)
    parameters = [p for p in method.parameters() if p.requires_grad]
    optimiser = config.optimiser.build(parameters)
    scaler = loss_scaler(config, fabric)
    about = describe(config, run, fabric)
    start, best, watch = resume(method, optimiser, scaler, about, run)
    step, complete = start, True  # complete: a step is over, its validation included
    with (
        progress_bar(progress and fabric.is_global_zero) as bar,
        _writer(run, fabric, start) as writer,
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
                complete = False
                scaler.step(optimiser)
                scaler.update()
                optimiser.zero_grad(set_to_none=True)
                step += 1
                bar.update(task, completed=step, description=f"training · loss {float(loss.detach()):.3f}")
                if fabric.is_global_zero and (step % _LOG_EVERY == 0 or step == config.steps):
                    _log(writer, run, step, optimiser, terms, float(norm), watch)
                if config.validate_every and run.validate and step % config.validate_every == 0:
                    now = reached(about, step, best, scaler, watch)
                    best = _validate(method, now, run, step, best, writer, fabric)
                complete = True
                if step % config.save_every == 0 and step < config.steps:
                    save_state(method, optimiser, reached(about, step, best, scaler, watch), run, fabric)
        except KeyboardInterrupt:
            if complete:
                save_state(method, optimiser, reached(about, step, best, scaler, watch), run, fabric)
            logger.warning("interrupted at step %d; the same command goes on from the last save", step)
            raise
        save_state(method, optimiser, reached(about, step, best, scaler, watch), run, fabric)
    if best is None and fabric.is_global_zero:
        save_checkpoint(run.folder / BEST, method, reached(about, step, None, scaler, watch))
    fabric.barrier()
    return run.folder / BEST


def _set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr


def _to_device(value: Any, device: torch.device) -> Any:
    """A batch with all its tensors on a device."""
    if isinstance(value, (torch.Tensor, Features)):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _to_device(getattr(value, f.name), device) for f in fields(value)})
    return value


@contextmanager
def _writer(run: Run, fabric: Fabric, start: int) -> Iterator[SummaryWriter]:
    from torch.utils.tensorboard import SummaryWriter

    run.folder.mkdir(parents=True, exist_ok=True)
    folder = run.folder / "tensorboard" / f"rank{fabric.global_rank}"
    with naming(folder / "events"):
        writer = SummaryWriter(str(folder), purge_step=start + 1 if start else None)
    try:
        yield writer
    finally:
        with naming(folder / "events"):
            writer.close()


def _add(writer: SummaryWriter, name: str, value: float, step: int) -> None:
    with naming(Path(writer.log_dir) / "events"):
        writer.add_scalar(name, value, step)


def _log(
    writer: SummaryWriter,
    run: Run,
    step: int,
    optimiser: torch.optim.Optimizer,
    terms: LossTerms,
    norm: float,
    watch: Watch,
) -> None:
    sizes = {name: float(value.detach()) for name, value in terms.watched.items()}
    watch.see(step, sizes)
    values = {name: float(value.detach()) for name, value in terms.terms.items()} | sizes
    values |= {
        "total": float(terms.total.detach()),
        "gradient_norm": norm,
        "lr": optimiser.param_groups[0]["lr"],
    }
    for name, value in values.items():
        _add(writer, f"train/{name}", value, step)
    path = run.folder / LOSSES
    with naming(path), path.open("a") as file:
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
    _add(writer, "validation/miou", score, step)
    logger.info("step %d: held-out mIoU %.4f", step, score)
    if best is not None and score <= best:
        return best
    if fabric.is_global_zero:
        save_checkpoint(
            run.folder / BEST,
            method,
            replace(about, training={**about.training, "best": score}),
        )
    return score
