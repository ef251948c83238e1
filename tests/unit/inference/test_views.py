from itertools import pairwise

import pytest
import torch

from fewseg.inference.model import Tiles, Whole, join_views, to_size, view_images, view_masks

SIZE = 33


def covered(windows, hw):
    seen = torch.zeros(hw)
    for window in windows:
        window.cut(seen).add_(1)
    return seen


@pytest.mark.parametrize("hw", [(33, 33), (20, 20), (34, 33), (100, 71), (33, 500), (1, 90)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_tiles_cover_every_pixel_and_overlap_as_asked(hw, overlap):
    windows = Tiles(overlap=overlap).windows(hw, SIZE)
    assert (covered(windows, hw) > 0).all()
    for axis, start in ((0, "top"), (1, "left")):
        places = sorted({getattr(w, start) for w in windows})
        for a, b in pairwise(places):
            assert a + SIZE - b >= int(SIZE * overlap)
        assert places[-1] + min(SIZE, hw[axis]) == hw[axis]


@pytest.mark.parametrize("wrong", [{"side": 0}, {"overlap": 0.95}, {"overlap": -0.1}])
def test_wrong_tiles_are_refused(wrong):
    with pytest.raises(ValueError, match="tiles must have a side of at least 1 pixel and an overlap in"):
        Tiles(**wrong)


def test_tiles_of_the_networks_size_are_the_pixels_themselves_and_come_back():
    pixels = torch.randint(0, 256, (3, 80, 61), dtype=torch.uint8)
    windows = Tiles(overlap=0.4).windows((80, 61), SIZE)
    views = view_images(pixels, windows)
    assert views.shape == (len(windows), 3, SIZE, SIZE)
    torch.testing.assert_close(join_views(views, windows, (80, 61)), pixels.float() / 255)


def test_a_pixel_in_two_tiles_is_their_mean_by_the_distance_from_the_rim():
    windows = Tiles(overlap=0.5).windows((33, 49), SIZE)
    assert [w.left for w in windows] == [0, 16]
    views = torch.zeros(2, 1, SIZE, SIZE)
    views[1] = 1
    joined = join_views(views, windows, (33, 49))[0, 16]
    assert (joined[:16] == 0).all()
    assert (joined[33:] == 1).all()
    assert joined[24] == pytest.approx(0.5)
    assert (joined[16:33].diff() > 0).all()


def test_one_view_gives_its_content_at_the_networks_resolution():
    (window,) = Whole().windows((66, 30), SIZE)
    maps = torch.rand(1, 2, SIZE, SIZE)
    joined = join_views(maps, [window], (66, 30))
    assert joined.shape == (2, 33, 15)
    assert torch.equal(joined, maps[0, :, :33, :15])
    assert to_size(joined, (66, 30)).shape == (2, 66, 30)


@pytest.mark.parametrize("place", [(0, 0), (199, 399), (77, 301)])
def test_a_thing_of_one_pixel_is_still_there_after_resizing(place):
    mask = torch.zeros(200, 400, dtype=torch.uint8)
    mask[place] = 1
    view = view_masks(mask, Whole().windows((200, 400), SIZE))[0]
    assert (view == 1).sum() == 1
    (row, column) = (view == 1).nonzero()[0].tolist()
    assert abs(row / 16.5 - place[0] / 200) < 0.07
    assert abs(column / 33 - place[1] / 400) < 0.07
