"""The file that says what run a folder holds, so that two of them do not mix."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fewseg.data.errors import DataError
from fewseg.ops.files import atomic_write_text, check_writable, unwritten
from fewseg.ops.locks import folder_alone

RUN_FILE = "run.json"
SHAPES = "shapes of labelme"
"""A fact that a later run may add: no such file was written before it."""


@contextmanager
def claimed(folder: Path, facts: Mapping[str, object]) -> Iterator[None]:
    """Has a folder for a run, for the length of the block; its file says what the run is.

    Args:
        folder: is made where it is missing.
        facts: what must be the same in every run into this folder.

    Raises:
        DataError: it holds another run, or another process is at it.
        OSError: it is not writable, or a file is in its place.
    """
    path = folder / RUN_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritten(path, error) from error
    with _alone(folder):
        facts = {**_known(path, facts), **facts}
        atomic_write_text(path, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        yield


def check_folder(folder: Path) -> None:
    """Checks that a run can have a folder, as far as that can be told before the model; makes nothing.

    Raises:
        DataError: another process is at it.
        OSError: it is not writable, or a file is in its place.
    """
    check_writable(folder / RUN_FILE)
    if folder.is_dir():
        with _alone(folder):
            pass


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with folder_alone(folder) as alone:
        if not alone:
            raise DataError(
                f"another process labels into {folder} now; accepted is one at a time: wait for it, or "
                "choose another folder"
            )
        yield


def _known(path: Path, facts: Mapping[str, object]) -> dict[str, object]:
    """What the file says, which is nothing else than ``facts``; empty without a file.

    Raises:
        DataError: it says something else, or is broken.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is broken ({error}): remove it, or choose another folder") from error
    found = found if isinstance(found, dict) else {}
    found.setdefault(SHAPES, facts.get(SHAPES))
    differing = sorted(k for k in facts if found.get(k) != facts[k])
    if differing:
        raise DataError(
            f"{path.parent} holds a run with another {', '.join(differing)}; accepted is the same run, which "
            "goes on: choose another folder, or remove this one"
        )
    return {k: v for k, v in found.items() if v is not None}
