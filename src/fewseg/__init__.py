"""fewseg: few-shot segmentation, from one to a few annotated images to masks on any other image."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewseg.engine.checkpoint import load_method
    from fewseg.inference import Segmenter
    from fewseg.methods import create_method, list_methods

__version__ = "0.1.0"
__all__ = ["Segmenter", "__version__", "create_method", "list_methods", "load_method"]

_MODULES = {
    "Segmenter": "fewseg.inference",
    "create_method": "fewseg.methods",
    "list_methods": "fewseg.methods",
    "load_method": "fewseg.engine.checkpoint",
}


def __getattr__(name: str) -> Any:
    """Imports a name of the public API, and torch with it, when it is first used."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
