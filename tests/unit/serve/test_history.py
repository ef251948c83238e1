"""Every action on a page can be taken back, and made again."""

import numpy as np
import pytest

from serve_page import refusal
from small_segmenters import picture


def history(page, act):
    answer = page.http.post(f"/api/{act}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def everything(page):
    """All that a person sees of a page."""
    state = page.state()
    seen = [(i["id"], i["name"], i["role"], page.labels(i["id"]).tobytes()) for i in state["images"]]
    return state["classes"], seen


def drawn(other):
    mask = np.zeros((60, 40), np.uint8)
    mask[10:30, 5:20] = 1
    return mask


ACTIONS = {
    "a mask is accepted": lambda page, support, other: page.settle(other, drawn(other), "accepted"),
    "a mask is edited": lambda page, support, other: page.settle(other, drawn(other), "edited"),
    "an example is added": lambda page, support, other: page.settle(other, drawn(other)),
    "an example is predicted again": lambda page, support, other: page.http.delete(
        f"/api/images/{support}/labels"
    ),
    "an example is removed": lambda page, support, other: page.http.delete(f"/api/images/{support}"),
    "an image is removed": lambda page, support, other: page.http.delete(f"/api/images/{other}"),
    "a class is added": lambda page, support, other: page.add_class("more"),
    "a class is renamed": lambda page, support, other: page.http.put("/api/classes/1", params={"name": "b"}),
    "a class is deleted": lambda page, support, other: page.http.delete("/api/classes/1"),
}


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_it_is_undone_and_made_again(annotated, action):
    page, support, other, _ = annotated
    page.image(picture(4)[0], "third.png")
    before = everything(page)
    assert action(page, support, other).status_code < 300
    after = everything(page)
    assert after != before
    answer = history(page, "undo")
    assert everything(page) == before
    assert answer["redoable"] is True
    assert history(page, "redo")["redoable"] is False
    assert everything(page) == after


def test_strokes_in_a_row_are_undone_together_and_other_changes_one_by_one(annotated):
    page, _, other, _ = annotated
    before = everything(page)
    mask = drawn(other)
    for again in (False, True, True):
        mask = mask.copy()
        mask[40:42, 3:9] = again
        page.settle(other, mask, "edited", again=again)
    page.settle(other, mask, "accepted")
    assert history(page, "undo")["images"][1]["role"] == "edited"
    assert history(page, "undo")["changed"] == [other]
    assert everything(page) == before
    history(page, "undo")  # the example
    assert refusal(page.http.post("/api/undo"), 409) == "there is nothing to undo"


def test_what_is_uploaded_after_a_change_outlives_its_undo_and_a_new_change_ends_the_redo(annotated):
    page, support, other, mask = annotated
    page.http.delete(f"/api/images/{support}")
    third = page.image(picture(4)[0], "third.png")
    history(page, "undo")
    assert [image["id"] for image in page.state()["images"]] == [support, other, third]
    page.settle(third, mask * 0, "accepted")
    assert "nothing to do again" in refusal(page.http.post("/api/redo"), 409)
