"""Segmenters as folders and as Hugging Face repositories: weights, settings, supports and a model card.

All of it is safetensors, JSON and Markdown: nothing in it can run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fewseg.backbones.weights import unreachable
from fewseg.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fewseg.engine.config_json import config_from_json
from fewseg.engine.environment import precision_on
from fewseg.engine.results import as_json
from fewseg.errors import first_line
from fewseg.inference.model import Model, Tiles, Whole
from fewseg.inference.supports import SupportSet, precision_of_supports, save_supports
from fewseg.methods.registry import method_name
from fewseg.ops.files import atomic_write_text, parse_json, temporary_folder
from fewseg.recipes.resolve import best_device
from fewseg.reports.frame import load_results
from fewseg.reports.numbers import percent
from fewseg.reports.templating import render
from fewseg.types import DataError

MODEL, SETTINGS, SUPPORTS, CARD = "model.safetensors", "segmenter.json", "supports.safetensors", "README.md"
_SCHEMA = 1
_FORMS: Mapping[str, tuple[type, ...]] = {
    "schema": (int,),
    "name": (str,),
    "size": (int,),
    "views": (dict,),
    "fusion": (str,),
    "chooses": (bool,),
    "refine": (bool, type(None)),
}


def save(
    model: Model,
    supports: SupportSet | None,
    folder: Path,
    *,
    place: str = "",
    licence: str = "",
    results: str | Path | None = None,
) -> None:
    """Writes a model and its supports; the card names ``place``, by default the folder, to load them from.

    Raises:
        ValueError: the folder holds supports and no model, so that they were saved by other means.
    """
    if (folder / SUPPORTS).exists() and not (folder / MODEL).exists():
        raise ValueError(
            f"{folder} holds a {SUPPORTS} and no {MODEL}: give another folder, as this one's supports would "
            "be replaced"
        )
    about = model.about or Checkpoint(config=model.config)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "schema": _SCHEMA,
        "fewseg": version("fewseg"),
        "name": model.name,
        "size": model.size,
        "views": as_json(model.views),
        "fusion": model.method.fusion.kind,
        "chooses": model.chooses,
        "refine": model.refine,
    }
    save_checkpoint(folder / MODEL, model.method, about, whole=True)
    if supports is None:
        (folder / SUPPORTS).unlink(missing_ok=True)
    else:
        save_supports(folder / SUPPORTS, supports, model)
    classes = () if supports is None else supports.classes
    atomic_write_text(folder / CARD, card(model, classes, about, place or folder.name, licence, results))
    atomic_write_text(folder / SETTINGS, json.dumps(settings, indent=1) + "\n")


def card(
    model: Model,
    classes: Sequence[str],
    about: Checkpoint,
    place: str,
    licence: str,
    results: str | Path | None,
) -> str:
    """The model card: method, training, classes, scores, and how to use it."""
    scores = []
    if results is not None and about.digest:
        frame = load_results(results).frame
        scores = [
            {
                "what": f"{row.dataset} fold {row.fold}, {row.ways}-way {row.shots}-shot, {row.fusion}",
                "protocol": row.protocol,
                "miou": f"{percent(row.miou)} [{percent(row.miou_low)}, {percent(row.miou_high)}]",
            }
            for row in frame[frame.checkpoint == about.digest].itertuples()
        ]
    split = about.class_split or {}
    return render(
        "model_card.md",
        licence=licence,
        place=place,
        name=model.name,
        method=method_name(about.config),
        backbone=about.config.backbone.name,
        size=model.size,
        recipe=about.recipe,
        dataset=about.dataset,
        fold=split.get("fold"),
        novel=split.get("novel", []),
        classes=classes,
        scores=scores,
        version=version("fewseg"),
    )


def load(
    name: str | Path,
    *,
    revision: str | None = None,
    device: torch.device | str | None = None,
    local_files_only: bool = False,
) -> tuple[Model, Path | None]:
    """Loads a model, and the path of its supports; see ``Segmenter.from_pretrained``."""
    folder = Path(name) if Path(name).is_dir() else _downloaded(str(name), revision, local_files_only)
    if not (folder / MODEL).is_file() or not (folder / SETTINGS).is_file():
        raise DataError(
            f"{name} has no {MODEL} with {SETTINGS}: it was not written by Segmenter.save_pretrained; other "
            "formats, and pickles above all, are never opened"
        )
    settings = _settings(folder / SETTINGS)
    method, about = load_checkpoint(folder / MODEL)
    try:
        method.fusion = method.fusion_named(settings["fusion"])
    except ValueError as error:
        raise DataError(f"{folder / SETTINGS}: {error}") from error
    target = torch.device(device) if device is not None else best_device()
    supports = folder / SUPPORTS
    model = Model(
        method.to(target).to(memory_format=torch.channels_last),
        about.config,
        settings["size"],
        config_from_json(settings["views"], Whole, Tiles),
        settings["name"],
        precision=precision_of_supports(supports) if supports.is_file() else precision_on(target),
        chooses=settings["chooses"],
        refine=settings["refine"],
        about=about,
    )
    return model, supports if supports.is_file() else None


def push(
    model: Model,
    supports: SupportSet | None,
    name: str,
    *,
    private: bool = False,
    token: str | None = None,
    licence: str = "",
    results: str | Path | None = None,
) -> str:
    """Uploads a model and its supports; see ``Segmenter.push_to_hub``."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    api = HfApi(endpoint=constants.ENDPOINT, token=token)
    with temporary_folder() as folder:
        save(model, supports, folder, place=name, licence=licence, results=results)
        try:
            api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message=f"fewseg {version('fewseg')}")
        except (HFValidationError, LocalTokenNotFoundError, OSError, RuntimeError) as error:
            raise ValueError(
                f"could not upload to {name!r} ({first_line(error)}): give owner/name, log in with `hf auth "
                "login`, and check the network"
            ) from error
    return f"{constants.ENDPOINT}/{name}"


def _downloaded(name: str, revision: str | None, local_files_only: bool) -> Path:
    """The cached copy of a repository, with only the files that ``save`` writes."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    local = local_files_only or constants.HF_HUB_OFFLINE
    reason = "" if local else unreachable(constants.ENDPOINT)
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=[MODEL, SETTINGS, SUPPORTS, CARD],
                local_files_only=bool(local or reason),
                endpoint=constants.ENDPOINT,
            )
        )
    except HFValidationError as error:
        raise ValueError(f"{name!r} is no folder, and no name of a repository: give owner/name") from error
    except RevisionNotFoundError as error:
        raise ValueError(
            f"{name} has no revision {revision!r}: give a branch, tag or commit of it"
        ) from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"{name!r} is no folder, and {constants.ENDPOINT} has no such repository, or a private one: "
            "check its name, or log in with `hf auth login`"
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"{name!r} is no folder and not in the cache, and {constants.ENDPOINT} "
            + (f"cannot be reached ({reason})" if reason else "was not asked" if local else "gave no answer")
            + ": try again with a network, or give a folder"
        ) from error


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): save the segmenter again") from error
    schema = settings.get("schema") if isinstance(settings, dict) else None
    if isinstance(schema, int) and schema > _SCHEMA:
        raise DataError(f"{path} has schema {schema}, this version reads up to {_SCHEMA}: update fewseg")
    wrong = [
        key
        for key, kinds in _FORMS.items()
        if not isinstance(settings, dict) or type(settings.get(key, ...)) not in kinds
    ]
    if wrong:
        raise DataError(f"{path} has no valid {', '.join(wrong)}: save the segmenter again")
    return dict(settings)
