"""A page of small pictures of what was labelled, the lowest quality first."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewseg.annotations.jsonl import read_jsonl
from fewseg.annotations.mask_files import voc_palette
from fewseg.annotations.values import Mask
from fewseg.inference.outputs import LINES
from fewseg.ops.files import atomic_write_bytes, atomic_write_text

THUMBS = ".thumbnails"
SHEET = "contact-sheet.html"
_SIDE = 240
_OPACITY = 0.5


def thumbnail(pixels: Tensor) -> NDArray[np.uint8]:
    """An image (3, H, W) uint8 as (h, w, 3), its longer side at most 240 pixels."""
    step = -(-max(pixels.shape[-2:]) // _SIDE)
    small: NDArray[np.uint8] = pixels[:, ::step, ::step].permute(1, 2, 0).contiguous().numpy()
    return small


def write_thumbnail(folder: Path, name: str, thumb: NDArray[np.uint8], labels: Mask) -> None:
    """Writes a thumbnail with the labels (H, W) in colour over it, and a line around them."""
    step = -(-max(labels.shape) // _SIDE)
    small = labels[::step, ::step]
    palette = _colours().astype(np.float32)
    marked = (small > 0)[..., None]
    mixed = np.where(marked, thumb * (1 - _OPACITY) + palette[small] * _OPACITY, thumb)
    mixed[:, 1:][small[:, 1:] != small[:, :-1]] = 255
    mixed[1:][small[1:] != small[:-1]] = 255
    file = io.BytesIO()
    Image.fromarray(mixed.astype(np.uint8)).save(file, format="JPEG", quality=80)
    atomic_write_bytes(_path(folder, name), file.getvalue())


def _path(folder: Path, name: str) -> Path:
    return folder / (hashlib.sha256(name.encode()).hexdigest()[:32] + ".jpg")


def _colours() -> NDArray[np.uint8]:
    return np.array(voc_palette(), dtype=np.uint8).reshape(-1, 3)


def write_sheet(folder: Path, problems: Mapping[str, str], most: int) -> None:
    """Writes one HTML file of a run's ``most`` images of the lowest quality, with all it shows in it."""
    classes: tuple[str, ...] = ()
    found: list[tuple[float, str, Mapping[str, Any]]] = []
    for prediction in read_jsonl(folder / LINES):  # one by one: each holds a label map
        classes = prediction.classes  # the same in all lines
        score = float(str(prediction.facts.get("quality", min(prediction.scores))))
        found.append((score, prediction.name, prediction.facts))
    found.sort(key=lambda item: item[0])
    environment = Environment(loader=PackageLoader("fewseg.inference"), autoescape=True)
    text = environment.get_template("contact_sheet.html").render(
        count=len(found),
        left_out=max(0, len(found) - most),
        legend=list(zip(classes, _colours()[1:].tolist(), strict=False)),
        problems=problems,
        cards=[_card(folder / THUMBS, *item) for item in found[:most]],
    )
    atomic_write_text(folder / SHEET, text)


def _card(thumbs: Path, score: float, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    lines = []
    for label, part in facts.get("parts", {}).items():
        shown = [f"{k} {part[k]:.2f}" for k in ("reverse", "agreement", "margin") if part[k] is not None]
        lines.append(f"{label}: {part['score']:.2f} ({', '.join(shown)})")
    if not lines:
        lines = [f"{label}: presence {value:.2f}" for label, value in facts.get("presence", {}).items()]
    thumb = _path(thumbs, name)
    return {
        "name": name,
        "score": score,
        "calibrated": facts.get("calibrated", True),
        "lines": lines,
        "thumbnail": base64.b64encode(thumb.read_bytes()).decode() if thumb.is_file() else "",
    }
