"""Nothing that was put into a pool is lost, and memory holds no more than the budget."""

import pytest
import torch

from fewseg.engine.evaluate import BytePool


def entry(number):
    """1000 bytes of several types and layouts."""
    image = torch.full((1, 3, 4, 5), float(number)).contiguous(memory_format=torch.channels_last)
    rest = torch.full((188,), number, dtype=torch.bfloat16), torch.full((384,), number, dtype=torch.uint8)
    return image, *rest


def same(found, expected):
    return all(
        torch.equal(a, b) and a.dtype == b.dtype and a.stride() == b.stride()
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("fits", [1, 2, 5, 9])
def test_everything_comes_back_as_it_was_put_in_whatever_fits(fits, tmp_path):
    pool = BytePool(fits * 1000, tmp_path)
    for i in range(9):
        pool.put(i, entry(i))
        assert pool.bytes <= fits * 1000
    for i in (3, 8, 0, 5, 5, 1, 2, 4, 6, 7):
        assert i in pool
        assert same(pool.get(i), entry(i))
        assert pool.bytes <= fits * 1000
    assert pool.spilled == {1: 9000, 2: 9000, 5: 9000, 9: 0}[fits]
    assert pool.get("another") is None
    assert "another" not in pool


def test_the_longest_unused_go_first(tmp_path):
    pool = BytePool(3000, tmp_path)
    for i in range(3):
        pool.put(i, entry(i))
    pool.get(0)
    pool.put(3, entry(3))
    assert list(pool._kept) == [2, 0, 3]


def test_an_entry_is_written_once_however_often_it_leaves_memory(tmp_path):
    pool = BytePool(1000, tmp_path)
    pool.put("a", entry(1))
    pool.put("b", entry(2))
    for _ in range(4):
        pool.get("a")
        pool.get("b")
    assert pool.spilled == 2000


def test_one_entry_may_be_larger_than_the_budget(tmp_path):
    pool = BytePool(10, tmp_path)
    pool.put("a", entry(1))
    assert same(pool.get("a"), entry(1))


def test_a_second_value_of_a_name_is_not_taken(tmp_path):
    pool = BytePool(10_000, tmp_path)
    pool.put("a", entry(1))
    pool.put("a", entry(2))
    assert same(pool.get("a"), entry(1))
    assert pool.bytes == 1000


def test_empty_tensors_come_back_empty(tmp_path):
    pool = BytePool(10, tmp_path)
    empty = torch.zeros(1, 1, 0, 4), torch.zeros(1, 1, 0, dtype=torch.bool)
    pool.put("none", empty)
    for name in "abc":
        pool.put(name, entry(1))
    assert same(pool.get("none"), empty)


def test_the_file_has_no_name_that_a_kill_could_leave_behind(tmp_path):
    pool = BytePool(1000, tmp_path / "new")
    for i in range(5):
        pool.put(i, entry(i))
    assert pool.spilled
    assert list((tmp_path / "new").iterdir()) == []


def test_on_a_full_disk_the_rest_stays_in_memory_with_one_warning(tmp_path, monkeypatch, caplog):
    pool = BytePool(1000, tmp_path)
    pool.put(0, entry(0))
    pool.put(1, entry(1))
    monkeypatch.setattr("os.pwrite", lambda *_: 0)
    for i in range(2, 7):
        pool.put(i, entry(i))
    assert all(same(pool.get(i), entry(i)) for i in range(7))
    assert pool.bytes > 1000
    assert len(caplog.messages) == 1
    assert "it stays in memory, beyond the budget" in caplog.messages[0]


def test_what_lies_elsewhere_is_let_go_before_anything_is_written(tmp_path):
    pool = BytePool(3000, tmp_path)
    pool.lend("far", entry(1))
    pool.lend("near", entry(2))
    pool.put("own", entry(3))
    assert pool.get("far") is not None  # used: "near" is now the one longest unused
    pool.put("another", entry(4))
    assert (pool.get("near"), pool.spilled, pool.bytes) == (None, 0, 3000)
    assert same(pool.get("far"), entry(1))
    for name in "abc":
        pool.put(name, entry(5))
    assert pool.get("far") is None
    assert pool.bytes == 3000
    assert same(pool.get("own"), entry(3))


def test_what_is_lent_never_drives_out_what_is_kept(tmp_path):
    pool = BytePool(2000, tmp_path)
    pool.put("a", entry(1))
    pool.put("b", entry(2))
    pool.lend("c", entry(3))
    assert pool.get("c") is None
    assert (pool.spilled, pool.bytes) == (0, 2000)


def test_what_is_lent_twice_counts_once(tmp_path):
    pool = BytePool(5000, tmp_path)
    pool.lend("a", entry(1))
    pool.lend("a", entry(1))
    assert pool.bytes == 1000
