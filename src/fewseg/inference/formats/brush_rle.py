"""Label Studio's run-length encoding of brush strokes, which is not COCO's.

A stream of bits, the highest first, padded with zeros to whole bytes that the JSON lists as numbers 0 .. 255:

- 32 bits: n, how many values follow (4 x H x W: RGBA, row by row; the mask is in each channel, alpha counts);
- 5 bits: the size of a value in bits, less 1 (7: a byte);
- 4 x 4 bits: four sizes of run lengths in bits, each less 1;
- then, until there are n values: one bit (1: one value repeated; 0: values one by one), 2 bits that choose a
  size, that many bits with the number of values less 1, and the value or the values.

Source: the description of ``@thi.ng/rle-pack`` as quoted in label-studio-converter's ``brush.py``
(Apache-2.0); this code is our own and tested against it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewseg.data.errors import DataError
from fewseg.inference.formats.values import Mask

_LENGTH_BITS = (3, 4, 8, 16)  # what Label Studio itself writes
_CHANNELS = 4


def encode_brush(mask: Mask) -> list[int]:
    """Encodes where a mask (H, W) is 1, as RGBA of 0 and 255.

    Returns:
        Bytes 0 .. 255.
    """
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
    """Decodes a brush's RGBA and returns where its alpha is at least half of its largest alpha.

    Args:
        rle: bytes 0 .. 255.
        size: (H, W) of the image.
        where: what errors call it.

    Returns:
        (H, W) uint8 in {0, 1}.

    Raises:
        DataError: it does not hold 4 values a pixel of the image, or is broken or cut off.
    """
    if not all(type(byte) is int and 0 <= byte <= 255 for byte in rle):
        raise DataError(
            f"{where}: the brush's RLE is no list of bytes 0 .. 255: export it from Label Studio as JSON "
            "again"
        )
    values = _decode(bytes(rle), _CHANNELS * size[0] * size[1], where)
    alpha = values.reshape(*size, _CHANNELS)[..., 3]
    level = int(alpha.max())
    return (
        (2 * alpha.astype(np.uint64) >= level).astype(np.uint8) if level else np.zeros(size, dtype=np.uint8)
    )


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
            raise DataError(f"{where}: the brush's RLE has more values than it says ({count}): it is broken")
        if repeated:
            values[done : done + length] = read(word)
        else:
            literal = np.frombuffer(read(word * length).to_bytes((word * length + 7) // 8), dtype=np.uint8)
            raw = np.unpackbits(literal)[-word * length :].reshape(length, word)
            values[done : done + length] = raw @ (1 << np.arange(word - 1, -1, -1, dtype=np.uint64)).astype(
                np.uint32
            )
        done += length
    return values
