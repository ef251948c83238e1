"""Which input size, or which tiles, suit a user's own annotated images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from fewseg.annotations.values import AnnotatedImage
from fewseg.inference.model import Model, Tiles
from fewseg.inference.segmenter import Segmenter
from fewseg.methods.base import MethodConfig

logger = logging.getLogger(__name__)

_LARGER = 1.5
_LARGE = 2.0  # tiles are tried from this many sides of the input on
_MOST = 60.0  # further passes of the usual size that the annotated images may take
_WORTH = 0.02  # least gain in expected IoU for a larger input, which takes longer


def with_fitting_input(segmenter: Segmenter, images: Sequence[AnnotatedImage]) -> Segmenter:
    """The segmenter, or one with a larger input or tiles if that gains two points of IoU on the examples.

    The method that was chosen is cross-validated once more for each input, and the choice gets the scores
    (``inputs``). That takes a backbone pass of the annotated images and a fit for each fold; inputs for which
    the passes would be more than 60 of the usual size are left out.

    Args:
        segmenter: a segmenter whose supports chose the method.
        images: its annotated images.
    """
    usual = segmenter.session().choice
    if usual is None or not usual.calibrated:
        return segmenter
    best, chosen, budget = segmenter, usual, _MOST
    tried = dict(usual.inputs)
    sizes = [image.size for image in images]
    for model in _others(segmenter.model, usual.candidate, sizes):
        passes = sum(len(model.views.windows(size, model.size)) for size in sizes)
        budget -= passes * (model.size / segmenter.model.size) ** 2
        if budget < 0:
            break
        other = Segmenter(model, max_pixels=segmenter.max_pixels, value_range=segmenter.value_range)
        other.add_annotated(images)
        choice = other.session().choice
        assert choice is not None
        tried |= choice.inputs
        if choice.score >= chosen.score + _WORTH:
            best, chosen = other, choice
    logger.info("expected IoU by input: %s", ", ".join(f"{name} {iou:.2f}" for name, iou in tried.items()))
    best.session().choice = replace(chosen, inputs=tried)
    return best


def larger(size: int) -> int:
    """The input size to try after this one; of the form 8k + 1."""
    return round(_LARGER * size / 8) * 8 + 1


def _others(
    model: Model, candidate: tuple[str, MethodConfig], sizes: Sequence[tuple[int, int]]
) -> list[Model]:
    """Models of other input sizes, cheapest first, for the candidate that the usual size chose."""
    others = [replace(model, candidate=candidate, size=larger(model.size))]
    longer = median(max(size) for size in sizes)
    if longer >= _LARGE * model.size:
        others.append(replace(model, candidate=candidate, views=Tiles(side=round(longer / 2))))
    return others
