"""``fewseg serve``."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

from fewseg.cli.label import ServeCommand

if TYPE_CHECKING:
    from fewseg.inference.model import Model
    from fewseg.serve.label_studio import StudioOptions
    from fewseg.serve.limits import Limits

_NEEDED = ("fastapi", "uvicorn", "httpx", "defusedxml")
_LAST_PORT = 65535  # some systems take more and listen on the rest of the division
_OWN = ("127.0.0.1", "localhost", "::1")


def serve(arguments: Sequence[str], console: Console) -> None:
    """Serves the page; see ``ServeCommand``.

    Raises:
        ValueError: FastAPI or uvicorn is missing, or an option is not accepted.
        OSError: the address cannot be listened on.
    """
    command = tyro.cli(ServeCommand, prog="fewseg serve", args=arguments)
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"fewseg serve needs {' and '.join(missing)}, an optional part: install it with "
            "`pip install 'fewseg[serve]'` (`uv sync --extra serve` in the project's folder)"
        )
    import uvicorn

    from fewseg.serve.app import create_app

    logging.getLogger("fewseg.backbones").setLevel(logging.WARNING)
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
