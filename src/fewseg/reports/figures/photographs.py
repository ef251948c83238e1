"""Figures that show photographs: grids of pictures, marked masks and maps laid over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from fewseg.data.transforms import binary_mask
from fewseg.ops.resize import resize
from fewseg.reports.figures.style import MAP_COLOURS, new_figure
from fewseg.reports.figures.subjects import Opened, Shot
from fewseg.reports.marked_pictures import Picture, picture_of, spotlight

Map = npt.NDArray[np.float32]

_SIDE, _NOTE = 1.7, 0.2  # inches
LEGEND = "outlined: marked; orange inside the outline: wrong; blue outside it: missed"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture of a grid.

    Attributes:
        picture: None leaves the place empty.
        note: a line below it.
    """

    picture: Picture | None
    note: str = ""


def read(opened: Opened, image: str, class_id: int) -> tuple[Picture, Picture]:
    """An image (H, W, 3) and its mask (H, W) in {0, 1, 255}, at its own size."""
    mask = binary_mask(opened.data.source.read_labels(image), class_id)
    return picture_of(opened.data.source.read_image(image)), np.asarray(mask.numpy()).astype(np.uint8)


def shown_support(opened: Opened, shot: Shot) -> Picture:
    """A support with its mask marked, at its own size."""
    return spotlight(*read(opened, shot.image, shot.class_id))


def network_view(opened: Opened, image: str) -> Picture:
    """What the network sees of an image, without the padding."""
    pixels = opened.store.view(image, 0)[0]
    h, w = opened.box(image).content
    return picture_of((pixels[:, :h, :w] * 255).round().to(torch.uint8))


def on_pixels(opened: Opened, image: str, cells: Tensor) -> Map:
    """A map (h, w) of cells, brought to the pixels of ``network_view``."""
    size = opened.store.size
    h, w = opened.box(image).content
    return np.asarray(resize(cells.float()[None, None], (size, size))[0, 0, :h, :w].cpu().numpy())


def unit_range(values: Map) -> Map:
    """Values brought linearly to [0, 1]; zeros where they are all alike."""
    low, high = float(values.min()), float(values.max())
    return np.asarray((values - low) / (high - low) if high > low else np.zeros_like(values))


def overlay(picture: Picture, values: Map, truth: npt.NDArray[np.bool_] | None = None) -> Picture:
    """Lays a map over a picture: colours say the value, the picture shows through in grey.

    Args:
        picture: (H, W, 3).
        values: (H, W) in [0, 1].
        truth: (H, W), outlined in white.
    """
    colours = colormaps[MAP_COLOURS](values)[..., :3] * 255
    mixed: Picture = (0.35 * picture.mean(axis=2, keepdims=True) + 0.65 * colours).astype(np.uint8)
    if truth is None:
        return np.asarray(mixed)
    grown = np.pad(truth, 1, mode="edge")
    whole = grown[:-2, 1:-1] & grown[2:, 1:-1] & grown[1:-1, :-2] & grown[1:-1, 2:]
    return np.where((truth & ~whole)[..., None], np.uint8(255), mixed)


def grid(rows: Sequence[Sequence[Panel]], columns: Sequence[str], names: Sequence[str], title: str) -> Figure:
    """A grid of pictures.

    Args:
        rows: of equal length.
        columns: their headings.
        names: of the rows.
        title: above all.
    """
    heights = [_SIDE * max(map(_aspect, row)) + _NOTE for row in rows]
    figure = new_figure(_SIDE * len(columns) + 0.6, sum(heights) + 0.9)
    axes = figure.subplots(len(rows), len(columns), squeeze=False, height_ratios=heights)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            place = axes[i][j]
            place.set_xticks([])
            place.set_yticks([])
            place.spines[:].set_visible(False)
            if panel.picture is not None:
                place.imshow(panel.picture)
            if panel.note:
                place.set_xlabel(panel.note, fontsize=7, labelpad=2)
            if i == 0:
                place.set_title(columns[j], fontsize=8)
            if j == 0:
                place.set_ylabel(names[i], fontsize=8)
    figure.suptitle(title, fontsize=9)
    return figure


def _aspect(panel: Panel) -> float:
    """Height over width; 0 of an empty place."""
    return 0.0 if panel.picture is None else panel.picture.shape[0] / panel.picture.shape[1]


def add_scale(figure: Figure, label: str) -> None:
    """Adds the scale of maps in [0, 1] on the right."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), MAP_COLOURS), ax=figure.axes, shrink=0.6, aspect=30, pad=0.01
    )
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
