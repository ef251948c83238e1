"""The per-episode counts that lie beside a result file."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import fields
from pathlib import Path

import numpy as np

from fewseg.metrics import EpisodeCounts


def counts_path(path: str | Path) -> Path:
    """Where the counts of the result file ``path`` lie: ``<stem>.counts.npz`` beside it."""
    return Path(path).with_name(f"{Path(path).stem}.counts.npz")


def load_counts(path: str | Path) -> EpisodeCounts:
    """Reads the per-episode counts of the result file ``path``.

    Raises:
        FileNotFoundError: there are none beside it.
        ValueError: the file is truncated or not a table of counts.
    """
    source = counts_path(path)
    if not source.exists():
        raise FileNotFoundError(
            f"{source} is missing: it holds the per-episode counts of {path} and must lie beside it; "
            "copy it along or evaluate again"
        )
    try:
        with np.load(source, allow_pickle=False) as stored:
            return EpisodeCounts(**{f.name: stored[f.name] for f in fields(EpisodeCounts)})
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{source} is not a whole table of episode counts ({error}): evaluate again"
        ) from error
