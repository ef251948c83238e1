"""From annotated images to masks on any other image."""

from fewseg.inference.images import ImageLike, MaskLike
from fewseg.inference.loading import DEFAULT, load_model
from fewseg.inference.model import EncodedImage, Model, PreparedImage, Tiles, Views, Whole
from fewseg.inference.segmentation import ClassQuality, Quality, Segmentation
from fewseg.inference.segmenter import Segmenter
from fewseg.inference.session import Session
from fewseg.inference.supports import ClassSupport, Shot, SupportSet

__all__ = [
    "DEFAULT",
    "ClassQuality",
    "ClassSupport",
    "EncodedImage",
    "ImageLike",
    "MaskLike",
    "Model",
    "PreparedImage",
    "Quality",
    "Segmentation",
    "Segmenter",
    "Session",
    "Shot",
    "SupportSet",
    "Tiles",
    "Views",
    "Whole",
    "load_model",
]
