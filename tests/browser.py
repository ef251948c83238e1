"""A real Chromium for tests of pages; import it after `pytest.importorskip` of Playwright."""

import shutil
from contextlib import contextmanager

import pytest
from playwright import sync_api

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDED = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]
SLOW = 90_000  # ms: the machine may be busy
expect = sync_api.expect
expect.set_options(timeout=SLOW)


@contextmanager
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"], timeout=SLOW
        )
        yield browser
        browser.close()


@contextmanager
def opening(browser, address, own_requests_only=False):
    """A function that opens the page; errors in it, and requests to elsewhere, are an error at the end."""
    contexts, faults = [], []

    def noted(line):
        noted_by_browser = ("status of 4", "net::ERR_")  # a refusal, a lost connection
        if line.type == "error" and not any(text in line.text for text in noted_by_browser):
            faults.append(line.text)

    def requested(request):
        if own_requests_only and request.url != address and not request.url.startswith("data:"):
            faults.append(request.url)

    def start(**device):
        contexts.append(browser.new_context(**device))
        contexts[-1].set_default_timeout(SLOW)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", noted)
        page.on("request", requested)
        page.goto(address)
        return page

    yield start
    for context in contexts:
        context.close()
    assert not faults
