"""Memory that the allocator holds and nobody uses goes back to the system."""

import sys

import pytest

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


@pytest.mark.parametrize(("free", "slack", "times"), [(11, 10, 1), (10, 10, 0), (heap.SLACK + 1, None, 1)])
def test_memory_is_given_back_where_more_than_the_slack_is_free(monkeypatch, free, slack, times):
    library = Library(free)
    monkeypatch.setattr(heap, "_glibc", lambda: library)
    heap.give_back(slack)
    assert library.trimmed == times


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
