"""The seal of a result file: digests of its JSON and of its counts, so that an edit by hand is known.

It finds slips and edits; it is no signature, since whoever can edit a file can also seal it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewseg.engine.counts_file import counts_path
from fewseg.engine.result_schema import SEAL, digest


def sealed(stored: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """The content of a result file with its digest and the SHA-256 of its counts, which are there already."""
    found = {**stored, "counts_sha256": _sha256(counts_path(path))}
    return {**found, "digest": digest(found)}


def without_seal(found: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a result file alone."""
    return {key: value for key, value in found.items() if key not in SEAL}


def check_seal(path: str | Path, found: Mapping[str, Any], *, with_counts: bool = False) -> None:
    """Checks the digest of a result file; older files have none.

    Args:
        path: the file.
        found: its content.
        with_counts: look at the file of counts beside it too.

    Raises:
        ValueError: the file was edited, or the counts are not those that it was made of.
    """
    if "digest" not in found:
        return
    own = digest({key: value for key, value in found.items() if key != "digest"})
    if own != found["digest"]:
        raise ValueError(
            f"{path} has the digest {found['digest']}, that of its content is {own}: the file was edited; "
            "evaluate again"
        )
    if with_counts and _sha256(counts_path(path)) != found["counts_sha256"]:
        raise ValueError(
            f"{counts_path(path)} is not the file that {Path(path).name} was made of: one of the two was "
            "edited or is of another run; evaluate again"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
