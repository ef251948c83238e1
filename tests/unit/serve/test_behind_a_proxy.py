"""The page and Label Studio's addresses behind a reverse proxy with TLS, a path and a name of its own."""

import asyncio
import re
import ssl
import threading
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fewseg.serve.app import create_app
from fewseg.serve.label_studio_client import StudioSettings
from serve_page import png, read_png, serving
from small_segmenters import model, picture
from studio_stand_in import CONFIG, KEY, URL, StandIn, brush

NAME = "labels.example.org"


def certificate(path):
    """Writes a key and a certificate that it has signed itself, for this machine."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(pem, *plain) + signed.public_bytes(pem))


class Proxy:
    """nginx with ``location /tool/ { proxy_pass http://127.0.0.1:8017/; }``, the Host passed on: one request
    a connection."""

    def __init__(self, certificate, port):
        self.port, self.context = port, ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(certificate)

    async def pass_on(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, rest = head.split(b" ", 2)
        assert path.startswith(b"/tool/"), f"{path} leaves the proxy's path"
        head = b" ".join([method, path.removeprefix(b"/tool"), rest])
        head = re.sub(rb"\r\nconnection:[^\r]*", b"\r\nConnection: close", head, flags=re.IGNORECASE)
        answer, request = await asyncio.open_connection("127.0.0.1", self.port)
        request.write(head)

        async def copy():
            while part := await reader.read(2**16):
                request.write(part)

        body = asyncio.create_task(copy())
        while part := await answer.read(2**16):
            writer.write(part)
        body.cancel()
        request.close()
        await writer.drain()
        writer.close()

    async def run(self, started):
        server = await asyncio.start_server(self.pass_on, "127.0.0.1", 0, ssl=self.context)
        self.loop, self.end = asyncio.get_running_loop(), asyncio.Event()
        self.address = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        started.set()
        async with server:
            await self.end.wait()

    def __enter__(self):
        started = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.run(started)))
        self.thread.start()
        started.wait(30)
        return self.address

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.end.set)
        self.thread.join(30)


@pytest.fixture(scope="module")
def studio():
    server = StandIn()
    server.task(1, picture(0)[0], [brush(picture(0)[1])])
    return server


@pytest.fixture(scope="module")
def reached(studio, tmp_path_factory):
    """The proxy's address, and what a client needs to trust it."""
    settings = StudioSettings(
        url=URL, key=KEY, user="me", password="own", transport=httpx.MockTransport(studio)
    )
    names = ("127.0.0.1", NAME)
    app = create_app(model(), hosts=names, password="secret", label_studio=settings)
    file = tmp_path_factory.mktemp("tls") / "proxy.pem"
    certificate(file)
    with (
        serving(app) as address,
        Proxy(file, int(address.rpartition(":")[2])) as proxy,
    ):
        yield proxy, ssl.create_default_context(cafile=file)


@pytest.fixture
def browser(reached):
    address, trust = reached
    headers = {"Host": NAME, "Origin": f"https://{NAME}"}
    with httpx.Client(
        base_url=address, verify=trust, auth=("anybody", "secret"), headers=headers, timeout=60
    ) as client:
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


def test_label_studio_finds_its_addresses_below_the_path(browser, studio):
    """It sends no Origin, and its own password."""
    del browser.headers["Origin"]
    body = {"project": "1.1700000000", "schema": CONFIG}
    assert browser.post("/tool/setup", json=body).status_code == 401
    browser.auth = ("me", "own")
    assert browser.get("/tool/health").json()["status"] == "UP"
    assert browser.post("/tool/setup", json=body).json()["model_version"].startswith("fewseg-")
    asked = {**body, "tasks": studio.task(2, picture(1)[0]), "label_config": CONFIG}
    assert browser.post("/tool/predict", json=asked).json()["results"][0]["result"]
    event = {"action": "ANNOTATION_CREATED", "project": {"id": 1}}
    assert browser.post("/tool/webhook", json=event, auth=None).json() == {"stale": True}


def test_other_names_sites_and_strangers_are_refused(browser):
    assert browser.post("/tool/api/sessions", headers={"Host": "evil.example"}).status_code == 421
    assert browser.post("/tool/api/sessions", headers={"Origin": "https://evil.example"}).status_code == 403
    assert browser.post("/tool/api/sessions", auth=("anybody", "guess")).status_code == 401


def test_the_host_that_a_proxy_passes_on_has_its_port(browser):
    own = {"Origin": f"https://{NAME}:8443"}
    assert browser.post("/tool/api/sessions", headers={"Host": f"{NAME}:8443", **own}).status_code == 201
    assert (
        browser.post("/tool/api/sessions", headers={"Host": NAME, **own}).status_code == 403
    )  # nginx's $host


def test_a_client_that_does_not_trust_the_certificate_sends_nothing(reached):
    with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
        httpx.get(f"{reached[0]}/tool/")
