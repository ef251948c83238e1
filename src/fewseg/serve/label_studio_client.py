"""Reading Label Studio: the export of a project, and images, from one origin and nowhere else."""

from __future__ import annotations

import json
import re
import ssl
import threading
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import unquote

import httpx

from fewseg.serve.limits import MIB, Refused

_PATHS = re.compile(r"/(data|static|storage-data)/|/(tasks|projects)/\d+/(resolve|presign)/")
_EXPORT_BYTES = 512 * MIB
_JSON_BYTES = MIB
_PARTS_OF_A_JWT = 3
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)


@dataclass(frozen=True, kw_only=True)
class Account:
    """Where Label Studio is, and how to be let in.

    Attributes:
        url: of its start page.
        key: an API token: a legacy one, or a personal access token, told apart by its form.
        user: that Label Studio itself must give to this server (HTTP Basic); None for nobody.
        password: of that user.

    Raises:
        ValueError: the URL, the key or one of user and password is missing or malformed.
    """

    url: str
    key: str = field(repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
        except (httpx.InvalidURL, TypeError):
            url = httpx.URL()
        if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
            raise ValueError(
                f"Label Studio's URL is {self.url!r}; accepted is that of its start page, such as "
                "http://localhost:8080"
            )
        if not self.key or not self.key.isascii() or not self.key.isprintable() or " " in self.key:
            raise ValueError(
                "there is no API token of Label Studio: copy one from Account & Settings there, and set "
                "LABEL_STUDIO_API_KEY to it in the environment"
            )
        if bool(self.user) != bool(self.password):
            raise ValueError("of BASIC_AUTH_USER and BASIC_AUTH_PASS one is set; accepted are both, or none")
        if not f"{self.user}{self.password}".isascii() or ":" in (self.user or ""):
            raise ValueError(
                "BASIC_AUTH_USER or BASIC_AUTH_PASS cannot be sent in HTTP; accepted is ASCII, and "
                "no colon in the user"
            )


class StudioClient:
    """Reads a Label Studio server; any number of threads may.

    Redirects are refused, so that nothing leads elsewhere, and bytes are counted as they come.

    Args:
        account: see there.
        image_bytes: of one image.
        transport: in place of the network.
    """

    def __init__(
        self, account: Account, image_bytes: int, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._account, self._image_bytes = account, image_bytes
        self._base = httpx.URL(account.url.rstrip("/") + "/")
        self._http = httpx.Client(
            transport=transport,
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
        """Returns the annotated tasks of a project, with their annotations.

        The export is asked for, as a list of tasks may make Label Studio ask for predictions first.

        Raises:
            Refused: 502, it does not answer, or not with a list.
        """
        url = self._base.join(f"api/projects/{project}/export").copy_merge_params(
            {"exportType": "JSON", "download_all_tasks": "false"}
        )
        found = self._json(self._get(url, _EXPORT_BYTES), f"the export of project {project}")
        if not isinstance(found, list):
            raise Refused(502, f"Label Studio's export of project {project} is no list: look at its log")
        return found

    def image(self, address: str) -> bytes:
        """Returns the bytes of an image.

        Args:
            address: as a task has it: a path on the server, or a URL of it.

        Raises:
            Refused: 422, the address is not of this server, or of no images; 413, it is larger than
                accepted; 502, the server does not give it.
        """
        return self._get(self._image_url(address), self._image_bytes)

    def _image_url(self, address: str) -> httpx.URL:
        base = self._base
        try:
            url = base.join(address)
            if address.startswith("/") and not url.path.startswith(base.path):
                url = base.join(address.lstrip("/"))  # below a path that a proxy adds
        except (httpx.InvalidURL, ValueError):
            url = httpx.URL()
        own = (url.scheme, url.host, url.port, url.userinfo) == (base.scheme, base.host, base.port, b"")
        path = unquote(url.path)
        below = path.startswith(base.path) and _PATHS.match(path[len(base.path) - 1 :])
        if not own or not below or ".." in path or "\\" in path:
            raise Refused(
                422,
                f"the image {address[:200]!r} is not on {base}; accepted are images that Label Studio itself "
                "serves: upload them there, or let it pass on those of a storage (no pre-signed URLs)",
            )
        return url

    def _get(self, url: httpx.URL, limit: int) -> bytes:
        status, content = self._send("GET", url, limit, headers={"Authorization": self._authorization()})
        if status == httpx.codes.UNAUTHORIZED and self._is_jwt:
            with self._renewing:
                self._access = None
            status, content = self._send("GET", url, limit, headers={"Authorization": self._authorization()})
        if status != httpx.codes.OK:
            raise Refused(502, f"Label Studio answers {url.path} with {status}: {_advice(status)}")
        return content

    @property
    def _is_jwt(self) -> bool:
        return len(self._account.key.split(".")) == _PARTS_OF_A_JWT

    def _authorization(self) -> str:
        """The header's value; a personal access token is changed for one that lasts minutes."""
        if not self._is_jwt:
            return f"Token {self._account.key}"
        with self._renewing:
            if self._access is None:
                url = self._base.join("api/token/refresh/")
                status, content = self._send("POST", url, _JSON_BYTES, json={"refresh": self._account.key})
                made = self._json(content, "the answer to a token") if status == httpx.codes.OK else None
                access = made.get("access") if isinstance(made, dict) else None
                if not isinstance(access, str):
                    raise Refused(502, f"Label Studio answers {url.path} with {status}: {_advice(401)}")
                self._access = access
            return f"Bearer {self._access}"

    def _send(self, method: str, url: httpx.URL, limit: int, **words: Any) -> tuple[int, bytes]:
        """Returns the status and, where that is 200, the content, not read further than a limit."""
        parts, length = [], 0
        try:
            with self._http.stream(method, url, **words) as answer:
                if answer.status_code != httpx.codes.OK:
                    return answer.status_code, b""
                for part in answer.iter_raw():
                    length += len(part)
                    if length > limit:
                        raise Refused(
                            413,
                            f"Label Studio's {url.path} is larger than the {limit / MIB:.0f} MiB that are "
                            "accepted: use a smaller one, or raise --upload-mib",
                        )
                    parts.append(part)
        except httpx.HTTPError as error:
            raise Refused(
                502, f"Label Studio at {self._base} does not answer ({error}): is it running there?"
            ) from error
        return httpx.codes.OK, b"".join(parts)

    @staticmethod
    def _json(content: bytes, what: str) -> Any:
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise Refused(502, f"Label Studio's JSON, {what}, cannot be read ({error})") from error


def _advice(status: int) -> str:
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return (
            "the token is not accepted (LABEL_STUDIO_API_KEY); legacy tokens must be allowed by the "
            "organization, personal access tokens must not have expired"
        )
    if httpx.codes.MULTIPLE_CHOICES <= status < httpx.codes.BAD_REQUEST:
        return (
            "redirects are not followed; let Label Studio pass images on (a storage without pre-signed URLs)"
        )
    return "look at its log"
