"""Run-length encodings of masks: COCO's, and that of Label Studio's brush.

COCO's: column by column, the lengths of runs that are 0, 1, 0, 1 ... in turn. Compressed, a count is stored
as its difference to the count two before it (from the fourth on), in groups of 5 bits, the lowest first; a
group is a character from code 48 on, with bit 32 set where another one follows; the highest bit of the last
group is the sign. pycocotools encodes. Codes of files are decoded here, because pycocotools writes what a
code holds before it checks that it fits the image. Source: ``maskApi`` of pycocotools (Piotr Dollár and
Tsung-Yi Lin).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from fewseg.annotations.json_values import shown
from fewseg.annotations.values import Mask
from fewseg.types import DataError

Runs = NDArray[np.int64]
"""Lengths of runs of 0, 1, 0, 1 ... down the columns of a mask."""

_LONGEST = 7  # groups of a number below 2**32 with its sign


def encode_coco(mask: Mask) -> dict[str, object]:
    """Encodes where a mask (H, W) is 1, as ``{"size": [H, W], "counts": text}``."""
    rle = coco_mask.encode(np.asfortranarray(mask == 1, dtype=np.uint8))
    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": rle["counts"].decode("ascii")}


def encode_piece(piece: Mask, box: Sequence[int], size: tuple[int, int]) -> dict[str, object]:
    """As :func:`encode_coco`, of a mask (H, W) that is 0 outside a box (x, y, width, height)."""
    x, y, width, height = box
    columns = np.zeros((width, size[0]), dtype=np.uint8)
    columns[:, y : y + height] = piece.T == 1
    flat = columns.ravel()
    runs = np.diff(np.flatnonzero(np.diff(flat, prepend=1 - flat[:1], append=1 - flat[-1:]))).tolist()
    if flat[0]:
        runs.insert(0, 0)
    runs[0] += x * size[0]
    after = (size[1] - x - width) * size[0]
    if len(runs) % 2:
        runs[-1] += after
    elif after:
        runs.append(after)
    rle = coco_mask.frPyObjects({"size": list(size), "counts": runs}, *size)
    return {"size": [int(side) for side in size], "counts": rle["counts"].decode("ascii")}


def decode_coco(rle: Mapping[str, object], size: tuple[int, int], where: str) -> Mask:
    """Decodes an RLE of an image of a size (H, W) to uint8 in {0, 1}; ``where`` is its place in errors."""
    return fill_runs(coco_runs(rle, size, where), size)


def fill_runs(runs: Runs, size: tuple[int, int]) -> Mask:
    """Returns the mask (H, W) uint8 in {0, 1} of runs that add up to it."""
    columns = np.repeat((np.arange(len(runs)) % 2).astype(np.uint8), runs)
    return np.ascontiguousarray(columns.reshape(size[1], size[0]).T)


def coco_runs(rle: Mapping[str, object], size: tuple[int, int], where: str) -> Runs:
    """Returns the runs of an RLE, whose counts are a text (compressed) or lengths; they fill the image."""
    if rle.get("size") != list(size):
        raise DataError(
            f"{where}: the RLE is of size {shown(rle.get('size'))} (height, width) and its image of "
            f"{list(size)}; both must be alike: export the masks again at the image's size"
        )
    counts = rle.get("counts")
    lengths = unpack_counts(counts, where) if isinstance(counts, str) else run_array(counts)
    if lengths is None:
        raise DataError(
            f"{where}: the RLE's counts must be COCO's text or a list of lengths, got {shown(counts)}"
        )
    total = size[0] * size[1]
    if (lengths < 0).any() or lengths.sum() != total:
        raise DataError(
            f"{where}: the RLE's counts add up to {lengths.sum()} pixels and the image has {total}: it is "
            "broken"
        )
    return lengths


def run_array(counts: object) -> Runs | None:
    """Returns a list of lengths as an array; None where it is anything else."""
    if isinstance(counts, np.ndarray):
        return counts
    if isinstance(counts, list) and all(type(c) is int and 0 <= c < 2**32 for c in counts):
        return np.array(counts, dtype=np.int64)
    return None


def unpack_counts(text: str, where: str) -> Runs:
    """Returns the counts in COCO's text."""
    try:
        groups = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: the RLE's text holds characters that COCO's does not: it is broken"
        ) from error
    last = (groups & 32) == 0
    if groups.size == 0 or groups.min() < 0 or groups.max() > 63 or not last[-1]:
        raise DataError(f"{where}: the RLE's text {shown(text)} is broken or cut off: export it again")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise DataError(
            f"{where}: the RLE's text holds a number of {5 * lengths.max()} bits; it is broken: export it "
            "again"
        )
    place = 5 * (np.arange(groups.size) - np.repeat(starts, lengths))
    counts = np.add.reduceat((groups & 31) << place, starts)
    negative = (groups[ends] & 16) != 0
    counts[negative] -= np.int64(1) << (5 * lengths[negative])
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    return counts


_LENGTH_BITS = (3, 4, 8, 16)  # what Label Studio itself writes
_CHANNELS = 4


def encode_brush(mask: Mask) -> list[int]:
    """Encodes where a mask (H, W) is 1, as RGBA of 0 and 255."""
    flat = (mask == 1).ravel()
    edges = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    runs = np.diff(edges) * _CHANNELS
    values = flat[edges[:-1]].astype(np.uint64) * 255
    longest = 1 << _LENGTH_BITS[-1]
    pieces = -(-runs // longest)
    lengths = np.full(pieces.sum(), longest, dtype=np.int64)
    lengths[np.cumsum(pieces) - 1] = runs - (pieces - 1) * longest
    values = np.repeat(values, pieces)
    choice = np.searchsorted(1 << np.array(_LENGTH_BITS), lengths)
    bits = np.array(_LENGTH_BITS, dtype=np.int64)[choice]
    words = ((4 + choice).astype(np.uint64) << bits.astype(np.uint64)) | (lengths - 1).astype(np.uint64)
    words = words << np.uint64(8) | values
    head = [(flat.size * _CHANNELS, 32), (7, 5), *((b - 1, 4) for b in _LENGTH_BITS)]
    words = np.concatenate([np.array([w for w, _ in head], dtype=np.uint64), words])
    widths = np.concatenate([np.array([n for _, n in head], dtype=np.int64), bits + 11])
    return np.packbits(_bits(words, widths)).tolist()


def _bits(words: NDArray[np.uint64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Returns the lowest ``widths`` bits of each word, the highest first, one after the other."""
    ends = np.repeat(np.cumsum(widths), widths)
    shift = (ends - 1 - np.arange(ends.size)).astype(np.uint64)
    return (np.repeat(words, widths) >> shift & np.uint64(1)).astype(np.uint8)


def decode_brush(rle: Sequence[int], size: tuple[int, int], where: str) -> Mask:
    """Decodes a brush's RGBA and returns where its alpha is at least half of its largest alpha."""
    if not all(type(byte) is int and 0 <= byte <= 255 for byte in rle):
        raise DataError(
            f"{where}: the brush's RLE is no list of bytes 0 .. 255: export it from Label Studio as JSON "
            "again"
        )
    values = _decode(bytes(rle), _CHANNELS * size[0] * size[1], where)
    alpha = values.reshape(*size, _CHANNELS)[..., 3]
    level = int(alpha.max())
    strong = 2 * alpha.astype(np.uint64) >= max(level, 1)
    return strong.astype(np.uint8)


def _decode(data: bytes, expected: int, where: str) -> NDArray[np.uint32]:
    """Returns the values in a stream, which must be as many as expected."""
    end, place = 8 * len(data), 0

    def read(width: int) -> int:
        nonlocal place
        first, place = place, place + width
        if place > end:
            raise DataError(f"{where}: the brush's RLE is cut off after {len(data)} bytes: export it again")
        chunk = data[first // 8 : (place + 7) // 8]
        return (int.from_bytes(chunk) >> -place % 8) & ((1 << width) - 1)

    count = read(32)
    if count != expected:
        raise DataError(
            f"{where}: the brush's RLE holds {count} values and the image has {expected // _CHANNELS} "
            f"pixels, which makes {expected}: export it again, with the image that was annotated"
        )
    word = read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values = np.zeros(count, dtype=np.uint32)
    done = 0
    while done < count:
        repeated = read(1)
        length = read(sizes[read(2)]) + 1
        if done + length > count:
            raise DataError(
                f"{where}: the brush's RLE has more values than its header states ({count}): it is broken"
            )
        if repeated:
            values[done : done + length] = read(word)
        else:
            literal = np.frombuffer(read(word * length).to_bytes((word * length + 7) // 8), dtype=np.uint8)
            raw = np.unpackbits(literal)[-word * length :].reshape(length, word)
            weights = (1 << np.arange(word - 1, -1, -1, dtype=np.uint64)).astype(np.uint32)
            values[done : done + length] = raw @ weights
        done += length
    return values
