"""Memory that the allocator holds and nobody uses goes back to the system."""

import sys

import pytest
import torch

from fewseg.ops import heap


class Library:
    def __init__(self, free):
        self.free, self.trimmed = free, 0

    def mallinfo2(self):
        facts = heap._Facts()
        facts.fordblks = self.free
        return facts

    def malloc_trim(self, pad):
        self.trimmed += 1


@pytest.fixture(autouse=True)
def nothing_returned(monkeypatch):
    monkeypatch.setattr(heap._Returned, "bytes", 0)


@pytest.mark.parametrize(("free", "slack", "times"), [(11, 10, 1), (10, 10, 0), (heap.SLACK + 1, None, 1)])
def test_memory_is_given_back_where_more_than_the_slack_is_free(monkeypatch, free, slack, times):
    library = Library(free)
    monkeypatch.setattr(heap, "_glibc", lambda: library)
    heap.give_back(slack)
    assert library.trimmed == times


def test_what_went_back_already_is_counted_by_the_allocator_but_not_again(monkeypatch):
    library = Library(30)
    monkeypatch.setattr(heap, "_glibc", lambda: library)
    times = []
    for library.free in (30, 40, 41, 35, 45, 46):  # at 35 pages that had gone back were used again
        heap.give_back(10)
        times.append(library.trimmed)
    assert times == [1, 1, 2, 2, 2, 3]


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(heap, "_glibc", lambda: None)
    heap.give_back(0)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone tells what it holds")
def test_the_real_allocator_gives_back_what_is_free():
    library = heap._glibc()
    if library is None:
        pytest.skip("this C library is not glibc 2.33 or newer")
    heap.give_back(0)
    assert library.mallinfo2().arena > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_large_tensor_is_copied_into_pages_of_its_own_in_its_layout(dtype, layout):
    tensor = torch.randn(2, 64, 64, 130).to(dtype, memory_format=layout)
    found = heap.apart(tensor)
    assert torch.equal(found, tensor)
    assert found.is_contiguous(memory_format=layout)
    assert found.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    assert found.data_ptr() % 4096 == 0
    found.zero_()  # it may be written
    assert tensor.any()


def test_a_small_tensor_stays_where_it_is():
    tensor = torch.randn(3, 4)
    assert heap.apart(tensor) is tensor
