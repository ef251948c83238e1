"""The page of ``fewseg serve`` in a real Chromium: what is drawn is what is downloaded, to the pixel."""

import io
import time
import zipfile

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from browser import NEEDED, expect, opening
from fewseg.inference import Segmenter
from fewseg.serve.app import create_app
from fewseg.serve.limits import Limits
from serve_page import png, read_png, serving
from small_segmenters import iou, model, picture

pytestmark = NEEDED

FIRST, FIRST_MASK = picture(0, hw=(90, 120), box=(20, 60, 30, 80))
SECOND, _ = picture(9, hw=(100, 80), box=(10, 60, 10, 50))


@pytest.fixture(scope="module")
def address():
    with serving(create_app(model(), Limits(sessions=99))) as address:
        yield f"{address}/"


@pytest.fixture
def open_page(browser, address):
    """Opens the page with two images."""
    with opening(browser, address) as start:

        def with_images(width=1000, height=700, **device):
            page = start(viewport={"width": width, "height": height}, **device)
            page.wait_for_selector("body[data-ready]")
            choose_files(page, ("first.png", png(FIRST)), ("second.png", png(SECOND)))
            expect(page.locator("#strip button")).to_have_count(2)
            expect(page.locator("#hint")).to_have_text("2 added")
            return page

        yield with_images


def choose_files(page, *files):
    page.set_input_files("#files", [{"name": n, "mimeType": "image/png", "buffer": b} for n, b in files])


def places(page, hw):
    """Image point (x, y) to page point, as the fitted view has it."""
    box = page.locator("#canvas").bounding_box()
    h, w = hw
    zoom = min((box["width"] - 16) / w, (box["height"] - 16) / h)
    left = box["x"] + (box["width"] - w * zoom) / 2
    top = box["y"] + (box["height"] - h * zoom) / 2
    return lambda x, y: (left + x * zoom, top + y * zoom)


def drag(page, *points):
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point)
    page.mouse.up()


def drag_rectangle(page):
    """Marks what ``FIRST_MASK`` does."""
    at = places(page, FIRST.shape[:2])
    page.check("#tool input[value=rectangle]", force=True)
    drag(page, at(30.5, 20.5), at(60, 40), at(79.5, 59.5))


def rectangle_by_keys(page):
    """From where the cursor is, at first (60, 45), to 10 pixels right and 1 down for each arrow."""
    for key in ("Space", "Shift+ArrowRight", "ArrowDown", "Space"):
        page.keyboard.press(key)


def wait_for_role(page, place, text):
    expect(page.locator("#strip .role").nth(place)).to_contain_text(text)


def download(page):
    page.click("#save summary")
    page.select_option("#format", "png")
    with page.expect_download() as waited:
        page.click("#download button")
    with zipfile.ZipFile(io.BytesIO(open(waited.value.path(), "rb").read())) as file:
        return {name: file.read(name) for name in file.namelist()}


def predicted(mask):
    segmenter = Segmenter(model())
    segmenter.add_class("object", FIRST, mask)
    return segmenter.segment(SECOND).labels


def near(hw, a, b, radius):
    """Pixels whose centre is at most a radius away from a line."""
    ys, xs = np.mgrid[: hw[0], : hw[1]] + 0.5
    d = np.subtract(b, a)
    t = np.clip(((xs - a[0]) * d[0] + (ys - a[1]) * d[1]) / max(1e-9, d @ d), 0, 1)
    return np.hypot(xs - a[0] - t * d[0], ys - a[1] - t * d[1]) <= radius


def test_draw_predict_correct_promote_download(open_page, tmp_path):
    page = open_page(1280, 800)
    drag_rectangle(page)
    wait_for_role(page, 0, "example")
    wait_for_role(page, 1, "predicted ·")
    expect(page.locator("#accept")).to_be_disabled()  # it would be an example no longer
    page.screenshot(path=tmp_path / "support.png")
    guess = predicted(FIRST_MASK)
    assert guess.any()

    page.click("#strip button:nth-child(2)")
    expect(page.locator("#about")).to_contain_text("quality")
    at = places(page, SECOND.shape[:2])
    page.check("#tool input[value=eraser]", force=True)
    drag(page, at(20.25, 15.75), at(20.25, 70.25))
    wait_for_role(page, 1, "edited")
    page.click("#ask-no")
    wait_for_role(page, 1, "accepted")
    page.screenshot(path=tmp_path / "corrected.png")
    expected = guess.copy()
    expected[near(guess.shape, (20.25, 15.75), (20.25, 70.25), 6)] = 0
    assert (expected != guess).any()

    files = download(page)
    np.testing.assert_array_equal(read_png(files["masks/first.png"]), FIRST_MASK)
    found = read_png(files["masks/second.png"])
    assert (found != expected).sum() <= 2  # pointer places are rounded: a centre on the very rim may differ

    for role in ("edited", "predicted ·"):
        page.click("#undo")
        wait_for_role(page, 1, role)
    page.click("#support")
    wait_for_role(page, 1, "example")
    np.testing.assert_array_equal(read_png(download(page)["masks/second.png"]), guess)


def use(page, tool):
    page.check(f"#tool input[value={tool}]", force=True)


def first_mask(page):
    return read_png(download(page)["masks/first.png"])


def scribble(page):
    at = places(page, FIRST.shape[:2])
    use(page, "scribble")
    drag(page, at(40.5, 38.5), at(50, 42), at(70.5, 40.5))


def test_a_scribble_is_completed_before_it_becomes_an_example_and_undone_with_it(open_page, tmp_path):
    page = open_page()
    scribble(page)
    wait_for_role(page, 0, "example")
    wait_for_role(page, 1, "predicted ·")
    page.screenshot(path=tmp_path / "completed.png")
    assert iou(first_mask(page) == 1, FIRST_MASK == 1) > 0.95
    page.click("#strip button:nth-child(2)")
    expect(page.locator("#about")).to_contain_text("quality")
    page.click("#strip button:nth-child(1)")
    expect(page.locator("#about")).to_contain_text("example")  # it is shown
    at = places(page, FIRST.shape[:2])
    page.check('[aria-label="background"]', force=True)
    drag(page, at(35.5, 25.5), at(45.5, 25.5))  # of what has been settled, this much is wrong
    expect(page.locator("#undo")).to_be_enabled()
    corrected = first_mask(page)
    assert not corrected[25, 36:45].any()
    page.click("#undo")
    assert iou(first_mask(page) == 1, FIRST_MASK == 1) > 0.95
    page.click("#redo")
    np.testing.assert_array_equal(first_mask(page), corrected)


def test_a_tap_a_box_and_a_fill_find_the_thing(open_page):
    page = open_page()
    at = places(page, FIRST.shape[:2])
    for tool, points in (
        ("scribble", [at(50.5, 40.5)]),
        ("box", [at(24.5, 14.5), at(60, 40), at(86.5, 65.5)]),
        ("fill", [at(50.5, 40.5)]),
    ):
        use(page, tool)
        drag(page, *points)
        expect(page.locator("#undo")).to_be_enabled()
        found = first_mask(page)
        assert iou(found == 1, FIRST_MASK == 1) > 0.95, tool
        page.click("#undo")
        wait_for_role(page, 0, "untouched")
    np.testing.assert_array_equal(found, FIRST_MASK)  # a fill is exact


def test_a_polygon_follows_the_edges_between_its_corners_and_forgets_corners(open_page):
    page = open_page()
    at = places(page, FIRST.shape[:2])
    use(page, "polygon")
    for point in ((31, 21), (79, 21), (90, 80)):
        page.mouse.click(*at(*point))
    page.keyboard.press("Control+z")  # the last corner
    for point in ((79, 59), (31, 59), (31, 21)):
        page.mouse.click(*at(*point))
    wait_for_role(page, 0, "example")
    assert iou(first_mask(page) == 1, FIRST_MASK == 1) > 0.93


def test_strokes_that_contradict_or_miss_the_image_are_named(open_page):
    page = open_page()
    scribble(page)
    wait_for_role(page, 0, "example")
    page.check('[aria-label="background"]', force=True)
    at = places(page, FIRST.shape[:2])
    drag(page, at(55.5, 30.5), at(55.5, 50.5))
    expect(page.locator("#hint")).to_contain_text("the newer stroke counts")
    drag(page, at(-8, 20), at(-8, 60))
    expect(page.locator("#hint")).to_contain_text("outside the image")
    assert not first_mask(page)[31:50, 55].any()


def test_a_stroke_during_a_lost_connection_is_kept_and_sent_later(open_page):
    page = open_page()
    for address in ("**/complete", "**/labels?role=*"):
        page.route(address, lambda route: route.abort())
    scribble(page)
    expect(page.locator("#hint")).to_contain_text("is kept here")
    page.unroute("**/complete")
    page.unroute("**/labels?role=*")
    wait_for_role(page, 0, "example")
    assert iou(first_mask(page) == 1, FIRST_MASK == 1) > 0.95


def test_a_second_tab_sees_the_session_and_does_not_write_over_what_it_has_not_seen(open_page):
    page = open_page()
    with page.expect_popup() as opened:
        page.evaluate("open(location.href)")
    other = opened.value
    other.wait_for_selector("body[data-ready]")
    expect(other.locator("#strip button")).to_have_count(2)
    drag_rectangle(page)
    wait_for_role(page, 0, "example")
    wait_for_role(page, 1, "predicted ·")
    use(other, "brush")
    drag(other, places(other, FIRST.shape[:2])(100.5, 80.5))
    expect(other.locator("#alert")).to_contain_text("was changed in another tab")
    np.testing.assert_array_equal(first_mask(page), FIRST_MASK)


def test_the_keyboard_alone_does_everything(open_page):
    page = open_page()
    page.focus("#canvas")
    page.keyboard.press("r")
    rectangle_by_keys(page)
    wait_for_role(page, 0, "example")
    page.keyboard.press("b")
    page.keyboard.press("Space")
    page.keyboard.press("Escape")  # nothing of the stroke stays
    wait_for_role(page, 1, "predicted ·")
    page.keyboard.press("n")
    expect(page.locator("#about")).to_contain_text("quality")
    page.keyboard.press("a")
    wait_for_role(page, 1, "accepted")
    mask = np.zeros(FIRST.shape[:2], np.uint8)
    mask[45:47, 60:71] = 1
    files = download(page)
    np.testing.assert_array_equal(read_png(files["masks/first.png"]), mask)
    np.testing.assert_array_equal(read_png(files["masks/second.png"]), predicted(mask))


def test_keys_that_come_before_the_mask_does_are_not_lost(open_page):
    page = open_page()
    drag_rectangle(page)
    wait_for_role(page, 1, "predicted ·")
    page.route("**/picture", lambda route: (time.sleep(1), route.continue_()))
    page.focus("#canvas")
    for key in "nam":  # next, accept, and back at once
        page.keyboard.press(key)
    wait_for_role(page, 1, "accepted")
    wait_for_role(page, 0, "example")
    np.testing.assert_array_equal(read_png(download(page)["masks/second.png"]), predicted(FIRST_MASK))


def test_classes_are_renamed_and_deleted_by_the_keyboard_alone(open_page):
    page = open_page()
    page.focus("#class-name")
    page.keyboard.type("lichen")
    page.keyboard.press("Enter")
    names = page.locator("#classes input[type=text]")
    expect(names).to_have_count(2)
    page.focus("#canvas")
    page.keyboard.press("r")
    for number in ("2", "1"):  # a rectangle of each class, from where the last one ended
        page.keyboard.press(number)
        rectangle_by_keys(page)
        wait_for_role(page, 0, "example")
    page.focus('[aria-label="Name of class 2"]')
    page.keyboard.press("Control+a")
    page.keyboard.type("moss")
    page.keyboard.press("Tab")  # on to the button that deletes it
    assert page.evaluate("document.activeElement.ariaLabel") == "Delete class 2"
    for _ in range(4):  # its name, its colour, the radio button of the class that is drawn
        page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Delete class 1"
    page.keyboard.press("Enter")
    expect(page.locator("#sure")).to_contain_text("Delete the class “object”?")
    page.keyboard.press("Escape")
    expect(page.locator("#sure")).to_be_hidden()
    expect(names).to_have_count(2)
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(names).to_have_count(1)
    expect(names).to_have_value("moss")
    files = download(page)
    mask = np.zeros(FIRST.shape[:2], np.uint8)
    mask[45:47, 60:71] = 1  # what was 2; the second rectangle, from (70, 46) on, took its last pixel
    mask[46, 70] = 0
    np.testing.assert_array_equal(read_png(files["masks/first.png"]), mask)
    assert files["masks/classes.txt"] == b"background\nmoss\n"


def test_a_phone_shows_all_without_scrolling_sideways(open_page, tmp_path):
    page = open_page(390, 844, has_touch=True, is_mobile=True)
    at = places(page, FIRST.shape[:2])
    page.check("#tool input[value=polygon]", force=True)
    page.uncheck("#snap")
    for point in ((30, 20), (80, 20), (80, 60), (30, 60), (30, 20)):
        page.touchscreen.tap(*at(*point))
    wait_for_role(page, 0, "example")
    wait_for_role(page, 1, "predicted ·")
    page.screenshot(path=tmp_path / "phone.png", full_page=True)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    found = read_png(download(page)["masks/first.png"])
    np.testing.assert_array_equal(found, FIRST_MASK)


@pytest.mark.parametrize("hw", [(844, 390), (640, 320)])
def test_a_phone_has_all_tools_in_its_width_and_the_two_answers_on_its_first_screen(open_page, hw):
    height, width = hw
    page = open_page(width, height, has_touch=True, is_mobile=True)
    for tool in page.locator("#tool .choice").all():
        box = tool.bounding_box()
        assert 9 <= box["x"] < box["x"] + box["width"] <= width - 9
        assert tool.evaluate("e => e.scrollWidth <= e.clientWidth")
    assert page.evaluate("document.scrollingElement.scrollHeight <= innerHeight")
    page.click("#options")
    for name in ("accept", "support", "classes", "tool", "undo", "about"):
        box = page.locator(f"#{name}").bounding_box()
        assert 0 <= box["y"] < box["y"] + box["height"] <= height, name
    page.locator("#remove").scroll_into_view_if_needed()
    expect(page.locator("#remove")).to_be_in_viewport()


def test_a_broken_file_is_named_and_the_page_goes_on(open_page):
    page = open_page()
    choose_files(page, ("bad.png", png(FIRST)[:300]))
    page.wait_for_selector("#alert:not([hidden])")
    assert "bad.png" in page.inner_text("#alert")
    assert page.locator("#strip button").count() == 2


def test_a_mask_that_is_refused_is_not_called_accepted_and_can_be_sent_again(open_page):
    page = open_page()
    full = {"status": 413, "content_type": "application/json", "body": '{"detail": "the session is full"}'}
    page.route("**/labels?role=*", lambda route: route.fulfill(**full))
    drag_rectangle(page)
    wait_for_role(page, 0, "not saved")
    expect(page.locator("#about")).to_contain_text("not saved")
    expect(page.locator("#alert")).to_have_text("the session is full")
    page.unroute("**/labels?role=*")
    page.click("#support")
    wait_for_role(page, 0, "example")
    wait_for_role(page, 1, "predicted ·")
    np.testing.assert_array_equal(read_png(download(page)["masks/first.png"]), FIRST_MASK)
