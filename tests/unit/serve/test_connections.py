"""Clients that do not finish what they began, on real sockets."""

import io
import socket
import time
from contextlib import suppress

import httpx
import pytest
import uvicorn
from PIL import Image

from fewseg.serve import connections
from fewseg.serve.app import create_app
from fewseg.serve.limits import Limits
from serve_page import serving
from small_segmenters import model


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    config = uvicorn.Config
    options = {"http": connections.Connection, "limit_concurrency": 8}
    monkeypatch.setattr(uvicorn, "Config", lambda app, **own: config(app, **own, **options))
    with serving(create_app(model(), Limits(stall_seconds=1))) as url:
        yield url


def opened(url):
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    connection.settimeout(10)
    return connection


def test_half_requests_lock_nobody_out(address):
    half, one_more = [opened(address) for _ in range(8)], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    for connection in half:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127")
    connection = opened(address)  # httpx is too slow: the others have half a second
    connection.sendall(one_more)
    assert connection.recv(100).startswith(b"HTTP/1.1 503")
    for connection in half:
        assert connection.recv(100) == b""  # closed by the server
    assert httpx.get(address).status_code == 200


def test_a_second_request_on_a_connection_has_a_time_limit_too(address):
    connection = opened(address)
    connection.sendall(b"GET /api/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.recv(10_000).startswith(b"HTTP/1.1 404")
    connection.sendall(b"GET / HT")
    begin = time.monotonic()
    while connection.recv(10_000):
        pass
    assert time.monotonic() - begin < 4  # less than the pause between requests


def test_a_body_that_stops_is_given_up_and_one_that_comes_slowly_is_read(address):
    token = httpx.post(f"{address}/api/sessions").json()["token"]
    head = f"POST /api/images HTTP/1.1\r\nHost: x\r\nX-Fewseg-Session: {token}\r\nContent-Length: 10\r\n\r\n"
    connection = opened(address)
    connection.sendall(head.encode() + b"12345")
    assert connection.recv(10_000).startswith(b"HTTP/1.1 408")
    connection = opened(address)
    for part in (head.encode(), b"12345", b"67890"):
        connection.sendall(part)
        time.sleep(0.2)
    assert connection.recv(10_000).startswith(b"HTTP/1.1 422")  # read, and no image


def test_an_upload_that_breaks_off_is_no_error_of_the_server(address, caplog):
    token = httpx.post(f"{address}/api/sessions").json()["token"]
    connection = opened(address)
    head = f"POST /api/images?name=a.png HTTP/1.1\r\nHost: x\r\nX-Fewseg-Session: {token}\r\n"
    connection.sendall(head.encode() + b"Content-Length: 100000\r\n\r\n" + bytes(5000))
    time.sleep(0.2)
    connection.close()
    time.sleep(0.5)
    assert httpx.get(address).status_code == 200
    assert "Traceback" not in caplog.text
    assert "ClientDisconnect" not in caplog.text


LARGE = 3000  # pixels of a side: its file is larger than what sockets hold


@pytest.fixture
def download(address, monkeypatch):
    """A connection with a small buffer on which a large file is requested, and the file."""
    monkeypatch.setattr(connections, "READ_SECONDS", 1.0)
    token = httpx.post(f"{address}/api/sessions").json()["token"]
    file = io.BytesIO()
    Image.new("RGB", (LARGE, LARGE)).save(file, "BMP")
    sent = httpx.post(
        f"{address}/api/images", content=file.getvalue(), headers={"X-Fewseg-Session": token}, timeout=60
    )
    path = f"/api/images/{sent.json()['id']}/file"
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    host, port = address.removeprefix("http://").split(":")
    connection.connect((host, int(port)))
    connection.settimeout(30)
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Fewseg-Session: {token}\r\n\r\n"
    connection.sendall(head.encode())
    yield connection, file.getvalue()
    connection.close()


def test_a_client_that_stops_to_read_its_download_is_given_up(download):
    connection, file = download
    read = len(connection.recv(1000))
    time.sleep(4)
    with suppress(ConnectionResetError):
        while part := connection.recv(2**20):
            read += len(part)
    assert read < len(file)


def test_a_client_that_reads_slowly_gets_all(download):
    connection, file = download
    answer = b""
    while part := connection.recv(2**20):
        answer += part
        time.sleep(0.003)
    assert answer.endswith(file)
