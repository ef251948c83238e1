"""Where computed files are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Returns ``$FEWSEG_CACHE``, or ``~/.cache/fewseg``; it may not exist yet."""
    chosen = os.environ.get("FEWSEG_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "fewseg"
