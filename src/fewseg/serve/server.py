"""``fewseg serve``: its options, and the start of the server, which imports the extra ``serve``."""

from __future__ import annotations

import os
import shlex
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fewseg.inference.options import QUICK_MODEL, ModelOptions
from fewseg.ops.files import check_writable, folder_alone, remove_left
from fewseg.serve.kept import KeptPages
from fewseg.serve.limits import MIB, Limits

if TYPE_CHECKING:
    from fewseg.serve.label_studio_client import StudioSettings

_NEEDED = ("fastapi", "uvicorn", "httpx")
_LAST_PORT = 65535  # some systems accept larger numbers and listen on the remainder
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Serves a page where images are annotated and the others predicted, until it is stopped (Ctrl-C)."""

    # the address to listen on. Any other than this machine's own needs a password, which the browser asks for
    # (any user name), in the environment variable FEWSEG_PASSWORD. It is readable on the way without TLS.
    host: str = "127.0.0.1"
    port: int = 8017  # to listen on; 0 for any free one.
    # names by which the server is reached: those that a reverse proxy on this machine passes on, such as
    # labels.example.org, or with --host those that others know this machine by, beside its own and IP
    # addresses. The server then needs a password.
    behind: tuple[str, ...] = ()
    auth: bool = True  # ask for a password on any address but this machine's own; --no-auth never does.
    max_pixels: int = 40_000_000  # larger images are refused.
    upload_mib: int = 64  # larger files are refused.
    session_mib: int = 2048  # memory that one open page may use.
    sessions: int = 8  # pages that may be open at the same time.
    idle_minutes: int = 60  # a page not used for this long while a server runs loses its images and masks.
    # a folder of its own, which keeps the open pages, images and masks, until they are closed or time out: a
    # page goes on where it was when the server is started again. By default they are lost with the server.
    keep: Path | None = None
    # URL of a Label Studio to be the ML backend of as well. Its API token is read from the environment
    # variable LABEL_STUDIO_API_KEY; where BASIC_AUTH_USER and BASIC_AUTH_PASS are set, Label Studio must send
    # them. They are needed wherever the page needs a password.
    label_studio: str | None = None
    label_studio_shots: int = 10  # how many of the newest annotated tasks of each class are supports.
    # which model is used, and how. auto chooses again where a class is added or the examples have doubled,
    # which may take a minute or more on two CPU cores.
    model: ModelOptions = field(default_factory=lambda: ModelOptions(model=QUICK_MODEL))


def serve(options: ServeOptions, announce: Callable[[str], None]) -> None:
    """Serves the page until it is stopped; ``announce`` gets the address to open once the port is open."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"fewseg serve needs {' and '.join(missing)}, an optional part: install it with "
            "`pip install 'fewseg[serve]'` (`uv sync --extra serve` in the project's folder)"
        )
    import uvicorn

    from fewseg.inference.model import load_model
    from fewseg.serve.app import create_app
    from fewseg.serve.connections import Connection

    limits = Limits(
        upload_bytes=options.upload_mib * MIB,
        pixels=options.max_pixels,
        session_bytes=options.session_mib * MIB,
        sessions=options.sessions,
        idle_seconds=options.idle_minutes * 60.0,
    )
    studio, password = _studio(options), _password(options)
    remove_left(Path(tempfile.gettempdir()))
    # before the model is loaded: errors come at once
    with _listen(options.host, options.port) as listener, _kept(options.keep):
        model = load_model(options.model)
        app = create_app(
            model,
            limits,
            hosts=_hosts(options),
            label_studio=studio,
            password=password,
            label_options=label_options(options.model),
            keep=options.keep,
        )
        announce(_welcome(options, listener.getsockname()[1]))
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            # a browser opens six connections; what they may send has a budget of bytes
            limit_concurrency=6 * options.sessions + 16,
            http=Connection,
        )
        uvicorn.Server(config).run(sockets=[listener])


def label_options(options: ModelOptions) -> str:
    """What is to be added to ``fewseg label`` so that it uses the same model; empty where nothing is."""
    words, usual = [""], ModelOptions()
    for each in fields(options):
        value = getattr(options, each.name)
        if value != getattr(usual, each.name):
            words.append(f"--{each.name.replace('_', '-')} {shlex.quote(str(value))}")
    return " ".join(words)


def _hosts(options: ServeOptions) -> tuple[str, ...]:
    """The names by which a request may call the server."""
    own = () if options.host in _LOOPBACK else (options.host, socket.gethostname())
    return tuple(dict.fromkeys(map(str.lower, (*_LOOPBACK, *own, *options.behind))))


def _studio(options: ServeOptions) -> StudioSettings | None:
    from fewseg.serve.label_studio_client import StudioSettings

    if options.label_studio is None:
        return None
    settings = StudioSettings(
        url=options.label_studio,
        key=os.environ.get("LABEL_STUDIO_API_KEY", ""),
        user=os.environ.get("BASIC_AUTH_USER"),
        password=os.environ.get("BASIC_AUTH_PASS"),
        shots=options.label_studio_shots,
    )
    if not settings.user and options.auth and _exposed(options):
        raise ValueError(
            f"{_exposed(options)} can be reached by others, and Label Studio's addresses with it: set "
            "BASIC_AUTH_USER and BASIC_AUTH_PASS in the environment, here and in Label Studio, or give "
            "--no-auth to let everybody in"
        )
    return settings


def _exposed(options: ServeOptions) -> str:
    """The option by which others reach the server; empty where none does."""
    if options.behind:
        return f"--behind {' '.join(options.behind)}"
    return "" if options.host in _LOOPBACK else f"--host {options.host}"


def _password(options: ServeOptions) -> str:
    """Of the environment; an address that others reach needs one."""
    password = os.environ.get("FEWSEG_PASSWORD", "") if options.auth else ""
    if not password and options.auth and _exposed(options):
        raise ValueError(
            f"{_exposed(options)} can be reached by others: set a password in the environment variable "
            "FEWSEG_PASSWORD, or give --no-auth to let everybody in"
        )
    return password


@contextmanager
def _kept(folder: Path | None) -> Iterator[None]:
    """The folder of pages, for this server alone."""
    if folder is None:
        yield
        return
    check_writable(folder / "page.json")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with folder_alone(folder) as alone:
        if not alone:
            raise ValueError(f"another server keeps its pages in {folder} now: give a different --keep")
        KeptPages(folder).check()
        yield


def _welcome(options: ServeOptions, port: int) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    lines = [f"open http://{host}:{port}/ (stop with Ctrl-C)"]
    if options.label_studio is not None:
        lines.append(f"ML backend of {options.label_studio}: connect this address in a project's settings")
    if _exposed(options) and not options.auth:
        lines.append("everybody who reaches this address can use the page: there is no password")
    return "\n".join(lines)


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= _LAST_PORT:
        raise ValueError(f"--port must be 0 (any free port) to {_LAST_PORT}, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(64)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host} port {port} ({error}): choose a different port with --port, 0 for any "
            "free one"
        ) from error
    return listener
