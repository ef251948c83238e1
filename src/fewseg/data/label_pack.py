"""Label maps of many images in a few files: compressed without loss, whole or absent, read at random."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fewseg.ops.files import atomic_write_bytes
from fewseg.ops.parallel import for_each
from fewseg.types import DataError

log = logging.getLogger(__name__)

Plane = npt.NDArray[np.uint8]
SHARD = 1024
"""Images a file."""

_MAGIC = b"fewseg-labels-1\n"
_HEAD = struct.Struct("<16sI")


@dataclass(frozen=True)
class LabelPack:
    """Label maps that are drawn and kept.

    A file holds a magic word, the number n of its maps, n lengths, and n zlib streams of H * W bytes. Files
    are opened for each read, so that threads and forked processes may share a pack.

    Attributes:
        folder: of the files.
        places: (file number, offset, bytes) of every map.
        kept: files that could not be written, in memory.
    """

    folder: Path
    places: tuple[tuple[int, int, int], ...]
    kept: dict[int, bytes] = field(default_factory=dict, repr=False)

    def read(self, number: int, size: tuple[int, int]) -> Plane:
        """Returns map ``number``, (H, W) uint8.

        Raises:
            DataError: the file is gone or damaged, or the map is of another size.
        """
        shard, offset, length = self.places[number]
        path = _shard_path(self.folder, shard)
        try:
            if shard in self.kept:
                data = self.kept[shard][offset : offset + length]
            else:
                with path.open("rb") as file:
                    file.seek(offset)
                    data = file.read(length)
            pixels = zlib.decompress(data)
            return np.frombuffer(bytearray(pixels), dtype=np.uint8).reshape(size)
        except (OSError, zlib.error, ValueError) as error:
            raise DataError(
                f"the cached label maps {path} cannot be read ({error}): delete the folder {self.folder}, "
                "and they are drawn again"
            ) from error


def open_pack(folder: Path, count: int) -> LabelPack | None:
    """Returns the pack of ``count`` maps in a folder, or None where a file is missing or damaged."""
    places: list[tuple[int, int, int]] = []
    for shard, start in enumerate(range(0, count, SHARD)):
        found = _places(_shard_path(folder, shard), shard, min(SHARD, count - start))
        if found is None:
            return None
        places += found
    return LabelPack(folder, tuple(places))


def build_pack(
    folder: Path,
    count: int,
    draw: Callable[[int], Plane],
    title: str,
    workers: int | None = None,
    progress: bool = True,
) -> LabelPack:
    """Draws ``count`` maps; files that are there and whole are kept, so that a killed run goes on.

    Where the disk is full or not writable the maps stay in memory, with a warning.

    Args:
        folder: where the files go.
        count: of maps.
        draw: number -> (H, W) uint8.
        title: what the progress bar calls the work.
        workers: threads.
        progress: show a bar with the time left.

    Raises:
        DataError: a map cannot be drawn.
    """
    kept: dict[int, bytes] = {}
    shards = {f"{i}": range(s, min(s + SHARD, count)) for i, s in enumerate(range(0, count, SHARD))}

    def make(key: str) -> Sequence[tuple[int, int, int]]:
        path, numbers = _shard_path(folder, int(key)), shards[key]
        if path.exists():
            found = _places(path, int(key), len(numbers))
            if found is not None:
                return found
            log.warning("the cached label maps %s are damaged: drawing them again", path)
        streams = [zlib.compress(np.ascontiguousarray(draw(n)).tobytes()) for n in numbers]
        lengths = [len(stream) for stream in streams]
        head = _HEAD.pack(_MAGIC, len(lengths)) + np.array(lengths, dtype="<u4").tobytes()
        content = head + b"".join(streams)
        try:
            atomic_write_bytes(path, content)
        except OSError as error:
            log.warning("label maps stay in memory and are drawn again next time: %s", error)
            kept[int(key)] = content
        return _offsets(int(key), lengths)

    places = for_each(tuple(shards), make, title, workers, progress)
    return LabelPack(folder, tuple(place for found in places.values() for place in found), kept)


def _shard_path(folder: Path, shard: int) -> Path:
    return folder / f"labels-{shard:04d}.bin"


def _offsets(shard: int, lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    first = _HEAD.size + 4 * len(lengths)
    ends = np.cumsum([first, *lengths]).tolist()
    return [(shard, offset, length) for offset, length in zip(ends[:-1], lengths, strict=True)]


def _places(path: Path, shard: int, count: int) -> list[tuple[int, int, int]] | None:
    """The places of a file's maps, or None where it is missing, foreign or not whole."""
    try:
        with path.open("rb") as file:
            magic, found = _HEAD.unpack(file.read(_HEAD.size))
            lengths = np.frombuffer(file.read(4 * count), dtype="<u4").tolist()
        whole = path.stat().st_size == _HEAD.size + 4 * count + sum(lengths)
    except (OSError, struct.error, ValueError):
        return None
    if magic != _MAGIC or found != count or len(lengths) != count or not whole:
        return None
    return _offsets(shard, lengths)
