"""A real Chromium for tests of pages; import it after Playwright was asked for."""

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
