"""``fewseg serve``."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from rich.console import Console

if TYPE_CHECKING:
    from fewseg.inference.model import Model
    from fewseg.serve.label_studio import StudioOptions
    from fewseg.serve.limits import Limits

_NEEDED = ("fastapi", "uvicorn", "httpx", "defusedxml")
_LAST_PORT = 65535  # some systems take more and listen on the rest of the division
_OWN = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class ServeCommand:
    """Serves a page where images are annotated and the others predicted, until it is stopped (Ctrl-C).

    Attributes:
        model: a checkpoint (.safetensors) or a recipe without training.
        host: the address to listen on. Any other than this machine's own lets everybody in the network use
            the page: there is no password.
        port: to listen on; 0 for any that is free.
        backbone: for a recipe without training: another timm network.
        backbone_weights: path of the frozen trunk's weights.
        size: side of the network's input in pixels; the recipe's or the training's by default.
        fusion: how K supports become one answer; the method's own by default.
        precision: bf16 is up to twice as fast on CPUs that have it, with nearly the same masks.
        tiles: cut images into overlapping tiles of so many pixels; by default an image is resized to fit.
        overlap: of tiles, a share in [0, 0.9].
        max_pixels: larger images are refused.
        upload_mib: larger files are refused.
        session_mib: what one open page may keep in memory.
        sessions: pages that are open at the same time.
        idle_minutes: after which a page that nobody uses loses what it holds.
        label_studio: URL of a Label Studio whose ML backend this server is too. Its API token is read from
            LABEL_STUDIO_API_KEY in the environment; BASIC_AUTH_USER and BASIC_AUTH_PASS are what it must
            give, where they are set.
        label_studio_shots: the newest so many annotated tasks of each class are its examples.
    """

    model: str = "pascal_matcher_resnet50"
    host: str = "127.0.0.1"
    port: int = 8017
    backbone: str | None = None
    backbone_weights: str | None = None
    size: int | None = None
    fusion: Literal["mean", "average", "cross-guided", "iterative", "attention"] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    tiles: int | None = None
    overlap: float = 0.25
    max_pixels: int = 40_000_000
    upload_mib: int = 64
    session_mib: int = 2048
    sessions: int = 8
    idle_minutes: int = 60
    label_studio: str | None = None
    label_studio_shots: int = 10


def serve(command: ServeCommand, console: Console) -> None:
    """Serves the page; see ``ServeCommand``.

    Raises:
        ValueError: FastAPI or uvicorn is missing, or an option is not accepted.
        OSError: the address cannot be listened on.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"fewseg serve needs {' and '.join(missing)}, an optional part: install it with "
            "`pip install 'fewseg[serve]'` (`uv sync --extra serve` in the project's folder)"
        )
    import uvicorn

    from fewseg.serve.app import create_app

    limits, studio = _limits(command), _studio(command)
    with _listen(command.host, command.port) as listener:  # before the model is loaded: told at once
        app = create_app(
            _model(command), limits, hosts=_OWN if command.host in _OWN else None, label_studio=studio
        )
        _tell(command, listener.getsockname()[1], console)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, limit_concurrency=64
        )
        uvicorn.Server(config).run(sockets=[listener])


def _limits(command: ServeCommand) -> Limits:
    from fewseg.serve.limits import MIB, Limits

    return Limits(
        upload_bytes=command.upload_mib * MIB,
        pixels=command.max_pixels,
        session_bytes=command.session_mib * MIB,
        sessions=command.sessions,
        idle_seconds=command.idle_minutes * 60.0,
    )


def _studio(command: ServeCommand) -> StudioOptions | None:
    from fewseg.serve.label_studio import StudioOptions
    from fewseg.serve.label_studio_client import Account

    if command.label_studio is None:
        return None
    account = Account(
        url=command.label_studio,
        key=os.environ.get("LABEL_STUDIO_API_KEY", ""),
        user=os.environ.get("BASIC_AUTH_USER"),
        password=os.environ.get("BASIC_AUTH_PASS"),
    )
    return StudioOptions(account=account, shots=command.label_studio_shots)


def _model(command: ServeCommand) -> Model:
    from fewseg.inference.loading import load_model
    from fewseg.inference.model import Tiles, Whole

    return load_model(
        command.model,
        size=command.size,
        views=Whole() if command.tiles is None else Tiles(side=command.tiles, overlap=command.overlap),
        fusion=command.fusion,
        backbone=command.backbone,
        backbone_weights=command.backbone_weights,
        precision=command.precision,
    )


def _tell(command: ServeCommand, port: int, console: Console) -> None:
    host = f"[{command.host}]" if ":" in command.host else command.host
    lines = [f"open http://{host}:{port}/ (stop with Ctrl-C)"]
    if command.label_studio is not None:
        lines.append(f"ML backend of {command.label_studio}: connect this address in a project's settings")
    if command.host not in _OWN:
        lines.append("everybody who reaches this address can use the page: there is no password")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _listen(host: str, port: int) -> socket.socket:
    """Opens the port, so that what is wrong with it is told before anything else is done."""
    if not 0 <= port <= _LAST_PORT:
        raise ValueError(f"--port is {port}; accepted are 0 (any that is free) to {_LAST_PORT}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(64)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host} port {port} ({error}): choose another with --port, 0 for any that is "
            "free"
        ) from error
    return listener
