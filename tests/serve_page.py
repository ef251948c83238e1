"""What the page of ``fewseg serve`` does, as calls without a socket; and an app behind a real one."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image


@contextmanager
def serving(app):
    """The address of an app that answers on a port of this machine."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def png(array, mode=None):
    file = io.BytesIO()
    Image.fromarray(array, mode).save(file, format="PNG")
    return file.getvalue()


def read_png(content):
    return np.array(Image.open(io.BytesIO(content)))


def at_once(*works):
    """What several functions return that run at the same time."""
    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(work) for work in works]]


def refusal(answer, status=422):
    """The text of a refused request."""
    assert answer.status_code == status, answer.text
    return answer.json()["detail"]


class Page:
    """What the page does, as calls."""

    def __init__(self, app):
        self.http = TestClient(app, base_url="http://127.0.0.1:8017", raise_server_exceptions=False)
        self.opened = self.http.post("/api/sessions").json()
        self.http.headers["X-Fewseg-Session"] = self.opened["token"]

    def upload(self, content, name="a.png"):
        if isinstance(content, np.ndarray):
            content = png(content)
        return self.http.post("/api/images", params={"name": name}, content=content)

    def image(self, content, name="a.png"):
        answer = self.upload(content, name)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def add_class(self, name):
        return self.http.post("/api/classes", params={"name": name})

    def settle(self, id, mask, role="support", **params):
        content = png(mask) if isinstance(mask, np.ndarray) else mask
        return self.http.put(f"/api/images/{id}/labels", params={"role": role, **params}, content=content)

    def labels(self, id, **params):
        answer = self.http.get(f"/api/images/{id}/labels", params=params)
        assert answer.status_code == 200, answer.text
        return read_png(answer.content)

    def download(self, form, **params):
        return self.http.get(f"/api/download/{form}", params=params)

    def state(self):
        return self.http.get("/api/session").json()
