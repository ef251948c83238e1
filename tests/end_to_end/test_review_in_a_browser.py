"""The page's loop in a real Chromium: images in, an example, review, undo, and all that is saved."""

import io
import json
import time
import zipfile

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from browser import NEEDED, expect, opening
from fewseg.serve.app import create_app
from fewseg.serve.limits import Limits
from serve_page import png, read_png, serving
from small_segmenters import model, picture

pytestmark = NEEDED

COUNT = 5
PICTURES = [picture(k, hw=(90, 120), box=(20 + 2 * k, 60, 30, 80)) for k in range(COUNT)]
DROP = """files => {
  const data = new DataTransfer();
  for (const [name, bytes] of files) data.items.add(new File([new Uint8Array(bytes)], name));
  dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def address():
    with serving(create_app(model(), Limits(sessions=99))) as address:
        yield f"{address}/"


@pytest.fixture
def start(browser, address):
    with opening(browser, address) as start:

        def ready(width=1280, height=800, **device):
            page = start(viewport={"width": width, "height": height}, **device)
            page.wait_for_selector("body[data-ready]")
            return page

        yield ready


def drop(page, **files):
    page.evaluate(DROP, [[name.replace("_", "."), list(content)] for name, content in files.items()])


def choose(page, field, content):
    page.set_input_files(field, {"name": "file.zip", "mimeType": "application/zip", "buffer": content})


def roles(page):
    return [text.removeprefix("✓ ") for text in page.locator("#strip .role").all_inner_texts()]


def wait_for_role(page, place, text):
    expect(page.locator("#strip .role").nth(place)).to_contain_text(text)


def mark(page, hw=(90, 120), box=(20, 60, 30, 80)):
    """Draws a rectangle."""
    area = page.locator("#canvas").bounding_box()
    zoom = min((area["width"] - 16) / hw[1], (area["height"] - 16) / hw[0])
    left = area["x"] + (area["width"] - hw[1] * zoom) / 2
    top = area["y"] + (area["height"] - hw[0] * zoom) / 2
    page.check("#tool input[value=rectangle]", force=True)
    page.mouse.move(left + (box[2] + 0.5) * zoom, top + (box[0] + 0.5) * zoom)
    page.mouse.down()
    page.mouse.move(left + (box[3] - 0.5) * zoom, top + (box[1] - 0.5) * zoom)
    page.mouse.up()


def with_example(page, count=COUNT):
    """Drops pictures and marks the first one."""
    drop(page, **{f"p{k}_png": png(PICTURES[k][0]) for k in range(count)})
    expect(page.locator("#hint")).to_have_text(f"{count} added")
    mark(page)
    wait_for_role(page, 0, "example")
    for k in range(1, count):
        wait_for_role(page, k, "predicted ·")
    return page


def saved(page, act):
    with page.expect_download() as waited:
        act()
    with open(waited.value.path(), "rb") as file:
        return waited.value.suggested_filename, file.read()


def masks(page, everything=False):
    page.click("#save summary")
    page.select_option("#format", "png")
    page.set_checked("#everything", everything)
    with zipfile.ZipFile(io.BytesIO(saved(page, lambda: page.click("#download button"))[1])) as file:
        return {name: file.read(name) for name in file.namelist() if name.endswith(".png")}


def test_the_whole_loop_by_the_keyboard_and_how_long_it_takes(start, record_property):
    page = start()
    times = {}
    since = time.perf_counter()

    def took(what):
        nonlocal since
        times[what] = time.perf_counter() - since
        since = time.perf_counter()

    drop(page, **{f"p{k}_png": png(PICTURES[k][0]) for k in range(COUNT)})
    expect(page.locator("#hint")).to_have_text(f"{COUNT} added")
    expect(page.locator("#guide")).to_contain_text("Mark the thing on one image")
    assert roles(page) == ["untouched"] * COUNT
    took("images in")
    mark(page)
    wait_for_role(page, 0, "example")
    expect(page.locator("#guide")).to_contain_text("4 images are predicted")
    took("example")
    for k in range(1, COUNT):
        wait_for_role(page, k, "predicted ·")
    took("predicted and judged")
    page.keyboard.press("n")
    for k in range(1, COUNT):
        expect(page.locator("#about")).to_contain_text(f"p{k}.png, 120 × 90: predicted, quality")
        page.keyboard.press("a")  # and on to the next one
    expect(page.locator("#reviewed-is")).to_have_text("5 of 5 reviewed")
    expect(page.locator("#guide")).to_contain_text("All images are reviewed")
    took("reviewed")
    assert set(masks(page)) == {f"masks/p{k}.png" for k in range(COUNT)}
    took("downloaded")
    record_property("seconds", json.dumps({name: round(value, 2) for name, value in times.items()}))
    assert sum(times.values()) < 120


def test_an_edit_asks_and_becomes_an_example_when_one_goes_on(start):
    page = with_example(start())
    page.click("#strip button:nth-child(2)")
    expect(page.locator("#about")).to_contain_text("quality")  # it is shown
    mark(page, box=(2, 12, 2, 12))
    wait_for_role(page, 1, "edited")
    expect(page.locator("#asking")).to_be_visible()
    page.click("#ask-no")
    wait_for_role(page, 1, "accepted")
    expect(page.locator("#strip button:nth-child(3)")).to_have_attribute("aria-current", "true")
    mark(page, box=(2, 12, 2, 12))
    wait_for_role(page, 2, "edited")
    page.keyboard.press("n")
    wait_for_role(page, 2, "example")
    expect(page.locator("#curve-is")).to_contain_text("With 2 examples: object")
    assert set(masks(page)) == {f"masks/p{k}.png" for k in range(3)}  # what nobody has checked is left out
    assert len(masks(page, everything=True)) == COUNT


def test_whatever_was_done_is_undone_on_any_image(start):
    page = with_example(start(), 3)
    page.click("#strip button:nth-child(2)")
    expect(page.locator("#about")).to_contain_text("quality")
    mark(page, box=(2, 12, 2, 12))
    wait_for_role(page, 1, "edited")
    mark(page, box=(70, 80, 2, 12))
    page.keyboard.press("a")
    wait_for_role(page, 1, "accepted")
    page.click("#strip button:nth-child(1)")
    expect(page.locator("#about")).to_contain_text("example")
    page.click("#remove")
    page.click("#sure-act")
    expect(page.locator("#strip button")).to_have_count(2)
    assert roles(page)[1] == "untouched"
    states = [["example", "accepted"], ["example", "edited"], ["example", "predicted"], ["untouched"] * 2]
    for wanted in states:
        page.keyboard.press("Control+z")
        for k, text in enumerate(wanted):
            wait_for_role(page, k, text)
    expect(page.locator("#undo")).to_be_disabled()
    for wanted in states[-2::-1]:
        page.click("#redo")
        for k, text in enumerate(wanted):
            wait_for_role(page, k, text)


def test_a_session_is_saved_and_opened_again(start):
    page = with_example(start(), 3)
    page.click("#strip button:nth-child(2)")
    expect(page.locator("#about")).to_contain_text("quality")
    page.keyboard.press("a")
    wait_for_role(page, 1, "accepted")
    before = masks(page)
    page.click("#menu summary")
    _, content = saved(page, lambda: page.click("#save-session"))
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert file.testzip() is None
        assert file.read("images/p0.png") == png(PICTURES[0][0])
    other = start()
    drop(other, **{"more_png": png(PICTURES[4][0])})
    expect(other.locator("#hint")).to_have_text("1 added")
    choose(other, "#session", content)
    other.click("#sure-act")
    expect(other.locator("#hint")).to_have_text("3 images opened")
    for k, text in enumerate(["example", "accepted", "predicted ·"]):
        wait_for_role(other, k, text)
    assert masks(other) == before
    choose(other, "#session", content[:-9])
    other.click("#sure-act")
    expect(other.locator("#alert")).to_contain_text("is not a complete session")


def test_the_grid_filters_sorts_and_is_reviewed_by_keys(start):
    page = with_example(start())
    page.click("#strip button:nth-child(2)")
    page.keyboard.press("l")
    page.select_option("#order", "low")
    shown = page.locator("#strip button:not([hidden])")
    expect(shown.nth(COUNT - 1)).to_contain_text("p0.png")  # it has no quality
    page.select_option("#by-state", "predicted")
    expect(shown).to_have_count(COUNT - 1)
    first, second = (shown.nth(k).get_attribute("title") for k in range(2))
    shown.nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("a")
    expect(shown).to_have_count(COUNT - 2)
    assert second not in shown.all_inner_texts()
    shown.nth(0).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#canvas")).to_be_visible()
    expect(page.locator("#about")).to_contain_text(first)
    page.select_option("#by-state", "accepted")
    expect(shown).to_have_count(1)
    page.select_option("#by-state", "")
    page.select_option("#by-verdict", "good")
    for text in shown.all_inner_texts():
        assert "good" in text


def test_masks_are_imported_as_examples(start):
    page = start()
    drop(page, **{f"p{k}_png": png(PICTURES[k][0]) for k in range(2)})
    expect(page.locator("#hint")).to_have_text("2 added")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("masks/p0.png", png(PICTURES[0][1]))
        file.writestr("masks/classes.txt", "background\nleaf\n")
    choose(page, "#masks", content.getvalue())
    page.click("#sure-act")
    wait_for_role(page, 0, "example")
    wait_for_role(page, 1, "predicted ·")
    expect(page.locator("#classes input[type=text]")).to_have_value("leaf")
    np.testing.assert_array_equal(read_png(masks(page)["masks/p0.png"]), PICTURES[0][1])


def test_a_class_has_a_colour_that_stands_out_and_can_be_changed_and_masks_can_be_outlines(start):
    page = start()
    sky = np.zeros((90, 120, 3), np.uint8) + np.array([86, 180, 233], np.uint8)  # as the first colour
    drop(page, sky_png=png(sky))
    expect(page.locator("#hint")).to_have_text("1 added")
    mark(page)
    wait_for_role(page, 0, "example")
    expect(page.locator("#hint")).to_contain_text("to stand out from the image")
    colour = page.locator("#classes input[type=color]")
    assert colour.input_value() != "#56b4e9"
    colour.fill("#ff0000")
    page.evaluate("document.querySelector('#opacity').value = 100")
    page.dispatch_event("#opacity", "input")
    box = page.locator("#canvas").bounding_box()

    def middle():
        page.wait_for_timeout(200)
        shot = read_png(page.screenshot())
        return shot[int(box["y"] + box["height"] / 2) - 9, int(box["x"] + box["width"] / 2), :3].tolist()

    assert middle() == [255, 0, 0]
    page.focus("#canvas")
    page.keyboard.press("h")
    assert middle() == [86, 180, 233]
    page.keyboard.press("h")
    page.keyboard.press("h")
    assert middle() == [255, 0, 0]


def test_examples_are_handed_to_the_command_line(start):
    page = with_example(start(), 2)
    page.click("#menu summary")
    name, content = saved(page, lambda: page.click("#hand-over"))
    assert (name, content[8:40].startswith(b'{"__metadata__"')) == ("examples.safetensors", True)
    command = "fewseg label --support examples.safetensors --images photos --out labels"
    expect(page.locator("#command-is")).to_have_text(command)


def again(page):
    """Another tab with the page's address, in the same browser."""
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("body[data-ready]")
    return other


def test_a_session_is_found_again_after_its_tab_was_closed_until_a_new_one_is_begun(start):
    page = start()
    drop(page, p_png=png(PICTURES[0][0]))
    expect(page.locator("#hint")).to_have_text("1 added")
    other = page.context.new_page()
    page.close()
    other.goto(page.url)  # and after another server had this address
    key, tokens = "fewseg tokens", other.evaluate("JSON.parse(localStorage['fewseg tokens'])")
    other.evaluate("([key, all]) => localStorage.setItem(key, all)", [key, json.dumps(["x", *tokens])])
    other = again(other)
    expect(other.locator("#strip button")).to_have_count(1)
    expect(other.locator("#model")).not_to_be_empty()
    other.click("#menu summary")
    other.click("#new-session")
    other.click("#sure-act")
    expect(other.locator("#strip button")).to_have_count(0)
    assert other.locator("#classes input[type=text]").input_value() == "object"
    expect(again(other).locator("#strip button")).to_have_count(0)


def test_a_second_tab_of_a_session_shows_what_the_first_has_done(start):
    page = with_example(start(), 2)
    other = again(page)
    wait_for_role(other, 0, "example")
    page.click("#strip button:nth-child(2)")
    expect(page.locator("#about")).to_contain_text("quality")
    page.keyboard.press("a")
    wait_for_role(page, 1, "accepted")
    other.dispatch_event("body", "visibilitychange", {"bubbles": True})
    wait_for_role(other, 1, "accepted")


@pytest.mark.parametrize(
    ("width", "height", "schemes"),
    [(1280, 800, ["light"]), (820, 1100, ["dark"]), (390, 844, ["light", "dark"])],
)
def test_axe_finds_no_violation(start, width, height, schemes):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = start(width, height)

    def check(what):
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)
            found = axe.run(page).response["violations"]
            bad = [(v["id"], [node["html"] for node in v["nodes"]][:3]) for v in found]
            assert not found, (what, scheme, bad)

    check("empty")
    with_example(page, 3)
    page.click("#strip button:nth-child(2)")
    expect(page.locator("#about")).to_contain_text("quality")
    check("an image")
    mark(page, box=(2, 12, 2, 12))
    expect(page.locator("#asking")).to_be_visible()
    for menu in ("save", "menu"):
        page.click(f"#{menu} summary")
        check(menu)
    page.click("#help")
    check("keys")
    page.keyboard.press("Escape")
    page.keyboard.press("l")
    check("grid")
