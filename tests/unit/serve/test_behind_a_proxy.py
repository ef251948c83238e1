"""The page behind a reverse proxy that has a path and a name of its own."""

import re

import pytest
from fastapi.testclient import TestClient

from fewseg.serve.app import create_app
from serve_page import png, read_png
from small_segmenters import model, picture

NAME = "labels.example.org"


class Proxy:
    """What nginx does with ``location /tool/ { proxy_pass http://127.0.0.1:8017/; }``, the Host passed on."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            path = scope["path"]
            assert path.startswith("/tool/"), f"{path} leaves the proxy's path"
            scope = {
                **scope,
                "path": path.removeprefix("/tool"),
                "raw_path": path.removeprefix("/tool").encode(),
            }
        await self.app(scope, receive, send)


@pytest.fixture
def browser():
    app = create_app(model(), hosts=("127.0.0.1", NAME), password="secret")
    with TestClient(Proxy(app), base_url=f"https://{NAME}", raise_server_exceptions=False) as client:
        client.auth = ("anybody", "secret")
        client.headers["Origin"] = f"https://{NAME}"
        yield client


def test_every_file_of_the_page_is_found_below_the_path(browser):
    page = browser.get("/tool/")
    assert page.status_code == 200
    files = re.findall(r"""(?:src|href)="([^"#:]+)\"""", page.text)
    assert files
    for file in files:
        found = browser.get(str(page.url.join(file)))
        assert found.status_code == 200, file
        for inner in re.findall(r"""(?:from|import) ["'](\.[^"']+)["']""", found.text):
            assert browser.get(str(found.url.join(inner))).status_code == 200, inner


def test_annotating_works_below_the_path(browser):
    browser.headers["X-Fewseg-Session"] = browser.post("/tool/api/sessions").json()["token"]
    first, second = (
        browser.post("/tool/api/images", content=png(picture(k)[0])).json()["id"] for k in range(2)
    )
    assert browser.post("/tool/api/classes?name=thing").status_code == 201
    drawn = browser.put(f"/tool/api/images/{first}/labels?role=support", content=png(picture(0)[1]))
    assert drawn.status_code == 200
    assert read_png(browser.get(f"/tool/api/images/{second}/labels").content).shape == (50, 70)
    assert browser.get("/tool/api/download/png").status_code == 200


def test_other_names_sites_and_strangers_are_refused(browser):
    assert browser.post("/tool/api/sessions", headers={"Host": "evil.example"}).status_code == 421
    assert browser.post("/tool/api/sessions", headers={"Origin": "https://evil.example"}).status_code == 403
    assert browser.post("/tool/api/sessions", auth=("anybody", "guess")).status_code == 401
