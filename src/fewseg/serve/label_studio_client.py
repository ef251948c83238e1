"""Reading Label Studio: the export of a project, and images, from one origin and nowhere else."""

from __future__ import annotations

import re
import ssl
import threading
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import unquote

import httpx

from fewseg.ops.files import parse_json
from fewseg.serve.limits import MIB, RequestError

_PATHS = re.compile(r"/(data|static|storage-data)/|/(tasks|projects)/\d+/(resolve|presign)/")
_EXPORT_BYTES = 512 * MIB
_JSON_BYTES = MIB
_PARTS_OF_A_JWT = 3
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)


@dataclass(frozen=True, kw_only=True)
class StudioSettings:
    """The Label Studio whose ML backend to be."""

    url: str  # of its start page
    key: str = field(repr=False)  # a legacy API token or a personal access token; their forms differ
    user: str | None = None  # that Label Studio must send (HTTP Basic); None for no authentication
    password: str | None = field(default=None, repr=False)
    shots: int = 10  # how many of the newest annotated tasks of each class are supports
    transport: httpx.BaseTransport | None = None  # in place of the network

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
        except (httpx.InvalidURL, TypeError):
            url = httpx.URL()
        if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
            raise ValueError(
                "Label Studio's URL must be that of its start page, such as http://localhost:8080, got "
                f"{self.url!r}"
            )
        if not self.key or not self.key.isascii() or not self.key.isprintable() or " " in self.key:
            raise ValueError(
                "there is no API token of Label Studio: copy one from Account & Settings there, and set "
                "LABEL_STUDIO_API_KEY to it in the environment"
            )
        if bool(self.user) != bool(self.password):
            raise ValueError("BASIC_AUTH_USER and BASIC_AUTH_PASS must both be set, or neither")
        if not f"{self.user}{self.password}".isascii() or ":" in (self.user or ""):
            raise ValueError(
                "BASIC_AUTH_USER and BASIC_AUTH_PASS must be ASCII, and the user must not contain a colon: "
                "HTTP cannot send them otherwise"
            )
        if self.shots < 1:
            raise ValueError(f"--label-studio-shots must be 1 or more, got {self.shots}")


class StudioClient:
    """Reads a Label Studio server; any number of threads may.

    Redirects are refused, so that nothing leads elsewhere, and bytes are counted as they come.
    """

    def __init__(self, settings: StudioSettings, image_bytes: int) -> None:
        self._key, self._image_bytes = settings.key, image_bytes
        self._base = httpx.URL(settings.url.rstrip("/") + "/")
        self._http = httpx.Client(
            transport=settings.transport,
            timeout=_TIMEOUT,
            follow_redirects=False,
            trust_env=False,  # a netrc or a proxy would see the token
            verify=ssl.create_default_context(),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # a token and no session
            headers={"Accept-Encoding": "identity"},
        )
        self._access: str | None = None
        self._renewing = threading.Lock()

    def tasks(self, project: int) -> list[Any]:
        """The annotated tasks of a project, with their annotations.

        They come from the export, as a list of tasks may make Label Studio request predictions first.
        """
        url = self._base.join(f"api/projects/{project}/export").copy_merge_params(
            {"exportType": "JSON", "download_all_tasks": "false"}
        )
        tasks = self._json(self._get(url, _EXPORT_BYTES), f"the export of project {project}")
        if not isinstance(tasks, list):
            raise RequestError(
                502, f"Label Studio's export of project {project} is not a list: look at its log"
            )
        return tasks

    def image(self, address: str) -> bytes:
        """The bytes of an image, whose address in a task is a path on the server or a URL of it."""
        return self._get(self._image_url(address), self._image_bytes)

    def _image_url(self, address: str) -> httpx.URL:
        base = self._base
        try:
            url = base.join(address)
            if address.startswith("/") and not url.path.startswith(base.path):
                url = base.join(address.lstrip("/"))  # below a path that a proxy adds
        except (httpx.InvalidURL, ValueError):
            url = httpx.URL()
        on_server = (url.scheme, url.host, url.port, url.userinfo) == (base.scheme, base.host, base.port, b"")
        path = unquote(url.path)
        below = path.startswith(base.path) and _PATHS.match(path[len(base.path) - 1 :])
        if not on_server or not below or ".." in path or "\\" in path:
            raise RequestError(
                422,
                f"the image {address[:200]!r} is not on {base}: Label Studio itself must serve images: "
                "upload them there, or let it pass on those of a storage (no pre-signed URLs)",
            )
        return url

    def _get(self, url: httpx.URL, limit: int) -> bytes:
        status, content = self._send("GET", url, limit, headers={"Authorization": self._authorization()})
        if status == httpx.codes.UNAUTHORIZED and self._is_jwt:
            with self._renewing:
                self._access = None
            status, content = self._send("GET", url, limit, headers={"Authorization": self._authorization()})
        if status != httpx.codes.OK:
            raise RequestError(502, f"Label Studio answers {url.path} with {status}: {_advice(status)}")
        return content

    @property
    def _is_jwt(self) -> bool:
        return len(self._key.split(".")) == _PARTS_OF_A_JWT

    def _authorization(self) -> str:
        """The header's value; a personal access token is exchanged for one that lasts minutes."""
        if not self._is_jwt:
            return f"Token {self._key}"
        with self._renewing:
            if self._access is None:
                url = self._base.join("api/token/refresh/")
                status, content = self._send("POST", url, _JSON_BYTES, json={"refresh": self._key})
                made = self._json(content, "the answer to a token") if status == httpx.codes.OK else None
                access = made.get("access") if isinstance(made, dict) else None
                if not isinstance(access, str):
                    raise RequestError(502, f"Label Studio answers {url.path} with {status}: {_advice(401)}")
                self._access = access
            return f"Bearer {self._access}"

    def _send(self, method: str, url: httpx.URL, limit: int, **options: Any) -> tuple[int, bytes]:
        """The status and, where that is 200, the content, of at most ``limit`` bytes."""
        parts, length = [], 0
        try:
            with self._http.stream(method, url, **options) as answer:
                if answer.status_code != httpx.codes.OK:
                    return answer.status_code, b""
                for part in answer.iter_raw():
                    length += len(part)
                    if length > limit:
                        raise RequestError(
                            413,
                            f"Label Studio's {url.path} is larger than the limit, {limit / MIB:.0f} MiB: use "
                            "a smaller one, or raise --upload-mib",
                        )
                    parts.append(part)
        except httpx.HTTPError as error:
            raise RequestError(
                502, f"Label Studio at {self._base} does not answer ({error}): is it running there?"
            ) from error
        return httpx.codes.OK, b"".join(parts)

    @staticmethod
    def _json(content: bytes, what: str) -> Any:
        try:
            return parse_json(content)
        except ValueError as error:
            raise RequestError(502, f"Label Studio's JSON, {what}, cannot be read ({error})") from error


def _advice(status: int) -> str:
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return (
            "the token is invalid (LABEL_STUDIO_API_KEY); legacy tokens must be allowed by the "
            "organization, personal access tokens must not have expired"
        )
    if httpx.codes.MULTIPLE_CHOICES <= status < httpx.codes.BAD_REQUEST:
        return (
            "redirects are not followed; let Label Studio pass images on (a storage without pre-signed URLs)"
        )
    return "look at its log"
