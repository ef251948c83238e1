"""Checkpoints: one safetensors file with the config inside; nothing in it can run code."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fewseg.backbones.weights import WeightsUnavailableError
from fewseg.data.folds import ClassSplit
from fewseg.engine.config_json import config_from_json
from fewseg.engine.environment import environment
from fewseg.engine.results import as_json
from fewseg.errors import first_line
from fewseg.methods.base import FewShotSegmenter, MethodConfig
from fewseg.methods.registry import method_name
from fewseg.ops.files import atomic_write_bytes, parse_json

logger = logging.getLogger(__name__)

SCHEMA = 1
_MODEL, _OPTIMISER = "model.", "optimizer."
_SLOTS = {torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}, torch.optim.SGD: {"momentum_buffer"}}
_HEADER = {"config", "recipe", "dataset", "class_split", "training", "backbone_digest"}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The header of a checkpoint file."""

    config: MethodConfig  # the method's config
    recipe: str = ""  # name of the recipe that trained it, or ""
    dataset: str = ""  # what it was trained on, or ""
    # name, fold, base and novel classes; None when not known (imported weights)
    class_split: Mapping[str, Any] | None = None
    # step, steps, seed and whatever else is known of the training
    training: Mapping[str, Any] = field(default_factory=dict)
    # digest of the frozen trunk that the head belongs to, or "" when the trunk's weights are in the file
    backbone_digest: str = ""
    digest: str = ""  # SHA-256 of the file (16 hexadecimal digits); set by ``load``


def model_tensors(method: FewShotSegmenter) -> dict[str, Tensor]:
    """The tensors of a method that training changes: a frozen backbone stays out of the file."""
    frozen = method.backbone.config.fixed
    state = method.state_dict()
    return {k: v for k, v in state.items() if not (frozen and k.startswith("backbone."))}


def split_json(split: ClassSplit | None) -> dict[str, Any] | None:
    """A class split as JSON."""
    return None if split is None else dict(as_json(split))


def save_checkpoint(
    path: Path,
    method: FewShotSegmenter,
    about: Checkpoint,
    optimiser: torch.optim.Optimizer | None = None,
    *,
    whole: bool = False,
) -> None:
    """Writes a checkpoint in one step; ``whole`` puts a frozen backbone's weights into the file too."""
    tensors = method.state_dict() if whole else model_tensors(method)
    named = {_MODEL + k: v for k, v in tensors.items()}
    if optimiser is not None:
        for index, slots in optimiser.state_dict()["state"].items():
            for slot, value in slots.items():
                named[f"{_OPTIMISER}{index}.{slot}"] = torch.as_tensor(value)
    frozen = method.backbone.config.fixed
    text = {
        "schema": SCHEMA,
        "method": method_name(about.config),
        "config": as_json(about.config),
        "recipe": about.recipe,
        "dataset": about.dataset,
        "class_split": about.class_split,
        "training": as_json(about.training),
        "backbone_digest": method.backbone.digest() if frozen and not whole else "",
        "versions": dict(environment().versions),
    }
    named = {k: v.detach().cpu().contiguous() for k, v in named.items()}
    # safetensors' own save_file leaves a file of a name like any other where the process is killed
    atomic_write_bytes(path, save(named, metadata={"fewseg": json.dumps(text)}))


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint's header, without its tensors; a pickle is never opened."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: give the .safetensors file of a training run")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a complete safetensors file ({error}): it is truncated or of a different kind. "
            "fewseg never opens pickles as checkpoints; released .pth weights go through "
            "`fewseg import-checkpoint`"
        ) from error
    if "fewseg" not in metadata:
        raise ValueError(f"{path} holds tensors but no fewseg config: it was not written by fewseg")
    text = _header(metadata["fewseg"], path)
    with config_of(path):
        config = config_from_json(text["config"])
    if not isinstance(config, MethodConfig):
        raise ValueError(f"{path} has a header that fewseg cannot read (config of no method): it was edited")
    return Checkpoint(
        config=config,
        recipe=text["recipe"],
        dataset=text["dataset"],
        class_split=text["class_split"],
        training=text["training"],
        backbone_digest=text["backbone_digest"],
        digest=_digest(path),
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _header(stored: str, path: Path) -> dict[str, Any]:
    """The JSON of a checkpoint's header."""
    try:
        text = parse_json(stored)
        newer = text["schema"] > SCHEMA
        missing = sorted(_HEADER - set(text))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} has a header that fewseg cannot read ({error!r}): it was edited") from error
    if newer:
        raise ValueError(
            f"{path} has checkpoint schema {text['schema']}, this version reads up to {SCHEMA}: update fewseg"
        )
    wrong = f"no {missing}" if missing else _wrong_entry(text)
    if wrong:
        raise ValueError(f"{path} has a header that fewseg cannot read ({wrong}): it was edited")
    return dict(text)


def _wrong_entry(text: Mapping[str, Any]) -> str:
    """Which entry of a header is not of the form that ``save_checkpoint`` writes, or ""."""
    for key in ("recipe", "dataset", "backbone_digest"):
        if not isinstance(text[key], str):
            return f"{key} is no string"
    if not isinstance(text["training"], dict):
        return "training is no object"
    split = text["class_split"]
    if split is None:
        return ""
    if not isinstance(split, dict):
        return "class_split is neither null nor an object"
    forms = {"name": str, "fold": int, "base": list, "novel": list}
    broken = [key for key, kind in forms.items() if not isinstance(split.get(key), kind)]
    broken += [k for k in ("base", "novel") if k not in broken and {type(c) for c in split[k]} - {int}]
    return f"class_split without a right {', '.join(broken)}" if broken else ""


def load_checkpoint(
    path: Path, *, backbone_weights: str | None = None
) -> tuple[FewShotSegmenter, Checkpoint]:
    """Builds the method of a checkpoint; ``backbone_weights`` is another file of the same frozen trunk."""
    about = read_checkpoint(path)
    config = about.config
    if backbone_weights is not None:
        config = _with_backbone(config, weights=backbone_weights)
    elif not about.backbone_digest:
        config = _with_backbone(config, weights=None)
    with config_of(path), torch.device("meta"):  # before memory is taken for what the config asks for
        _check_tensors(path, _with_backbone(config, weights=None).build(), whole=not about.backbone_digest)
    method: FewShotSegmenter = config.build()
    digest = method.backbone.digest() if about.backbone_digest else ""
    if digest != about.backbone_digest:
        raise ValueError(
            f"{path} was trained on a backbone with digest {about.backbone_digest[:12]}, but "
            f"{config.backbone.weights!r} gives {digest[:12]}: give the weights it was trained on"
        )
    load_tensors(method, path)
    return method.eval(), about


@contextmanager
def config_of(path: Path) -> Iterator[None]:
    """Names the file in whatever a config of it leads to."""
    try:
        yield
    except WeightsUnavailableError:
        raise
    except Exception as error:  # edited numbers lead anywhere
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} has a config that fewseg cannot use ({first_line(error)})") from error


def _check_tensors(path: Path, method: FewShotSegmenter, *, whole: bool = False) -> None:
    """Compares the tensors in a file with those of a method, by its header; a method on "meta" will do."""
    parts = method.named_modules()
    varying = {f"{name}.{k}" for name, part in parts for k in getattr(part, "varying_state", ())}
    shapes = {k: tuple(v.shape) for k, v in method.state_dict().items() if k not in varying}
    with safe_open(path, framework="pt") as file:
        keys = {k.removeprefix(_MODEL): k for k in file.keys() if k.startswith(_MODEL)}  # noqa: SIM118
        stored = {k: tuple(file.get_slice(keys[k]).get_shape()) for k in keys if k not in varying}
    needed = shapes if whole else shapes.keys() & model_tensors(method).keys()
    missing = [k for k in shapes if k in needed and k not in stored]
    unexpected = [k for k in stored if k not in shapes]
    if missing or unexpected:
        raise ValueError(
            f"{path} does not fit {type(method).__name__}: missing {missing[:5]}, "
            f"unexpected {unexpected[:5]}; load it with the config it was saved with"
        )
    wrong = [k for k, shape in stored.items() if shape != shapes[k]]
    if wrong:
        raise ValueError(
            f"{path} does not fit {type(method).__name__}: {wrong[0]} is {stored[wrong[0]]}, by the config "
            f"in the file it must be {shapes[wrong[0]]}: the file was edited"
        )


def load_method(path: Path | str, *, backbone_weights: str | None = None) -> FewShotSegmenter:
    """The method of a checkpoint alone; see ``load_checkpoint``."""
    return load_checkpoint(Path(path), backbone_weights=backbone_weights)[0]


def load_tensors(method: FewShotSegmenter, path: Path) -> None:
    """Loads a checkpoint's model tensors into a method of the same config."""
    _check_tensors(path, method)
    with safe_open(path, framework="pt") as file:
        keys = [k for k in file.keys() if k.startswith(_MODEL)]  # noqa: SIM118 - not a mapping
        state = {k.removeprefix(_MODEL): file.get_tensor(k) for k in keys}
    try:
        method.load_state_dict(state, strict=False)
    except (RuntimeError, TypeError, ValueError) as error:  # numbers of another type, a history cut off
        raise ValueError(f"{path} does not fit {type(method).__name__}: {first_line(error)}") from error


def load_optimiser(optimiser: torch.optim.Optimizer, path: Path) -> None:
    """Loads a checkpoint's optimiser state."""
    keys: dict[int, dict[str, str]] = {}
    shapes = [tuple(p.shape) for group in optimiser.param_groups for p in group["params"]]
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 - not a mapping
            index, _, slot = key.removeprefix(_OPTIMISER).partition(".")
            if key.startswith(_OPTIMISER) and index.isdecimal() and len(index) < 10:
                keys.setdefault(int(index), {})[slot] = key
        if not keys:
            raise ValueError(f"{path} holds no optimiser state: training resumes from last.safetensors only")
        for index, slots_of_parameter in keys.items():  # by the header, before memory is taken
            shape = shapes[index] if index < len(shapes) else None
            slots = {slot: () if slot == "step" else shape for slot in _SLOTS[type(optimiser)]}
            stored = {
                slot: tuple(file.get_slice(key).get_shape()) for slot, key in slots_of_parameter.items()
            }
            if stored != slots:
                raise ValueError(
                    f"{path} has a state of parameter {index} that does not fit {type(optimiser).__name__}: "
                    "the file was edited"
                )
        state = {i: {slot: file.get_tensor(k) for slot, k in slots.items()} for i, slots in keys.items()}
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _with_backbone(config: Any, **changes: Any) -> Any:
    return replace(config, backbone=replace(config.backbone, **changes))


def check_split(about: Checkpoint, split: ClassSplit, path: Path) -> None:
    """Refuses to test a checkpoint on classes that it was trained on; warns where they are not known."""
    if about.class_split is None:
        logger.warning(
            "%s does not say which classes it was trained on: make sure that %s of %s fold %d are not "
            "among them",
            path,
            list(split.novel),
            split.name,
            split.fold,
        )
        return
    trained, tested = set(about.class_split["base"]), set(split.novel)
    seen = sorted(trained & tested)
    if seen or about.class_split["name"] != split.name or about.class_split["fold"] != split.fold:
        stored = f"{about.class_split['name']} fold {about.class_split['fold']}"
        raise ValueError(
            f"{path} was trained on {stored}, the test is on {split.name} fold {split.fold}"
            + (f"; classes {seen} of the test were trained on" if seen else "")
            + ": evaluate it on its own fold"
        )
