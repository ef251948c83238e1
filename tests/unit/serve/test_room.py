"""What a workspace and the server keep, and what several threads may do to it at once."""

import threading
import time

import numpy as np
import pytest

from fewseg.serve import workspace
from fewseg.serve.limits import Limits, Refused
from fewseg.serve.workspace import EncodedImages, Workspace
from serve_page import png
from small_segmenters import model, picture


def opened(limits=None):
    """A workspace with a support, three images that are open, and their ids."""
    space = Workspace(model(), limits or Limits(), threading.Lock(), threading.Lock())
    support, *others = (space.add_image(f"{k}.png", png(picture(k)[0])).id for k in range(4))
    space.add_class("square")
    space.set_labels(support, "support", png(picture(0)[1]))
    return space, support, others


def test_answers_stay_within_the_bytes_of_a_session():
    roomy, _, others = opened()
    bare = roomy.nbytes
    wanted = [roomy.labels(id) for id in others]
    one = (roomy.nbytes - bare) // 3
    assert one > 0
    tight, _, others = opened(Limits(session_bytes=bare + one + one // 2))
    for id, labels in zip(others, wanted, strict=True):
        np.testing.assert_array_equal(tight.labels(id), labels)
        assert tight.nbytes <= tight.limits.session_bytes
    assert [tight.image(id).held is not None for id in others] == [False, False, True]
    none, _, others = opened(Limits(session_bytes=bare))
    np.testing.assert_array_equal(none.labels(others[0]), wanted[0])
    assert none.nbytes == bare


def test_answers_make_room_for_an_upload():
    roomy, _, others = opened()
    bare, more = roomy.nbytes, roomy.image(others[0]).nbytes
    for id in others:
        roomy.labels(id)
    space, _, others = opened(Limits(session_bytes=bare + max(more, roomy.nbytes - bare)))
    for id in others:
        space.labels(id)
    assert space.nbytes + more > space.limits.session_bytes
    space.add_image("one more.png", png(picture(7)[0]))
    assert space.nbytes <= space.limits.session_bytes


def test_a_supports_own_masks_count():
    space, support, _ = opened()
    before = space.nbytes
    space.set_labels(support, "accepted", png(picture(0)[1]))
    assert space.nbytes < before


def test_answers_of_other_supports_are_not_kept():
    space, support, others = opened()
    space.labels(others[0])
    space.set_labels(support, "support", png(np.roll(picture(0)[1], 5, axis=0)))
    assert space.image(others[0]).held is None


def test_a_mask_that_was_on_its_way_while_a_class_was_deleted_is_refused(monkeypatch):
    space, _, others = opened()
    space.add_class("dark")
    packed = workspace.png_bytes

    def slow(labels):
        monkeypatch.setattr(workspace, "png_bytes", packed)
        space.remove_class(1)
        return packed(labels)

    monkeypatch.setattr(workspace, "png_bytes", slow)
    with pytest.raises(Refused, match="draw it again") as error:
        space.set_labels(others[0], "support", png(picture(1)[1] * 2))
    assert error.value.status == 409
    assert space.image(others[0]).role == "open"
    assert not space.labels(others[1]).any()


class SlowLock:
    """A lock whose owner is slow to take it a second time."""

    def __init__(self):
        self.lock, self.taken = threading.Lock(), {}

    def __enter__(self):
        me = threading.get_ident()
        self.taken[me] = self.taken.get(me, 0) + 1
        if self.taken[me] == 2:
            time.sleep(0.5)
        self.lock.acquire()

    def __exit__(self, *_):
        self.lock.release()


def test_an_image_that_two_threads_want_is_encoded_and_counted_once():
    images = EncodedImages(model(), 10**6, 2**30, threading.Lock())
    images._lock = SlowLock()
    content, found = png(picture(0)[0]), []
    threads = [threading.Thread(target=lambda: found.append(images.encode(content, "a"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is found[1] is found[2]
    assert images.nbytes == found[0].nbytes
