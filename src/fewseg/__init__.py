"""fewseg: few-shot segmentation, from one to a few annotated images to masks on any other image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewseg.inference import Segmenter

__version__ = "0.1.0"
__all__ = ["Segmenter", "__version__"]


def __getattr__(name: str) -> Any:
    """Imports the segmenter, and torch with it, when it is first asked for."""
    if name == "Segmenter":
        from fewseg.inference import Segmenter

        return Segmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
