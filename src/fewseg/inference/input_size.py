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

    The method that was chosen is cross-validated once more for each input. That takes a backbone pass of the
    annotated images and a fit for each fold; inputs for which the passes would be more than 60 of the usual
    size are left out.

    Args:
        segmenter: a segmenter whose supports chose the method.
        images: its annotated images.
    """
    usual = segmenter.session().choice
    if usual is None or not usual.calibrated:
        return segmenter
    best, score, budget = segmenter, usual.score, _MOST
    tried = [f"{usual.input} {usual.score:.2f}"]
    sizes = [image.size for image in images]
    for model in _others(segmenter.model, usual.candidate, sizes):
        passes = sum(len(model.views.windows(size, model.size)) for size in sizes)
        budget -= passes * (model.size / segmenter.model.size) ** 2
        if budget < 0:
            break
        larger = Segmenter(model, max_pixels=segmenter.max_pixels, value_range=segmenter.value_range)
        larger.add_annotated(images)
        choice = larger.session().choice
        assert choice is not None
        tried.append(f"{choice.input} {choice.score:.2f}")
        if choice.score >= score + _WORTH:
            best, score = larger, choice.score
    logger.info("expected IoU by input: %s", ", ".join(tried))
    return best


def _others(
    model: Model, candidate: tuple[str, MethodConfig], sizes: Sequence[tuple[int, int]]
) -> list[Model]:
    """Models of other input sizes, cheapest first, for the candidate that the usual size chose."""
    others = [replace(model, candidate=candidate, size=round(_LARGER * model.size / 8) * 8 + 1)]
    longer = median(max(size) for size in sizes)
    if longer >= _LARGE * model.size:
        others.append(replace(model, candidate=candidate, views=Tiles(side=round(longer / 2))))
    return others
