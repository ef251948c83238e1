import threading
import time

import pytest

from fewseg.inference.stream import stream
from fewseg.types import DataError


class Watch:
    """Counts what is in memory: begun and not written."""

    def __init__(self):
        self.now, self.most, self.lock = 0, 0, threading.Lock()

    def __call__(self, step):
        with self.lock:
            self.now += step
            self.most = max(self.most, self.now)


def run(keys, read=lambda k: k, compute=lambda batch: [v for _, v in batch], write=lambda k, v: None, **more):
    failed = []
    options = {"workers": 3, "ahead": 4, **more}
    it = stream(keys, read, compute, write, lambda k, e: failed.append((k, str(e))), **options)
    return it, failed


@pytest.mark.parametrize("batch", [1, 4])
def test_memory_is_bounded_however_slow_the_writer(batch):
    watch = Watch()

    def write(key, value):
        time.sleep(0.003)
        watch(-1)

    it, _ = run(range(40), lambda k: watch(1), write=write, batch=batch, ahead=4)
    list(it)
    assert watch.most <= 2 * 4 + batch + 1


@pytest.mark.parametrize("where", ["read", "compute", "write"])
def test_an_error_of_another_kind_ends_the_stream_and_its_threads(where):
    def fail(*_):
        raise OSError("disk full")

    before = set(threading.enumerate())
    it, failed = run(range(50), **{where: fail})
    with pytest.raises(OSError, match="disk full"):
        list(it)
    assert not failed
    assert set(threading.enumerate()) <= before


def test_reading_computing_and_writing_overlap():
    """Each step waits for another image to be in another step: without overlap it would time out."""
    computing, reading_next, writing = threading.Event(), threading.Event(), threading.Event()

    def read(key):
        if key == 2:
            assert computing.wait(60)
            reading_next.set()
        return key

    def compute(batch):
        key = batch[0][0]
        if key == 0:
            computing.set()
            assert reading_next.wait(60)
        if key == 1:
            assert writing.wait(60)
        return [key]

    it, _ = run(range(3), read, compute, lambda k, v: writing.set(), workers=3)
    assert list(it) == [0, 1, 2]


@pytest.mark.parametrize("batch", [1, 3])
def test_an_image_that_cannot_be_computed_loses_no_other(batch):
    written, sizes = [], []

    def compute(given):
        sizes.append(len(given))
        if any(value == 4 for _, value in given):
            raise DataError("no memory")
        return [value for _, value in given]

    it, failed = run(range(7), compute=compute, write=lambda k, v: written.append(v), batch=batch)
    assert sorted(it) == list(range(7))
    assert failed == [(4, "no memory")]
    assert written == [0, 1, 2, 3, 5, 6]
    assert sizes == ([1] * 7 if batch == 1 else [3, 3, 1, 1, 1, 1])
