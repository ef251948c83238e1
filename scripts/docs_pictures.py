"""Draws the picture of the README: annotated drawings, and what a training-free model makes of others.

``python scripts/docs_pictures.py [MODEL]``; by default the model is ``fitted_resnet50``, whose backbone's
weights are downloaded once. Nothing is picked: the annotated pictures are the first of the set with a star,
the others the next.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image

from fewseg import Segmenter
from fewseg.data import SyntheticSource
from fewseg.types import IGNORE

OUT = Path(__file__).parents[1] / "docs" / "figures" / "overview.png"
CLASS_ID, SIDE, GIVEN, SHOWN = 19, 193, 3, 4
MARK = np.array([0, 150, 136])


def panel(axis: Axes, image: NDArray[np.uint8], mask: NDArray[np.bool_], title: str) -> None:
    """An image with its mask: outlined, and all around it paled."""
    paled = np.where(mask[..., None], image, 0.25 * image + 190)
    axis.imshow(paled.astype(np.uint8))
    axis.contour(mask, levels=[0.5], colors=[MARK / 255], linewidths=1.6)
    axis.set_title(title, fontsize=10, color="#5f6b6d")
    axis.axis("off")


def main() -> None:
    """Writes the picture."""
    source = SyntheticSource(2 * (GIVEN + SHOWN), SIDE, classes=[9, CLASS_ID])
    ids = [id for id in source.ids if (source.read_labels(id) == CLASS_ID).sum() > 1000][: GIVEN + SHOWN]
    images = [source.read_image(id).permute(1, 2, 0).numpy() for id in ids]
    labels = [source.read_labels(id).numpy() for id in ids]
    segmenter = Segmenter.from_checkpoint(sys.argv[1] if len(sys.argv) > 1 else "fitted_resnet50", size=241)
    for image, given in zip(images[:GIVEN], labels[:GIVEN], strict=True):
        mask = (given == CLASS_ID).astype(np.uint8)
        mask[given == IGNORE] = IGNORE
        segmenter.add_image(image, {"star": mask})
    figure, axes = plt.subplots(1, GIVEN + SHOWN, figsize=(13, 2.05), dpi=110, layout="constrained")
    for i, (axis, image) in enumerate(zip(axes, images, strict=True)):
        if i < GIVEN:
            panel(axis, image, labels[i] == CLASS_ID, "annotated")
        else:
            panel(axis, image, segmenter.segment(image).mask("star"), "found")
    written = io.BytesIO()
    figure.savefig(written, facecolor="white")
    Image.open(written).convert("RGB").quantize(192).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
