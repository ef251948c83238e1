"""Both run-length encodings, each against the package that defines it."""

from itertools import groupby

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from fewseg.annotations.rle import decode_brush, decode_coco, encode_brush, encode_coco, encode_piece
from fewseg.annotations.values import box_of
from fewseg.types import DataError


def test_our_coco_text_is_that_of_pycocotools(mask):
    theirs = coco_mask.encode(np.asfortranarray(mask))
    assert encode_coco(mask) == {"size": list(mask.shape), "counts": theirs["counts"].decode()}
    back = decode_coco(encode_coco(mask), mask.shape, "x")
    assert back.dtype == np.uint8
    assert np.array_equal(back, mask)


def test_we_read_uncompressed_counts_as_pycocotools_does(mask):
    counts = [len(list(run)) for _, run in groupby(mask.T.ravel().tolist())]
    counts = [0, *counts] if mask[0, 0] else counts
    rle = {"size": list(mask.shape), "counts": counts}
    assert np.array_equal(decode_coco(rle, mask.shape, "x"), mask)
    assert np.array_equal(coco_mask.decode(coco_mask.frPyObjects(rle, *mask.shape)), mask)


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [4, 3], "counts": [12]}, "size"),
        ({"counts": [12]}, "size"),
        ({"size": [3, 4], "counts": [11]}, "add up to 11"),
        ({"size": [3, 4], "counts": [13]}, "add up to 13"),
        ({"size": [3, 4], "counts": [-1, 13]}, "list of lengths"),
        ({"size": [3, 4], "counts": [1.5]}, "list of lengths"),
        ({"size": [3, 4], "counts": [10**30]}, "list of lengths"),
        ({"size": [3, 4], "counts": None}, "list of lengths"),
        ({"size": [3, 4], "counts": ""}, "broken"),
        ({"size": [3, 4], "counts": "P"}, "broken"),
        ({"size": [3, 4], "counts": "\x7f0"}, "broken"),
        ({"size": [3, 4], "counts": "é"}, "broken"),
        ({"size": [3, 4], "counts": "PPPPPPPPPPP0"}, "broken"),
        ({"size": [3, 4], "counts": "O<"}, "add up"),
    ],
)
def test_a_broken_coco_rle_is_reported_before_anything_is_decoded(rle, message):
    with pytest.raises(DataError, match=rf"here: the RLE.*{message}"):
        decode_coco(rle, (3, 4), "here")


@pytest.mark.parametrize(
    "box", [(0, 0, 9, 6), (3, 2, 5, 3), (0, 0, 1, 1), (8, 5, 1, 1), (4, 0, 5, 6), (2, 0, 4, 6), (0, 3, 9, 3)]
)
@pytest.mark.parametrize("full", [True, False])
def test_a_piece_has_the_code_of_the_mask_that_it_is_part_of(box, full):
    x, y, width, height = box
    piece = np.random.default_rng(sum(box)).integers(0, 2, (height, width)).astype(np.uint8) | full
    mask = np.zeros((6, 9), np.uint8)
    mask[y : y + height, x : x + width] = piece
    assert encode_piece(piece, box, (6, 9)) == encode_coco(mask)


def test_the_box_of_a_mask_holds_its_pixels():
    mask = np.zeros((6, 9), np.uint8)
    mask[2:5, 3] = mask[4, 7] = 1
    assert box_of(mask) == (3, 2, 5, 3)
    assert box_of(mask) == tuple(coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask))).tolist())
    assert box_of(np.zeros((2, 2), np.uint8)) == (0, 0, 0, 0)


def test_label_studio_reads_our_brush(mask, brush):
    theirs = brush.decode_rle(encode_brush(mask)).reshape(*mask.shape, 4)
    for channel in range(4):
        assert np.array_equal(theirs[..., channel], mask * 255)


def test_we_read_the_brush_of_label_studio(mask, brush):
    assert np.array_equal(decode_brush(brush.mask2rle(mask * np.uint8(255)), mask.shape, "x"), mask)


def test_our_brush_is_that_of_label_studio_but_for_runs_of_one_value(brush):
    mask = MIDDLE
    theirs = brush.mask2rle(mask * np.uint8(255))
    ours = encode_brush(mask)
    assert ours == theirs[: len(ours)]
    assert not any(theirs[len(ours) :])


MIDDLE = np.pad(np.ones((4, 5), np.uint8), 3)


def packed(values, pieces, word=8, sizes=(3, 4, 8, 16)):
    """A stream written bit by bit: pieces are (repeated, size index, length) of the values in turn."""
    bits = f"{len(values):032b}{word - 1:05b}" + "".join(f"{s - 1:04b}" for s in sizes)
    place = 0
    for repeated, index, length in pieces:
        bits += f"{repeated:b}{index:02b}{length - 1:0{sizes[index]}b}"
        stored = [values[place]] if repeated else values[place : place + length]
        bits += "".join(f"{v:0{word}b}" for v in stored)
        place += length
    bits += "0" * (-len(bits) % 8)
    return [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]


def test_values_one_by_one_and_other_sizes_of_words_and_lengths_are_read(brush):
    values = [0, 0, 0, 255, 9, 9, 9, 130, 0, 0, 0, 127, 0, 0, 0, 0]
    rle = packed(values, [(0, 2, 9), (0, 1, 2), (0, 0, 1), (1, 3, 4)], sizes=(2, 3, 5, 16))
    assert brush.decode_rle(rle).tolist() == values
    assert decode_brush(rle, (1, 4), "x").tolist() == [[1, 1, 0, 0]]
    one_bit = packed([0, 0, 0, 1, 1, 1, 1, 0], [(0, 0, 3), (1, 0, 4), (0, 0, 1)], word=1)
    assert decode_brush(one_bit, (2, 1), "x").tolist() == [[1], [0]]
    wide = packed([0, 0, 0, 2**31, 5, 5, 5, 1], [(0, 0, 8)], word=32)
    assert decode_brush(wide, (2, 1), "x").tolist() == [[1], [0]]


def test_a_brush_of_any_strength_counts_from_half_of_its_strongest_on():
    rle = packed([0, 0, 0, 100, 0, 0, 0, 50, 0, 0, 0, 49], [(0, 2, 12)])
    assert decode_brush(rle, (1, 3), "x").tolist() == [[1, 1, 0]]


@pytest.mark.parametrize(
    ("rle", "size"),
    [
        (encode_brush(MIDDLE)[:-4], MIDDLE.shape),
        ([], MIDDLE.shape),
        (encode_brush(MIDDLE), (11, 11)),
        (["1", *encode_brush(MIDDLE)], MIDDLE.shape),
        ([256, *encode_brush(MIDDLE)[1:]], MIDDLE.shape),
        ([True, *encode_brush(MIDDLE)[1:]], MIDDLE.shape),
        (packed([0] * 440, [(1, 3, 441)]), MIDDLE.shape),
    ],
    ids=["cut", "empty", "size", "text", "large", "bool", "run"],
)
def test_a_broken_brush_is_reported_by_name(rle, size):
    with pytest.raises(DataError, match="here: the brush's RLE"):
        decode_brush(rle, size, "here")
