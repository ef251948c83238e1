"""Annotated images in, predictions out: mask files, COCO, LabelMe, Label Studio, JSON lines."""

from fewseg.annotations.coco import CocoWriter
from fewseg.annotations.label_studio import LabelStudioWriter, label_studio_prediction
from fewseg.annotations.labelme import LabelMeWriter
from fewseg.annotations.mask_files import IndexPngWriter, ProbabilityPngWriter
from fewseg.annotations.reading import iter_supports, read_supports
from fewseg.annotations.rle import decode_brush, decode_coco, encode_brush, encode_coco
from fewseg.annotations.values import AnnotatedImage, Mask, Prediction, Problem, ReadOptions, output_stems
from fewseg.annotations.writer import JsonlWriter, PredictionWriter, read_jsonl

__all__ = [
    "AnnotatedImage",
    "CocoWriter",
    "IndexPngWriter",
    "JsonlWriter",
    "LabelMeWriter",
    "LabelStudioWriter",
    "Mask",
    "Prediction",
    "PredictionWriter",
    "ProbabilityPngWriter",
    "Problem",
    "ReadOptions",
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
