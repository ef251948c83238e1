"""Annotated images in, predictions out: mask files, COCO, LabelMe, Label Studio, JSON lines.

A reader gives :class:`AnnotatedImage` values, a writer takes :class:`Prediction` values; each format has both
in one file. :data:`FORMATS` has a writer for each name of a format, :func:`read_supports` recognises a format
by its content.
"""

from fewseg.annotations.coco import CocoWriter
from fewseg.annotations.formats import (
    FORMATS,
    Format,
    LabelStudioNames,
    WriteOptions,
    iter_supports,
    read_supports,
)
from fewseg.annotations.jsonl import JsonlWriter, read_jsonl
from fewseg.annotations.label_studio import LabelStudioWriter, label_studio_prediction
from fewseg.annotations.labelme import LabelMeWriter
from fewseg.annotations.mask_files import IndexPngWriter, ProbabilityPngWriter
from fewseg.annotations.names import output_stems
from fewseg.annotations.rle import decode_brush, decode_coco, encode_brush, encode_coco
from fewseg.annotations.values import AnnotatedImage, Mask, Prediction, Problem, ReadOptions
from fewseg.annotations.writer import PredictionWriter

__all__ = [
    "FORMATS",
    "AnnotatedImage",
    "CocoWriter",
    "Format",
    "IndexPngWriter",
    "JsonlWriter",
    "LabelMeWriter",
    "LabelStudioNames",
    "LabelStudioWriter",
    "Mask",
    "Prediction",
    "PredictionWriter",
    "ProbabilityPngWriter",
    "Problem",
    "ReadOptions",
    "WriteOptions",
    "decode_brush",
    "decode_coco",
    "encode_brush",
    "encode_coco",
    "iter_supports",
    "label_studio_prediction",
    "output_stems",
    "read_jsonl",
    "read_supports",
]
