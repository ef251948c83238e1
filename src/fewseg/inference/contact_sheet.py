"""A page of small pictures of what was labelled, the least trusted first."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewseg.annotations import Prediction, read_jsonl
from fewseg.annotations.mask_files import voc_palette
from fewseg.annotations.values import Mask
from fewseg.ops.files import atomic_write_bytes, atomic_write_text
from fewseg.reports.html import Markup, element, joined, page, table

THUMBS = ".thumbnails"
SHEET = "contact-sheet.html"
_SIDE = 240
_OPACITY = 0.5


def thumbnail(pixels: Tensor) -> NDArray[np.uint8]:
    """Returns an image (3, H, W) uint8 as (h, w, 3), its longer side at most 240 pixels."""
    step = -(-max(pixels.shape[-2:]) // _SIDE)
    small: NDArray[np.uint8] = pixels[:, ::step, ::step].permute(1, 2, 0).contiguous().numpy()
    return small


def write_thumbnail(folder: Path, name: str, thumb: NDArray[np.uint8], labels: Mask) -> None:
    """Writes a thumbnail with the labels (H, W) in colour over it, and a line around them.

    Raises:
        OSError: it could not be written; nothing is left half.
    """
    step = -(-max(labels.shape) // _SIDE)
    small = labels[::step, ::step]
    palette = _colours().astype(np.float32)
    marked = (small > 0)[..., None]
    mixed = np.where(marked, thumb * (1 - _OPACITY) + palette[small] * _OPACITY, thumb)
    mixed[_rims(small)] = 255
    file = io.BytesIO()
    Image.fromarray(mixed.astype(np.uint8)).save(file, format="JPEG", quality=80)
    atomic_write_bytes(_path(folder, name), file.getvalue())


def _path(folder: Path, name: str) -> Path:
    return folder / (hashlib.sha256(name.encode()).hexdigest()[:32] + ".jpg")


def _rims(labels: Mask) -> NDArray[np.bool_]:
    rims = np.zeros(labels.shape, dtype=np.bool_)
    rims[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    rims[1:] |= labels[1:] != labels[:-1]
    return rims


def write_sheet(folder: Path, lines: Path, problems: Mapping[str, str], most: int = 300) -> Path:
    """Writes one HTML file, with all it shows in it.

    Args:
        folder: of the run.
        lines: its ``predictions.jsonl``.
        problems: images that could not be used.
        most: how many images it shows; the others have a higher quality.

    Returns:
        Its path.

    Raises:
        DataError: the lines are broken.
        OSError: it could not be written.
    """
    classes: tuple[str, ...] = ()
    found = []
    for prediction in read_jsonl(lines):
        classes = prediction.classes  # the same in all lines
        found.append(_told(prediction))
    found.sort(key=lambda item: item[0])
    cards = [_card(folder / THUMBS, name, facts, score) for score, name, facts in found[:most]]
    left = f" The {len(found) - most} with the highest are left out." if len(found) > most else ""
    intro = (
        f"{len(found)} images, lowest quality first.{left} Quality is judged without labels: whether the "
        "mask, taken as a support, finds the supports' own masks (reverse), whether the mask stays when one "
        "support is left out (agreement), and how decided the probabilities are (margin). With one support "
        "there is nothing to scale it by: it is uncalibrated."
    )
    content: list[Markup | str] = [element("h1", "Contact sheet"), element("p", intro), _legend(classes)]
    if problems:
        rows = [[name, text] for name, text in problems.items()]
        content.append(table(["image", "what is wrong"], rows, "Images that were skipped", text_columns=2))
    style = Markup(
        "<style>.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:1rem}"
        ".cards figure{margin:0}.cards img{max-width:100%;height:auto;display:block}"
        ".cards figcaption{overflow-wrap:anywhere;font-size:.85rem}"
        ".legend{display:flex;flex-wrap:wrap;gap:.3rem 1rem;list-style:none;padding:0}"
        ".legend i{display:inline-block;width:1em;height:1em;margin-right:.4em;vertical-align:-.1em;"
        "border:1px solid currentColor;border-radius:.2em}</style>"
    )
    content += [style, element("div", joined(cards), class_="cards")]
    path = folder / SHEET
    atomic_write_text(path, page("Contact sheet", *content))
    return path


def _legend(classes: Sequence[str]) -> Markup:
    """The colour of each class, which is mixed with the image's on the pictures."""
    items = []
    for name, colour in zip(classes, _colours()[1:], strict=False):
        swatch = element("i", aria_hidden="true", style=f"background:rgb({','.join(map(str, colour))})")
        items.append(element("li", swatch, name))
    return element("ul", joined(items), class_="legend", aria_label="Colours of the classes")


def _colours() -> NDArray[np.uint8]:
    return np.array(voc_palette(), dtype=np.uint8).reshape(-1, 3)


def _told(prediction: Prediction) -> tuple[float, str, Mapping[str, Any]]:
    facts = dict(prediction.facts)
    score = facts.get("quality", min(prediction.scores))
    return float(str(score)), prediction.name, facts


def _card(thumbs: Path, name: str, facts: Mapping[str, Any], score: float) -> Markup:
    lines: list[str] = []
    for label, part in facts.get("parts", {}).items():
        shown = [f"{k} {part[k]:.2f}" for k in ("reverse", "agreement", "margin") if part[k] is not None]
        lines.append(f"{label}: {part['score']:.2f} ({', '.join(shown)})")
    if not lines:
        lines = [f"{label}: presence {value:.2f}" for label, value in facts.get("presence", {}).items()]
    kind = "" if facts.get("calibrated", True) else ", uncalibrated"
    heading = element("strong", f"{score:.2f}{kind} ")
    caption = element("figcaption", heading, name, *(Markup("<br>" + str(_text(line))) for line in lines))
    path = _path(thumbs, name)
    if not path.is_file():
        return element("figure", caption)
    uri = "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()
    image = Markup(f'<img src="{uri}" alt="" loading="lazy">')
    return element("figure", image, caption)


def _text(line: str) -> Markup:
    return element("span", line)
