import threading

import pytest

from fewseg.serve.limits import Limits, Refused
from fewseg.serve.workspace import Sessions
from serve_page import png
from small_segmenters import model, picture


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_session_that_nobody_uses_is_gone_with_all_it_holds():
    clock = Clock()
    sessions = Sessions(model(), Limits(idle_seconds=100), clock)
    token, space = sessions.start()
    clock.now = 99
    assert sessions.workspace(token) is space
    clock.now = 198
    assert sessions.workspace(token) is space
    clock.now = 299
    with pytest.raises(Refused, match="timed out") as error:
        sessions.workspace(token)
    assert error.value.status == 401
    assert len(sessions) == 0


def test_sweeping_frees_what_timed_out():
    clock = Clock()
    sessions = Sessions(model(), Limits(idle_seconds=100), clock)
    sessions.start()
    clock.now = 101
    sessions.sweep()
    assert len(sessions) == 0


def test_an_empty_session_makes_room_and_a_used_one_does_not():
    sessions = Sessions(model(), Limits(sessions=2))
    used, space = sessions.start()
    space.add_image("a.png", png(picture(0)[0]))
    empty, _ = sessions.start()
    third, other = sessions.start()
    other.add_image("a.png", png(picture(1)[0]))
    assert len(sessions) == 2
    assert sessions.workspace(used) is space
    with pytest.raises(Refused):
        sessions.workspace(empty)
    with pytest.raises(Refused, match="accepted are 2 at a time") as error:
        sessions.start()
    assert error.value.status == 503
    sessions.end(third)
    sessions.start()


def test_a_session_that_waits_for_the_network_does_not_stop_the_others():
    sessions = Sessions(model(), Limits(sessions=1))
    _, space = sessions.start()
    done = threading.Event()
    with space._lock:  # as while its supports wait to be encoded
        opening = threading.Thread(target=lambda: (sessions.start(), done.set()))
        opening.start()
        assert done.wait(30)
    opening.join()


def test_limits_are_positive():
    with pytest.raises(ValueError, match="images"):
        Limits(images=0)
