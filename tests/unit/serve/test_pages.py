"""The state of pages: what is kept, for how long, and what several threads may do to it at once."""

import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewseg.inference import Model, segmentation
from fewseg.inference.images import FirstRange
from fewseg.serve import pages
from fewseg.serve.label_studio import ImageCache
from fewseg.serve.limits import Limits, RequestError
from fewseg.serve.pages import Pages, PageState, SharedModel
from serve_page import at_once, png, read_png
from small_segmenters import SIZE, model, picture


def page_with_support(limits=None):
    """A page with a support and three open images, and their ids."""
    page = PageState(SharedModel(model()), limits or Limits())
    support, *others = (page.add_image(f"{k}.png", png(picture(k)[0])).id for k in range(4))
    page.add_class("square")
    page.set_mask(support, "support", png(picture(0)[1]))
    return page, support, others


def labels_of(page, id):
    return read_png(page.labels_png(id))


def test_answers_stay_within_the_bytes_of_a_session():
    roomy, _, others = page_with_support()
    bare = roomy.nbytes
    wanted = [labels_of(roomy, id) for id in others]
    one = (roomy.nbytes - bare) // 3
    assert one > 0
    tight, _, others = page_with_support(Limits(session_bytes=bare + one + one // 2))
    for id, labels in zip(others, wanted, strict=True):
        np.testing.assert_array_equal(labels_of(tight, id), labels)
        assert tight.nbytes <= tight.limits.session_bytes
    assert [tight.image(id).answer is not None for id in others] == [False, False, True]
    none, _, others = page_with_support(Limits(session_bytes=bare))
    np.testing.assert_array_equal(labels_of(none, others[0]), wanted[0])
    assert none.nbytes == bare


def test_answers_make_room_for_an_upload():
    roomy, _, others = page_with_support()
    bare, more = roomy.nbytes, roomy.image(others[0]).nbytes
    for id in others:
        labels_of(roomy, id)
    page, _, others = page_with_support(Limits(session_bytes=bare + max(more, roomy.nbytes - bare)))
    for id in others:
        labels_of(page, id)
    assert page.nbytes + more > page.limits.session_bytes
    page.add_image("one more.png", png(picture(7)[0]))
    assert page.nbytes <= page.limits.session_bytes


def test_more_images_than_can_stay_encoded_stay_within_the_bytes_of_a_session_and_are_predicted_alike():
    wanted, _, others = page_with_support()
    one = wanted.image(others[0])
    limits = Limits(session_bytes=50 * one.fixed_nbytes + 6 * one.encoded.nbytes, images=48)
    page = PageState(SharedModel(model()), limits)
    page.add_class("square")
    content = [png(picture(k)[0]) for k in range(4)]
    ids = [page.add_image("a.png", content[k % 4]).id for k in range(48)]
    assert page.nbytes <= limits.session_bytes
    page.set_mask(ids[40], "support", png(picture(0)[1]))
    for k in (1, 2, 3, 41, 42, 43, 47):
        np.testing.assert_array_equal(labels_of(page, ids[k]), labels_of(wanted, others[k % 4 - 1]))
        assert page.nbytes <= limits.session_bytes
    with pytest.raises(RequestError, match="48 images"):
        page.add_image("one more.png", content[0])


def test_what_can_be_undone_makes_room_last():
    page, support, others = page_with_support()
    page.remove_image(others[0])
    limit = page.nbytes - sum(page.image(id).encoded.nbytes for id in others[1:])
    page.limits = Limits(session_bytes=limit + 100)
    page.set_mask(others[1], "accepted", png(picture(0)[1]))
    assert page.nbytes <= page.limits.session_bytes
    assert page.image(support).encoded is not None
    page.undo()
    assert page.image(others[1]).role == "open"


def test_the_class_masks_of_a_support_count_and_answers_of_earlier_supports_are_not_kept():
    page, support, others = page_with_support()
    before = page.nbytes
    labels_of(page, others[0])
    assert page.image(others[0]).answer is not None
    page.set_mask(support, "accepted", png(picture(0)[1]))
    assert page.image(others[0]).answer is None
    assert page.nbytes < before


def test_a_mask_that_was_sent_while_a_class_was_deleted_is_refused(monkeypatch):
    page, _, others = page_with_support()
    page.add_class("dark")
    encode = pages.png_bytes

    def slow(labels):
        monkeypatch.setattr(pages, "png_bytes", encode)
        page.remove_class(1)
        return encode(labels)

    monkeypatch.setattr(pages, "png_bytes", slow)
    with pytest.raises(RequestError, match="draw it again") as error:
        page.set_mask(others[0], "support", png(picture(1)[1] * 2))
    assert error.value.status == 409
    assert page.image(others[0]).role == "open"
    assert not labels_of(page, others[1]).any()


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


def test_an_image_that_several_threads_want_is_encoded_and_counted_once():
    images = ImageCache(SharedModel(model()), 10**6, 2**30)
    images._lock = SlowLock()
    content = png(picture(0)[0])
    found = at_once(*[lambda: images.encode(content, "a", FirstRange())] * 3)
    assert found[0] is found[1] is found[2]
    assert images.nbytes == found[0].nbytes


def deep_file(values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF")
    return file.getvalue()


def test_uploads_of_16_bits_are_scaled_by_the_range_of_the_first_one_in_pages_and_in_projects():
    first, second = (picture(k)[0][..., 0].astype(np.uint16) * 11 for k in range(2))
    low, high = np.percentile(first, [0.1, 99.9])
    page, shared = PageState(SharedModel(model()), Limits()), SharedModel(model())
    cache, values = ImageCache(shared, 10**6, 2**30), FirstRange()
    for k, own in enumerate([first, second // 4]):  # a darker image stays dark
        scaled = np.rint((own.clip(low, high) - low) / (high - low) * 255).astype(np.uint8)
        as_bytes = shared.model.prepare(torch.from_numpy(scaled).expand(3, -1, -1).contiguous())
        assert page.add_image(f"{k}.tif", deep_file(own)).encoded.digest == as_bytes.digest
        assert cache.encode(deep_file(own), "a", values).digest == as_bytes.digest
    plain = page.add_image("plain.png", png(picture(3)[0])).encoded
    pixels = torch.from_numpy(picture(3)[0]).permute(2, 0, 1).contiguous()
    assert plain.digest == shared.model.prepare(pixels).digest


def open_pages(clock=lambda: 0.0, **limits):
    return Pages(SharedModel(model()), Limits(**limits), clock)


@pytest.mark.parametrize("by_sweeping", [True, False])
def test_a_page_that_is_not_used_is_dropped_with_all_it_holds(by_sweeping):
    times = [0]
    opened = open_pages(lambda: times[-1], idle_seconds=100)
    token, page = opened.open()
    for now in (99, 198):
        times.append(now)
        assert opened.get(token) is page
    times.append(299)
    if by_sweeping:
        opened.sweep()
    else:
        with pytest.raises(RequestError, match="timed out") as error:
            opened.get(token)
        assert error.value.status == 401
    assert len(opened) == 0


def test_of_empty_pages_the_one_that_was_not_used_for_longest_makes_room():
    times = [0]
    opened = open_pages(lambda: times[-1], sessions=2)
    first, page = opened.open()
    times.append(1)
    second, _ = opened.open()
    times.append(2)
    opened.get(first)
    opened.open()
    assert opened.get(first) is page
    with pytest.raises(RequestError, match="unknown"):
        opened.get(second)


def test_an_empty_page_makes_room_and_a_used_one_does_not():
    opened = open_pages(sessions=2)
    used, page = opened.open()
    page.add_image("a.png", png(picture(0)[0]))
    empty, _ = opened.open()
    third, other = opened.open()
    other.add_image("a.png", png(picture(1)[0]))
    assert len(opened) == 2
    assert opened.get(used) is page
    with pytest.raises(RequestError):
        opened.get(empty)
    with pytest.raises(RequestError, match="2 sessions at a time") as error:
        opened.open()
    assert error.value.status == 503
    opened.close(third)
    opened.open()


def test_a_page_that_waits_for_the_network_does_not_stop_the_others():
    opened = open_pages(sessions=1)
    _, page = opened.open()
    with page._lock:  # as while its supports wait to be encoded
        ThreadPoolExecutor().submit(opened.open).result(30)


@pytest.mark.parametrize(
    "act", [PageState.advice, lambda page: page.save_supports(Path(os.devnull))], ids=["advice", "examples"]
)
def test_what_waits_for_a_fit_does_not_keep_it_from_ending(monkeypatch, act):
    monkeypatch.setattr(pages, "save_supports", lambda *_: None)
    page, _, others = page_with_support()
    begun, waits, session = threading.Event(), threading.Event(), SharedModel.session

    def slow(shared, *given):
        begun.set()
        waits.wait(1)  # never set: the other thread comes to wait meanwhile
        return session(shared, *given)

    monkeypatch.setattr(SharedModel, "session", slow)
    fit = threading.Thread(target=page.labels_png, args=(others[0],), daemon=True)
    fit.start()
    assert begun.wait(30)
    other = threading.Thread(target=act, args=(page,), daemon=True)
    other.start()
    for thread in (fit, other):
        thread.join(20)
        assert not thread.is_alive()


def test_the_method_is_chosen_again_only_where_classes_change_or_supports_double(monkeypatch):
    plain, counts = model("fitted"), []
    shared = SharedModel(Model(plain.method, plain.config, SIZE, chooses=True))
    choose, first = segmentation.choose, []

    def counted(encoder, supports):
        counts.append(len(supports.images))
        first.extend([] if first else [choose(encoder, supports)])
        return first[0]

    monkeypatch.setattr(segmentation, "choose", counted)
    page = PageState(shared, Limits())
    page.add_class("square")
    ids = [page.add_image(f"{k}.png", png(picture(k)[0])).id for k in range(6)]
    for id, k in zip(ids[:5], range(5), strict=True):
        page.set_mask(id, "support", png(picture(k)[1]))
        assert labels_of(page, ids[5]).any()
    assert counts == [1, 2, 4]
    page.rename_class(1, "box")
    labels_of(page, ids[5])
    assert counts == [1, 2, 4, 5]
