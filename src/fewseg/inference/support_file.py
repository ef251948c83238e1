"""Encoded support sets as files: tensors and a JSON header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fewseg.data.errors import DataError
from fewseg.inference.model import EncodedImage, Model
from fewseg.inference.supports import Shot, SupportSet
from fewseg.inference.views import Window
from fewseg.ops.files import atomic_path
from fewseg.ops.geometry import letterbox
from fewseg.types import Features

_KEY, _SCHEMA = "fewseg-supports", 1


def save_supports(path: Path, supports: SupportSet, model: Model) -> None:
    """Writes a support set in one step.

    Args:
        path: the file, ``.safetensors`` by custom.
        supports: encoded by the model.
        model: whose digest the file bears.

    Raises:
        OSError: the file could not be written; an older one is unchanged.
    """
    tensors: dict[str, torch.Tensor] = {}
    shots: list[dict[str, Any]] = []
    for i, shot in enumerate(supports.shots):
        for level, maps in shot.image.features.maps.items():
            tensors[f"features.{i}.{level}"] = maps.detach().cpu().contiguous()
        for name, mask in shot.masks.items():
            tensors[f"masks.{i}.{supports.classes.index(name)}"] = mask.cpu().contiguous()
        windows = [[w.top, w.left, *w.box.original, w.box.size] for w in shot.image.windows]
        shots.append(
            {
                "size": list(shot.image.size),
                "image_size": list(shot.image.features.image_size),
                "digest": shot.image.digest,
                "windows": windows,
                "levels": list(shot.image.features.maps),
                "masks": [supports.classes.index(name) for name in shot.masks],
            }
        )
    header = {
        "schema": _SCHEMA,
        "model": model.digest,
        "model_name": model.name,
        "classes": list(supports.classes),
        "shots": shots,
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: json.dumps(header)})


def load_supports(path: Path, model: Model) -> SupportSet:
    """Reads a support set.

    Args:
        path: the file.
        model: that must have encoded it.

    Raises:
        DataError: the file is missing, broken, of another kind or a newer version, or of another model.
    """
    if not path.is_file():
        raise DataError(f"there is no support set at {path}: give a file of save_supports")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise DataError(f"{path} is no support set of fewseg: give a file of save_supports")
            header = json.loads(metadata[_KEY])
            _check(header, path, model)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        return _supports(header, tensors, model)
    except DataError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path} is no whole support set ({error}): save it again") from error


def _check(header: dict[str, Any], path: Path, model: Model) -> None:
    if header["schema"] > _SCHEMA:
        raise DataError(
            f"{path} has support schema {header['schema']}, this version reads up to {_SCHEMA}: update fewseg"
        )
    if header["model"] != model.digest:
        raise DataError(
            f"{path} was encoded by the model {header['model']} ({header['model_name']}), this one is "
            f"{model.digest} ({model.name}): features of one model mean nothing to another. Use the same "
            "checkpoint, input size, views, fusion and precision, or encode the supports again"
        )


def _supports(header: dict[str, Any], tensors: dict[str, torch.Tensor], model: Model) -> SupportSet:
    classes = tuple(str(name) for name in header["classes"])
    shots = []
    for i, said in enumerate(header["shots"]):
        maps = {}
        for level in said["levels"]:
            # one layout, that of fresh features: sums over channels come out the same to the last bit
            stored = tensors[f"features.{i}.{level}"].to(model.device)
            maps[level] = stored.contiguous(memory_format=torch.channels_last)
        windows = tuple(Window(t, left, letterbox((h, w), size)) for t, left, h, w, size in said["windows"])
        image = EncodedImage(
            features=Features(maps=maps, image_size=_pair(said["image_size"])),
            windows=windows,
            size=_pair(said["size"]),
            digest=str(said["digest"]),
            model=model.digest,
        )
        masks = {classes[j]: tensors[f"masks.{i}.{j}"] for j in said["masks"]}
        for stored in (*maps.values(), *masks.values()):
            if len(stored) != len(windows):
                raise ValueError(f"image {i} has {len(windows)} views and tensors of {len(stored)}")
        shots.append(Shot(image=image, masks=masks))
    found = SupportSet(classes=classes, shots=tuple(shots))
    if not classes or not all(found.positives(name) for name in classes):
        raise ValueError("it shows no class, or not all that it names")
    return found


def _pair(values: list[int]) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)
