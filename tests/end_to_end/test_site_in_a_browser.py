"""The page of ``fewseg report site`` in a real Chromium: from disk, by keyboard, on a phone, printed."""

import csv

import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

from browser import NEEDED, expect, opening
from fewseg.reports.frame import load_results
from fewseg.reports.options import SiteOptions
from fewseg.reports.site.build import write_site
from result_files import make_counts, make_result

pytestmark = NEEDED


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "results"
    for fold in range(4):
        for name, better in (("pfenet", 0.0), ("scl-pfenet", 0.03)):
            counts = make_counts(fold, better)
            made = make_result(counts, fold, method=name, recipe=f"voc5i_mini_{name}")
            made.save(folder / f"{name}-{fold}.json", counts)
    return folder


@pytest.fixture(scope="module")
def address(results):
    return write_site(SiteOptions(folder=results, out=results.parent / "site.html", quiet=True)).path.as_uri()


@pytest.fixture
def open_page(browser, address):
    with opening(browser, address, own_requests_only=True) as start:
        yield start


def ground(page):
    """Lightness of the page's ground, 0 to 255."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in colour.strip("rgb()").split(",")) / 3


def test_the_colours_follow_the_system_and_the_switch(open_page):
    page = open_page(color_scheme="dark")
    assert ground(page) < 60
    page.check("#theme-light")
    assert ground(page) > 200
    page.reload()
    expect(page.locator("#theme-light")).to_be_checked()
    assert ground(page) > 200


def test_the_switch_works_without_a_script(open_page):
    page = open_page(color_scheme="light", java_script_enabled=False)
    assert ground(page) > 200
    expect(page.locator("table").first).to_be_visible()
    assert page.locator(".sort").count() == 0, "no button that does nothing"
    page.check("#theme-dark")
    assert ground(page) < 60


def test_a_heat_map_is_sorted_by_the_keyboard_alone(open_page):
    page = open_page(viewport={"width": 1280, "height": 900})
    table = page.locator(".heatmap table").first
    button = table.locator("thead .sort").nth(1)
    button.focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"

    def column():
        return [float(t) for t in table.locator("tbody tr td:nth-child(2)").all_inner_texts()]

    shown = column()
    page.keyboard.press("Enter")
    expect(table.locator("thead th").nth(1)).to_have_attribute("aria-sort", "descending")
    assert column() == sorted(shown, reverse=True)
    page.keyboard.press("Enter")
    expect(table.locator("thead th").nth(1)).to_have_attribute("aria-sort", "ascending")
    assert column() == sorted(shown)
    assert len(set(shown)) > 1


def test_the_first_tab_leads_past_the_head(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#voc5i-mini-1-shot h2")).to_be_in_viewport()


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_shows_all_without_scrolling_sideways(open_page, width):
    page = open_page(viewport={"width": width, "height": 844}, has_touch=True, is_mobile=True)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    wide = page.locator(".scroll").first
    assert wide.evaluate("(box) => box.scrollWidth > box.clientWidth"), "wide tables scroll in their own box"


def test_a_phone_shows_our_means_and_a_desk_the_folds_too(open_page):
    for width, details in ((390, 0), (1280, 10)):
        page = open_page(viewport={"width": width, "height": 844})
        table = page.locator("#scl-table-1 table").first
        shown = "(row) => [...row.cells].filter((cell) => cell.checkVisibility()).map((cell) => cell.colSpan)"
        spans = table.locator("thead tr").first.evaluate(shown)
        columns = table.locator("thead tr").nth(1).evaluate(shown)
        assert sum(spans) == len(columns) == 5 + details, "a heading spans the columns below it"


def test_a_desk_shows_all_scores_without_scrolling(open_page):
    page = open_page(viewport={"width": 1280, "height": 900})
    for box in page.locator(".scores .scroll, #scl-table-1 .scroll").all():
        assert box.evaluate("(box) => box.scrollWidth <= box.clientWidth")


def test_the_data_behind_a_plot_is_saved_from_the_page_itself(open_page, results):
    page = open_page(accept_downloads=True)
    with page.expect_download() as waited:
        page.click("a[download='voc5i-mini-1-shot-scores.csv']")
    assert waited.value.suggested_filename == "voc5i-mini-1-shot-scores.csv"
    with open(waited.value.path(), encoding="utf-8", newline="") as file:
        saved = {(row["method"], int(row["fold"])): float(row["miou"]) for row in csv.DictReader(file)}
    assert saved == {(r.method, r.fold): r.miou_mean for r in load_results(results).runs.values()}


def test_print_is_light_and_whole(open_page):
    page = open_page(color_scheme="dark")
    page.check("#theme-dark")
    page.emulate_media(media="print")
    assert ground(page) > 200
    expect(page.locator("nav").first).to_be_hidden()
    expect(page.locator("table").first).to_be_visible()
