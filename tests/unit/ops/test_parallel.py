import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fewseg.ops import parallel
from fewseg.ops.parallel import for_each, summary
from fewseg.types import DataError


def test_results_come_in_the_order_of_the_ids_whatever_finishes_first():
    def work(id):
        time.sleep(0.02 if id == "a" else 0)
        return id * 2

    assert list(for_each(["a", "c", "b"], work, "x", workers=3, progress=False).items()) == [
        ("a", "aa"),
        ("c", "cc"),
        ("b", "bb"),
    ]
    assert for_each([], work, "x", progress=False) == {}


def test_bad_data_does_not_stop_the_rest_and_is_reported_in_the_order_of_the_ids():
    seen = []

    def work(id):
        seen.append(id)
        if id in "db":
            raise DataError(f"{id} is bad")

    with pytest.raises(DataError, match=r"reading: 2 of 4 images cannot be used\n  d is bad\n  b is bad$"):
        for_each(["d", "a", "b", "c"], work, "reading", workers=1, progress=False)
    assert seen == ["d", "a", "b", "c"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_any_other_error_ends_the_work_at_once(monkeypatch, error):
    cancelled = threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait=True, *, cancel_futures=False):
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            cancelled.set()
            super().shutdown(wait)

    monkeypatch.setattr(parallel, "ThreadPoolExecutor", Pool)
    seen = []

    def work(id):
        seen.append(id)
        if id == "bad":
            raise error
        cancelled.wait(20)

    with pytest.raises(error):
        for_each(["bad", "under way", "waiting"], work, "x", workers=1, progress=False)
    assert "waiting" not in seen


def test_a_summary_shows_five_and_counts_the_others():
    assert summary(list("abcde")) == "\n  a\n  b\n  c\n  d\n  e"
    assert summary(list("abcdefg")).endswith("\n  e\n  ... and 2 more")
    assert summary([]) == ""
