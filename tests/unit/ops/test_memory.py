"""Unused memory goes back to the system; torch's errors of memory are ``MemoryError``."""

import gc
import mmap
import sys

import numpy as np
import pytest
import torch

from fewseg.ops import memory as heap
from fewseg.ops.memory import as_memory_error


class Library:
    def __init__(self):
        self.trimmed = 0

    def malloc_trim(self, pad):
        self.trimmed += 1


@pytest.fixture
def library(monkeypatch):
    made = Library()
    monkeypatch.setattr(heap, "_glibc", lambda: made)
    monkeypatch.setattr(heap._Least, "bytes", None)
    return made


def trims(monkeypatch, library, *own, slack=10):
    """How often it was trimmed after each call, the process having so much memory of its own."""
    found = []
    for bytes in own:
        monkeypatch.setattr(heap, "own_memory", lambda bytes=bytes: bytes)
        heap.give_back(slack)
        found.append(library.trimmed)
    return found


def test_memory_is_given_back_where_the_process_has_grown_by_more_than_the_slack(monkeypatch, library):
    assert trims(monkeypatch, library, 100, 110, 111, 121, 122) == [0, 0, 1, 1, 2]


def test_growth_is_from_the_least_that_was_seen(monkeypatch, library):
    assert trims(monkeypatch, library, 100, 80, 90, 91) == [0, 0, 0, 1]


def test_the_slack_is_half_a_gibibyte_unless_another_is_given(monkeypatch, library):
    assert trims(monkeypatch, library, 0, heap.SLACK, heap.SLACK + 1, slack=None) == [0, 0, 1]
    assert heap.SLACK == 512 << 20


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(heap, "_glibc", lambda: None)
    monkeypatch.setattr(heap, "own_memory", lambda: pytest.fail("it was asked"))
    heap.give_back(0)


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_own_memory_grows_with_what_is_written_and_not_with_mapped_files(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * (64 << 20))
    gc.collect()  # memory that earlier tests left must not shrink during this one
    before = heap.own_memory()
    mapped = np.memmap(tmp_path / "file", np.uint8, "r")
    assert int(mapped.max()) == ord("x")
    assert heap.own_memory() - before < 16 << 20
    # not np.ones, which may take what earlier tests gave back to the heap
    pages = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held = np.frombuffer(pages, np.uint8)
    held.fill(1)
    assert 48 << 20 < heap.own_memory() - before < 96 << 20
    assert held.all()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone gives memory back")
def test_the_real_allocator_gives_back_what_is_free():
    if heap._glibc() is None:
        pytest.skip("this C library is not glibc")
    heap.give_back(0)
    assert heap._Least.bytes > 0


def test_memory_that_torch_cannot_get_is_a_memory_error():
    with pytest.raises(MemoryError, match="memory"), as_memory_error():
        torch.empty(1 << 55)


def test_a_gpus_error_is_one_too():
    with pytest.raises(MemoryError, match="CUDA out of memory"), as_memory_error():
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), as_memory_error():
        raise RuntimeError("shapes differ")
