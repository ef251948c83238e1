import math
import time

import numpy as np
import pytest

from fewseg.annotations import shapes
from fewseg.annotations.shapes import Canvas, dots, ellipse, outlines, polygon, rectangle, stroke
from fewseg.annotations.values import OnlyIgnoredError
from fewseg.types import DataError

HUGE = 1e300


def inside(points, x, y):
    """Even-odd rule for one point, written out."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            crossings += 1
    return crossings % 2 == 1


@pytest.mark.parametrize("seed", range(8))
def test_a_polygon_holds_the_pixels_whose_centre_is_inside(seed):
    rng = np.random.default_rng(seed)
    points = [tuple(p) for p in rng.uniform(-6, 26, (rng.integers(3, 9), 2)).tolist()]
    expected = [[inside(points, x + 0.5, y + 0.5) for x in range(17)] for y in range(20)]
    assert polygon(points, (20, 17)).tolist() == expected


def test_a_polygon_far_outside_costs_no_more_than_one_inside():
    assert polygon([(-HUGE, -HUGE), (HUGE, -HUGE), (HUGE, HUGE), (-HUGE, HUGE)], (4, 5)).shape == (4, 5)
    assert polygon([(-1e9, -1e9), (1e9, -1e9), (1e9, 1e9), (-1e9, 1e9)], (4, 5)).all()


def test_a_rectangle_turns_clockwise_about_its_top_left_corner():
    straight = rectangle(2, 3, 4, 1, (10, 10))
    assert np.argwhere(straight).tolist() == [[3, 2], [3, 3], [3, 4], [3, 5]]
    turned = rectangle(2, 3, 4, 1, (10, 10), degrees=90)
    assert np.argwhere(turned).tolist() == [[3, 1], [4, 1], [5, 1], [6, 1]]


def test_an_ellipse_has_its_area_and_turns():
    area = ellipse(50, 40, 30, 10, (80, 100)).sum()
    assert area == pytest.approx(math.pi * 300, rel=0.02)
    assert np.array_equal(ellipse(40, 40, 30, 10, (80, 80), 90), ellipse(40, 40, 10, 30, (80, 80)))
    assert not ellipse(5, 5, 0, 4, (9, 9)).any()


def test_a_stroke_is_what_is_within_half_its_width():
    drawn = stroke([(5, 5), (15, 5), (15, 12)], 4, (20, 20))
    for y in range(20):
        for x in range(20):
            px, py = x + 0.5, y + 0.5
            to_first = math.hypot(px - min(max(px, 5), 15), py - 5)
            to_second = math.hypot(px - 15, py - min(max(py, 5), 12))
            assert drawn[y, x] == (min(to_first, to_second) <= 2)


@pytest.mark.parametrize("seed", range(6))
def test_a_long_stroke_is_what_is_within_half_its_width(seed):
    rng = np.random.default_rng(seed)
    (x0, y0), (x1, y1) = line = rng.uniform(-60, 360, (2, 2))
    width = rng.uniform(0.5, 90)
    x, y = np.meshgrid(np.arange(300) + 0.5, np.arange(240) + 0.5)
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2)
    px, py = x0 + along.clip(0, 1) * (x1 - x0), y0 + along.clip(0, 1) * (y1 - y0)
    expected = np.hypot(x - px, y - py) <= width / 2
    points = [tuple(point) for point in line.tolist()]
    assert np.array_equal(stroke(points, width, (240, 300)), expected)
    assert np.array_equal(stroke(points[::-1], width, (240, 300)), expected)


def test_dots_are_strokes_of_one_point_each():
    points = [(3.0, 4.0), (30.5, 9.0), (31.0, 9.0), (-1.0, 20.0), (90.0, 90.0)]
    expected = np.any([stroke([point], 5, (40, 50)) for point in points], axis=0)
    assert np.array_equal(dots(points, 5, (40, 50)), expected)
    assert 0 < expected.sum() < stroke(points, 5, (40, 50)).sum()


def test_diagonals_cost_their_own_pixels_and_not_those_of_the_image(monkeypatch):
    size = (2000, 2000)
    monkeypatch.setattr(shapes, "_MOST_PIXELS", 20 * 2000 * 200)
    assert stroke([(0, 0), (2000, 2000)] * 10, 3, size).sum() > 2000
    dots([(k, k) for k in range(2000)], 20, size)


@pytest.mark.parametrize("draw", [stroke, dots, lambda points, _, size: polygon(points, size)])
def test_a_shape_of_ten_million_points_is_refused_at_once(draw):
    start = time.process_time()
    with pytest.raises(DataError, match=r"must have up to 1000000 points, got 10000000: give it as a mask"):
        draw([(1.0, 2.0)] * 10**7, 4, (2000, 2000))
    assert time.process_time() - start < 1


def test_edges_and_lines_that_would_take_minutes_are_refused(monkeypatch):
    monkeypatch.setattr(shapes, "_MOST_ROWS", 10_000)
    monkeypatch.setattr(shapes, "_MOST_PIXELS", 10_000)
    zigzag = [(k, 1000 * (k % 2)) for k in range(13)]
    with pytest.raises(DataError, match=r"edges of a polygon must cross up to 10000 rows .* got 13 points"):
        polygon(zigzag, (1000, 20))
    assert polygon(zigzag[:9], (1000, 20)).any()
    with pytest.raises(DataError, match=r"up to 10000 pixels, got 13 points and a width of 3 .*: give a"):
        stroke(zigzag, 3, (1000, 20))


def test_a_fine_pen_leaves_a_trace_and_one_outside_none():
    assert np.argwhere(stroke([(3.1, 2.9)], 0.01, (6, 6))).tolist() == [[2, 3]]
    assert not stroke([(-50, -50), (-40, 900)], 3, (6, 6)).any()


def test_traced_outlines_without_tolerance_fill_to_the_very_mask(mask):
    filled = np.zeros(mask.shape, bool)
    for path in outlines(mask, tolerance=0):
        piece = polygon(path, mask.shape)
        assert not (filled & piece).any()
        filled |= piece
    assert np.array_equal(filled, mask == 1)


def disc(radius, hole=0.0):
    side = int(2 * radius + 8)
    return (
        ellipse(side / 2, side / 2, radius, radius, (side, side))
        & ~ellipse(side / 2, side / 2, hole, hole, (side, side))
    ).astype(np.uint8)


SHAPES = {
    "disc": disc(11.6),
    "ring": disc(20, 9),
    "large": disc(90),
    "square": np.pad(np.ones((21, 21), np.uint8), 2),
    "turned": rectangle(20, 2, 34, 13, (70, 70), 35).astype(np.uint8),
    "thin ellipse": ellipse(50, 20, 45, 4, (40, 100), 7).astype(np.uint8),
}


@pytest.mark.parametrize("name", SHAPES)
def test_simplified_outlines_keep_an_iou_of_95_percent_above_400_pixels(name):
    mask = SHAPES[name]
    assert mask.sum() > 400
    filled = np.zeros(mask.shape, bool)
    corners = 0
    for path in outlines(mask):
        filled |= polygon(path, mask.shape)
        corners += len(path)
    iou = (filled & (mask == 1)).sum() / (filled | (mask == 1)).sum()
    assert iou >= 0.95
    assert corners < sum(len(path) for path in outlines(mask, 0)) or name == "square"


def test_regions_of_a_class_are_joined_and_the_rest_is_background():
    canvas = Canvas((1, 4))
    canvas.add("a", np.array([[True, False, False, False]]))
    canvas.add("a", np.array([[False, False, True, False]]))
    assert canvas.masks()["a"].tolist() == [[1, 0, 1, 0]]


def test_around_a_scribble_nothing_is_known_but_where_something_else_is():
    canvas = Canvas((1, 6))
    canvas.add("a", np.array([[1, 0, 0, 0, 0, 0]], bool), "scribble")
    canvas.add("b", np.array([[0, 1, 0, 0, 1, 0]], bool))
    canvas.add("_background_", np.array([[0, 0, 1, 0, 0, 0]], bool), "scribble")
    canvas.add("__ignore__", np.array([[0, 1, 0, 1, 0, 0]], bool))
    masks = canvas.masks()
    assert masks["a"].tolist() == [[1, 255, 0, 255, 0, 255]]
    assert masks["b"].tolist() == [[0, 1, 0, 255, 1, 0]]
    assert set(masks) == {"a", "b"}


WHOLE, HOLE = (np.pad(np.ones((side, side), bool), (9 - side) // 2) for side in (7, 3))


def test_a_background_shape_over_a_class_is_counted_and_the_class_counts():
    for covered, count in ((HOLE, 1), (HOLE & (np.arange(9) < 5), 0), (~WHOLE, 0)):
        canvas = Canvas((9, 9))
        canvas.add("a", WHOLE)
        canvas.add("background", covered)
        found = canvas.annotated("x.png")
        assert sum(number for what, number in found.assumed.items() if "background" in what) == count
        assert np.array_equal(found.masks["a"], WHOLE)


def test_ignored_pixels_beside_no_class_are_no_negative():
    canvas = Canvas((9, 9))
    assert canvas.annotated("x.png").masks == {}
    canvas.add("ignore", HOLE)
    for region in (None, np.zeros((9, 9), bool)):
        if region is not None:
            canvas.add("a", region)
        with pytest.raises(OnlyIgnoredError, match="ignored regions and no class"):
            canvas.annotated("x.png")
    canvas.add("a", WHOLE)
    assert set(canvas.annotated("x.png").masks) == {"a"}
