"""Annotated images in, predictions out: mask files, COCO, LabelMe, Label Studio, JSON lines."""

from fewseg.inference.formats.brush_rle import decode_brush, encode_brush
from fewseg.inference.formats.coco_rle import decode_coco, encode_coco
from fewseg.inference.formats.coco_writer import CocoWriter
from fewseg.inference.formats.image_names import output_stems
from fewseg.inference.formats.journalled import JsonlWriter
from fewseg.inference.formats.jsonl import read_jsonl
from fewseg.inference.formats.label_studio_writer import LabelStudioWriter, label_studio_prediction
from fewseg.inference.formats.labelme_writer import LabelMeWriter
from fewseg.inference.formats.png import IndexPngWriter, ProbabilityPngWriter
from fewseg.inference.formats.reading import iter_supports, read_supports
from fewseg.inference.formats.values import AnnotatedImage, Mask, Prediction, Problem, ReadOptions
from fewseg.inference.formats.writer import PredictionWriter

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
