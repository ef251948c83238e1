"""The memory of images that are decoded at the same time: bombs share a budget, and photographs pass them."""

import ctypes
import io
import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewseg.inference.images import FirstRange
from fewseg.serve import label_studio, limits, pages
from fewseg.serve.app import create_app
from fewseg.serve.label_studio import ImageCache
from fewseg.serve.limits import Budget, Limits, RequestError
from memory import STATUS, growth
from serve_page import Page, at_once, png, refusal
from small_segmenters import model, picture

SIDE = 3000
BYTES = 24  # of a pixel of the budget; without one, these bombs take 68
BOMB = png(np.zeros((SIDE, SIDE), np.uint8))
MASK_BOMB = png(np.zeros((SIDE, SIDE, 4), np.uint8) + np.uint8([0, 0, 0, 255]))


@pytest.fixture
def page():
    return Page(create_app(model(), Limits(pixels=SIDE * SIDE), hosts=("127.0.0.1",)))


def bombed(page, many):
    """Uploads, masks and an archive of bombs at the same time: their answers."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for k in range(2):
            file.writestr(f"images/{k}.png", BOMB)
            file.writestr(f"masks/{k}.png", BOMB)
    id = page.image(BOMB, "bomb.png")
    page.add_class("square")
    works = [lambda: page.upload(BOMB)] * many
    works += [lambda: page.settle(id, MASK_BOMB)] * many
    works += [lambda: page.http.post("/api/masks?name=a.zip", content=archive.getvalue())]
    return at_once(*works)


def test_bombs_at_the_same_time_stay_within_the_memory_of_the_budget():
    if not STATUS.exists() or not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("needs Linux's /proc and glibc")
    here = Path(__file__)  # in a process of its own: what others have left free must not count
    paths = os.pathsep.join([str(here.parents[2]), str(here.parent), *sys.path])
    run = [sys.executable, "-c", f"import {here.stem}; {here.stem}.measure()"]
    done = subprocess.run(run, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def measure():
    """Checks the answers to bombs, and the memory that they take."""
    mmap_threshold = -3
    ctypes.CDLL(None).mallopt(mmap_threshold, 2**20)  # memory is given back as it is freed
    limits._PATIENCE = 600.0
    page = Page(create_app(model(), Limits(pixels=SIDE * SIDE), hosts=("127.0.0.1",)))
    budget = page.http.app.state.pages.shared.decoding
    assert budget.most == SIDE * SIDE * 3 // 2
    page.upload(picture(0)[0])
    answers = []
    most = growth(lambda: answers.extend(bombed(page, 4)))
    assert most < BYTES * budget.most, most
    assert {answer.status_code for answer in answers} == {200, 201}
    assert budget.held == 0


def test_no_more_pixels_than_the_budget_are_decoded_at_once_and_none_refused(page, monkeypatch):
    lock, now, most = threading.Lock(), [0], [0]

    def counted(decode):
        def slow(*given, **named):
            count = pages.pixel_count(named.get("content", given[-1]), 10**9)
            with lock:
                now[0] += count
                most[0] = max(most[0], now[0])
            time.sleep(0.05)
            try:
                return decode(*given, **named)
            finally:
                with lock:
                    now[0] -= count

        return slow

    for module, name in ((pages, "read_rgb"), (pages, "read_mask"), (label_studio, "read_rgb")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    small = [png(picture(k, hw=(1000, 1000), box=(100, 900, 100, 900))[0]) for k in range(6)]
    page = Page(create_app(model(), Limits(pixels=10**6), hosts=("127.0.0.1",)))
    shared = page.http.app.state.pages.shared
    images = ImageCache(shared, 10**6, 2**30)
    works = [lambda content=content: page.image(content) for content in small]
    works += [lambda: images.encode(small[0], "a", FirstRange())]
    at_once(*works)
    assert most[0] == 10**6  # of at most 1.5 million
    assert shared.decoding.held == 0


def test_a_photograph_passes_bombs_that_wait():
    budget, order = Budget(100), []
    hold = threading.Event()

    def work(name, pixels, until=None):
        with budget.claim(pixels):
            order.append(name)
            if until is not None:
                until.wait(30)

    threads = [threading.Thread(target=work, args=("first bomb", 1000, hold))]
    for name, pixels in (("bomb", 90), ("bomb", 90), ("photograph", 12)):
        threads.append(threading.Thread(target=work, args=(name, pixels)))
    for count, thread in enumerate(threads):
        thread.start()
        while len(order) + len(budget._waiting) <= count:
            time.sleep(0.001)
    hold.set()
    for thread in threads:
        thread.join(30)
    assert order == ["first bomb", "photograph", "bomb", "bomb"]
    assert budget.held == 0


def test_a_photograph_does_not_wait_for_the_bomb_beside_it():
    budget = Budget(Limits(pixels=100).decoded_pixels)
    with budget.claim(100), budget.claim(50):
        assert budget.held == 150


@pytest.mark.parametrize(("patience", "waiting"), [(0.05, 20), (60.0, 0)], ids=["time", "number"])
def test_who_waits_for_too_long_or_behind_too_many_is_refused_in_a_line(page, patience, waiting, monkeypatch):
    monkeypatch.setattr(limits, "_PATIENCE", patience)
    monkeypatch.setattr(limits, "_MOST_WAITING", waiting)
    id = page.image(picture(0)[0])
    page.add_class("square")
    budget = page.http.app.state.pages.shared.decoding
    with budget.claim(budget.most):
        assert refusal(page.upload(picture(1)[0]), 503) == (
            "the server has too many images to decode now: try again later"
        )
        for answer in (
            page.settle(id, picture(0)[1]),
            page.http.get(f"/api/images/{id}/labels"),
            page.http.post("/api/masks?name=a.png", content=png(picture(0)[1])),
            page.http.delete("/api/classes/1"),
        ):
            assert answer.status_code == 503
        with pytest.raises(RequestError, match="too many images"):
            ImageCache(page.http.app.state.pages.shared, SIDE**2, 2**30).encode(BOMB, "a", FirstRange())
        assert page.state()["images"][0]["role"] == "open"
    assert page.settle(id, picture(0)[1]).status_code == 200
    assert budget.held == 0


def test_archives_that_are_unpacked_at_once_share_a_budget(page, monkeypatch):
    monkeypatch.setattr(limits, "_PATIENCE", 0.05)
    page.image(picture(0)[0], "a.png")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("masks/a.png", png(picture(0)[1]))
        file.writestr("more", bytes(2**20))
    budget = page.http.app.state.pages.shared.unpacking
    assert budget.most == 8 * 64 * 2**20
    ask = lambda: page.http.post("/api/masks?name=a.zip", content=archive.getvalue())  # noqa: E731
    with budget.claim(budget.most - 2**20):
        assert "too many archives to unpack" in refusal(ask(), 503)
    with budget.claim(budget.most - 2**21):
        assert ask().json()["count"] == 1
    assert budget.held == 0


def test_a_wait_for_the_network_keeps_no_other_image_from_being_decoded(page):
    """As while supports are fitted, for half a minute."""
    shared = page.http.app.state.pages.shared
    id = page.image(picture(0)[0])
    page.add_class("square")
    with shared.network:
        waiting = [threading.Thread(target=page.upload, args=(BOMB,)) for _ in range(3)]
        for thread in waiting:
            thread.start()
        time.sleep(0.5)
        assert page.settle(id, picture(0)[1]).status_code == 200
        np.testing.assert_array_equal(page.labels(id), picture(0)[1])
    for thread in waiting:
        thread.join(60)
    assert len(page.state()["images"]) == 4


def test_deep_images_count_twice_and_what_is_no_image_not_at_all():
    file = io.BytesIO()
    Image.fromarray(np.zeros((10, 20), np.uint16)).save(file, "TIFF")
    assert pages.pixel_count(file.getvalue(), 1000) == 400
    assert pages.pixel_count(png(np.zeros((10, 20), np.uint8)), 1000) == 200
    assert pages.pixel_count(b"no image", 1000) == 0
