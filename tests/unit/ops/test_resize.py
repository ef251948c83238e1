"""Maps are resized bilinearly with aligned corners."""

import torch

from fewseg.ops.resize import resize


def test_corners_stay_and_the_middle_is_the_mean():
    maps = torch.tensor([[[[0.0, 4.0], [8.0, 16.0]]]])
    expected = torch.tensor([[0.0, 2.0, 4.0], [4.0, 7.0, 10.0], [8.0, 12.0, 16.0]])
    torch.testing.assert_close(resize(maps, (3, 3))[0, 0], expected)


def test_cells_fall_on_pixels_at_8k_plus_1():
    maps = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(resize(maps, (33, 41))[:, :, ::8, ::8], maps)


def test_a_map_of_the_right_size_comes_back_itself():
    maps = torch.randn(1, 1, 4, 5)
    assert resize(maps, (4, 5)) is maps
