"""From annotated images to masks on any other image."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewseg.inference.choose import Choice as Choice
    from fewseg.inference.choose import ExpectedClass as ExpectedClass
    from fewseg.inference.find import find_images as find_images
    from fewseg.inference.folder_run import RunReport as RunReport
    from fewseg.inference.folder_run import label as label
    from fewseg.inference.folder_run import label_images as label_images
    from fewseg.inference.images import ImageLike as ImageLike
    from fewseg.inference.images import MaskLike as MaskLike
    from fewseg.inference.model import EncodedImage as EncodedImage
    from fewseg.inference.model import Model as Model
    from fewseg.inference.model import PreparedImage as PreparedImage
    from fewseg.inference.model import Tiles as Tiles
    from fewseg.inference.model import Views as Views
    from fewseg.inference.model import Whole as Whole
    from fewseg.inference.model import load_model as load_model
    from fewseg.inference.onnx import Exported as Exported
    from fewseg.inference.onnx import export as export
    from fewseg.inference.onnx import on_onnx_runtime as on_onnx_runtime
    from fewseg.inference.options import DEFAULT_MODEL as DEFAULT_MODEL
    from fewseg.inference.options import ExportOptions as ExportOptions
    from fewseg.inference.options import LabelOptions as LabelOptions
    from fewseg.inference.options import ModelOptions as ModelOptions
    from fewseg.inference.options import RunOptions as RunOptions
    from fewseg.inference.quality import ClassQuality as ClassQuality
    from fewseg.inference.quality import Quality as Quality
    from fewseg.inference.segmentation import Segmentation as Segmentation
    from fewseg.inference.segmentation import Session as Session
    from fewseg.inference.segmenter import Segmenter as Segmenter
    from fewseg.inference.supports import ClassSupport as ClassSupport
    from fewseg.inference.supports import SupportImage as SupportImage
    from fewseg.inference.supports import SupportSet as SupportSet

_PLACES = {
    "choose": ("Choice", "ExpectedClass"),
    "find": ("find_images",),
    "folder_run": ("RunReport", "label", "label_images"),
    "images": ("ImageLike", "MaskLike"),
    "model": ("EncodedImage", "Model", "PreparedImage", "Tiles", "Views", "Whole", "load_model"),
    "onnx": ("Exported", "export", "on_onnx_runtime"),
    "options": ("DEFAULT_MODEL", "ExportOptions", "LabelOptions", "ModelOptions", "RunOptions"),
    "quality": ("ClassQuality", "Quality"),
    "segmentation": ("Segmentation", "Session"),
    "segmenter": ("Segmenter",),
    "supports": ("ClassSupport", "SupportImage", "SupportSet"),
}

__all__ = [name for names in _PLACES.values() for name in names]


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used: ``options`` alone needs no torch."""
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
