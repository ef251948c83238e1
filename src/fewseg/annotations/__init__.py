"""Annotated images in, predictions out: mask files, COCO, LabelMe, Label Studio, JSON lines.

A reader gives :class:`AnnotatedImage` values, a writer takes :class:`Prediction` values; each format has both
in one file. :data:`FORMATS` has a writer for each name of a format, :func:`read_supports` recognises a format
by its content.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewseg.annotations.coco import CocoWriter as CocoWriter
    from fewseg.annotations.formats import FORMATS as FORMATS
    from fewseg.annotations.formats import WriteOptions as WriteOptions
    from fewseg.annotations.formats import iter_supports as iter_supports
    from fewseg.annotations.formats import read_supports as read_supports
    from fewseg.annotations.jsonl import JsonlWriter as JsonlWriter
    from fewseg.annotations.jsonl import read_jsonl as read_jsonl
    from fewseg.annotations.label_studio import LabelStudioWriter as LabelStudioWriter
    from fewseg.annotations.label_studio import label_studio_prediction as label_studio_prediction
    from fewseg.annotations.labelme import LabelMeWriter as LabelMeWriter
    from fewseg.annotations.mask_files import IndexPngWriter as IndexPngWriter
    from fewseg.annotations.mask_files import ProbabilityPngWriter as ProbabilityPngWriter
    from fewseg.annotations.names import output_stems as output_stems
    from fewseg.annotations.options import Format as Format
    from fewseg.annotations.options import LabelStudioNames as LabelStudioNames
    from fewseg.annotations.options import ReadOptions as ReadOptions
    from fewseg.annotations.rle import decode_brush as decode_brush
    from fewseg.annotations.rle import decode_coco as decode_coco
    from fewseg.annotations.rle import encode_brush as encode_brush
    from fewseg.annotations.rle import encode_coco as encode_coco
    from fewseg.annotations.values import AnnotatedImage as AnnotatedImage
    from fewseg.annotations.values import Mask as Mask
    from fewseg.annotations.values import Prediction as Prediction
    from fewseg.annotations.values import Problem as Problem
    from fewseg.annotations.writer import PredictionWriter as PredictionWriter

_PLACES = {
    "coco": ("CocoWriter",),
    "formats": (
        "FORMATS",
        "WriteOptions",
        "iter_supports",
        "read_supports",
    ),
    "jsonl": (
        "JsonlWriter",
        "read_jsonl",
    ),
    "label_studio": (
        "LabelStudioWriter",
        "label_studio_prediction",
    ),
    "labelme": ("LabelMeWriter",),
    "mask_files": (
        "IndexPngWriter",
        "ProbabilityPngWriter",
    ),
    "names": ("output_stems",),
    "options": (
        "Format",
        "LabelStudioNames",
        "ReadOptions",
    ),
    "rle": (
        "decode_brush",
        "decode_coco",
        "encode_brush",
        "encode_coco",
    ),
    "values": (
        "AnnotatedImage",
        "Mask",
        "Prediction",
        "Problem",
    ),
    "writer": ("PredictionWriter",),
}

__all__ = [name for names in _PLACES.values() for name in names]


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used: ``options`` alone needs no torch."""
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
