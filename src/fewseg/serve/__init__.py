"""The page of ``fewseg serve``: annotate in the browser, see predictions, download them.

``app`` and what it imports need the extra ``serve``; ``ServeOptions`` does not.
"""

from fewseg.serve.server import ServeOptions, serve

__all__ = ["ServeOptions", "serve"]
