"""Which figures of a folder a page takes."""

import pytest

from fewseg.reports.site.pictures import MOST_BYTES, read_pictures

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def folder(tmp_path):
    """What ``fewseg report figures`` writes: eight photographs of 1.75 MiB, and two plots."""
    for name, size in (
        *((f"pictures/p{i}", 7 * MOST_BYTES // 8) for i in range(8)),
        ("plots/a", 9),
        ("plots/b", 9),
    ):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PNG + b"x" * (size - len(PNG)))
    return tmp_path


def test_photographs_stay_out_until_they_are_requested(folder):
    found = read_pictures(folder)
    assert [picture.name for picture in found.taken] == ["plots/a", "plots/b"]
    assert (found.not_requested, found.problems) == (8, ())


def test_plots_come_first_and_what_has_no_room_is_named_in_one_sentence(folder):
    found = read_pictures(folder, photographs=True)
    names = [picture.name for picture in found.taken]
    assert names == ["plots/a", "plots/b", *(f"pictures/p{i}" for i in range(6))]
    assert found.problems == (
        "2 of 10 figures are not in the page, which has room for 12 MiB of them: pictures/p6.png and others",
    )
    assert found.not_requested == 0


def test_a_drawing_that_is_too_large_gives_way_to_its_picture(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "a.svg").write_bytes(b"<svg></svg>" + b" " * MOST_BYTES)
    assert [picture.kind for picture in read_pictures(tmp_path).taken] == ["image/png"]
