"""HTTP around the workspaces: the page's files and a small API. Needs the extra ``serve``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from fewseg import __version__
from fewseg.annotations.mask_files import png_bytes
from fewseg.inference.model import Model
from fewseg.inference.outputs import FORMATS
from fewseg.serve.export import export
from fewseg.serve.label_studio import StudioOptions, studio_router
from fewseg.serve.limits import Limits, Refused, read_body
from fewseg.serve.workspace import ServedImage, Sessions, Workspace

logger = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")
_SWEEP_SECONDS = 60
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

router = APIRouter(prefix="/api")


def create_app(
    model: Model,
    limits: Limits | None = None,
    *,
    hosts: Sequence[str] | None = None,
    label_studio: StudioOptions | None = None,
) -> FastAPI:
    """Returns the server of a model.

    Args:
        model: what predicts.
        limits: see there.
        hosts: the names that requests may call the server by, against pages that make a foreign name lead
            here; None for any.
        label_studio: whose ML backend this server is too.
    """
    limits = limits or Limits()
    sessions = Sessions(model, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async def sweep() -> None:
            while True:
                await asyncio.sleep(_SWEEP_SECONDS)
                sessions.sweep()

        task = asyncio.create_task(sweep())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = FastAPI(title="fewseg", version=__version__, lifespan=lifespan, openapi_url=None)
    app.state.sessions = sessions

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        refusal = _foreign(request, hosts)
        response = refusal if refusal is not None else await call_next(request)
        for name, value in _HEADERS.items():
            response.headers[name] = value
        response.headers.setdefault(
            "Cache-Control", "no-store" if "/api/" in request.url.path else "no-cache"
        )
        return response

    app.add_exception_handler(RequestValidationError, _told_parameter)
    app.add_exception_handler(Refused, _told)
    app.add_exception_handler(ValueError, _told)
    app.add_exception_handler(MemoryError, _told)
    app.add_exception_handler(OSError, _told)
    app.include_router(router)
    if label_studio is not None:
        backend = label_studio.backend(model, limits, sessions.compute, sessions.judging)
        app.include_router(studio_router(backend, label_studio.account, limits.upload_bytes))
    app.mount("/", StaticFiles(directory=STATIC, html=True), name="page")
    return app


def _foreign(request: Request, hosts: Sequence[str] | None) -> Response | None:
    """Refuses a request for another host name, or from another site's page."""
    host = request.headers.get("host", "")
    if hosts is not None and _host_name(host) not in hosts:
        text = f"the host is {host!r}; accepted are {', '.join(hosts)}: open the page by one of these names"
        return JSONResponse({"detail": text}, 421)
    origin = request.headers.get("origin")
    own = origin in (f"http://{host}", f"https://{host}")
    if origin is not None and request.method not in ("GET", "HEAD") and not own:
        text = f"the request comes from a page of {origin}; accepted are those of this server"
        return JSONResponse({"detail": text}, 403)
    return None


def _host_name(host: str) -> str | None:
    """The name in a Host header, without its port; None where there is none."""
    try:
        return urlsplit(f"//{host}").hostname if host.isprintable() else None
    except ValueError:  # half a bracket
        return None


async def _told(_: Request, error: Exception) -> Response:
    status = 422
    if isinstance(error, Refused):
        status = error.status
    elif isinstance(error, MemoryError):
        status, error = 413, MemoryError("there is not enough memory for this image: use a smaller one")
    elif isinstance(error, OSError):
        logger.error("%s", error)
        status, error = 507, OSError("the server could not write a temporary file: free space on its disk")
    return JSONResponse({"detail": str(error)}, status)


async def _told_parameter(_: Request, error: Exception) -> Response:
    """Tells in a line what is wrong with the first parameter that is wrong."""
    assert isinstance(error, RequestValidationError)
    wrong = error.errors()[0]
    name, should = wrong["loc"][-1], wrong["msg"].removeprefix("Input should ")
    if wrong["type"] == "missing":
        return JSONResponse({"detail": f"{name} is missing: give it"}, 422)
    return JSONResponse({"detail": f"{name} is {str(wrong['input'])[:60]!r}: it should {should}"}, 422)


def _workspace(request: Request, x_fewseg_session: Annotated[str, Header()] = "") -> Workspace:
    sessions: Sessions = request.app.state.sessions
    return sessions.workspace(x_fewseg_session)


Space = Annotated[Workspace, Depends(_workspace)]
Threshold = Annotated[float, Query(gt=0, lt=1)]


def _told_image(image: ServedImage) -> dict[str, Any]:
    height, width = image.encoded.size
    return {"id": image.id, "name": image.name, "width": width, "height": height, "role": image.role}


def _told_space(space: Workspace) -> dict[str, Any]:
    return {
        "classes": space.classes,
        "images": [_told_image(image) for image in space.images],
        "version": space.version,
        "bytes": space.nbytes,
    }


@router.post("/sessions", status_code=201)
def start(request: Request) -> dict[str, Any]:
    """Opens a session."""
    sessions: Sessions = request.app.state.sessions
    token, space = sessions.start()
    limits = sessions.limits
    return {
        "token": token,
        "model": sessions.model.name,
        "fewseg": __version__,
        "formats": FORMATS,
        "limits": {"upload_bytes": limits.upload_bytes, "pixels": limits.pixels, "images": limits.images},
        **_told_space(space),
    }


@router.get("/session")
def told(space: Space) -> dict[str, Any]:
    """Tells all that a session has."""
    return _told_space(space)


@router.delete("/session", status_code=204)
def end(request: Request, x_fewseg_session: Annotated[str, Header()] = "") -> None:
    """Ends a session and drops what it holds."""
    request.app.state.sessions.end(x_fewseg_session)


@router.post("/images", status_code=201)
async def upload(request: Request, space: Space, name: str = "image") -> dict[str, Any]:
    """Takes an image: the body is the file."""
    content = await read_body(request, space.limits.upload_bytes)
    return _told_image(await run_in_threadpool(space.add_image, name, content))


@router.get("/images/{id}/picture")
def picture(id: str, space: Space) -> Response:
    """Gives an image to look at."""
    return Response(space.image(id).picture, media_type="image/jpeg")


@router.delete("/images/{id}", status_code=204)
def remove(id: str, space: Space) -> None:
    """Takes an image away."""
    space.remove_image(id)


@router.get("/images/{id}/labels")
def labels(id: str, space: Space, threshold: Threshold = 0.5, predicted: bool = False) -> Response:
    """Gives the mask of an image: a grey PNG of class numbers."""
    found = png_bytes(space.labels(id, threshold, predicted=predicted))
    return Response(found, media_type="image/png", headers={"X-Fewseg-Version": str(space.version)})


@router.put("/images/{id}/labels")
async def settle(
    id: str, request: Request, space: Space, role: Literal["support", "accepted"] = "accepted"
) -> dict[str, Any]:
    """Settles the mask of an image: the body is a PNG of class numbers."""
    content = await read_body(request, space.limits.upload_bytes)
    image = await run_in_threadpool(space.set_labels, id, role, content)
    return {**_told_image(image), "version": space.version}


@router.delete("/images/{id}/labels")
def reopen(id: str, space: Space) -> dict[str, Any]:
    """Drops the settled mask of an image."""
    return {**_told_image(space.reopen(id)), "version": space.version}


@router.get("/images/{id}/quality")
def quality(id: str, space: Space) -> dict[str, Any]:
    """Judges the prediction of an image; empty without supports."""
    found = space.segmentation(id, quality=True)
    return {} if found is None else found.facts()


@router.post("/classes", status_code=201)
def add_class(space: Space, name: str) -> dict[str, Any]:
    """Adds a class."""
    space.add_class(name)
    return {"classes": space.classes}


@router.put("/classes/{number}")
def rename_class(number: int, space: Space, name: str) -> dict[str, Any]:
    """Gives a class another name."""
    space.rename_class(number, name)
    return {"classes": space.classes, "version": space.version}


@router.delete("/classes/{number}")
def remove_class(number: int, space: Space) -> dict[str, Any]:
    """Takes a class away, from every mask too."""
    space.remove_class(number)
    return _told_space(space)


@router.get("/download/{form}")
def download(form: str, space: Space, threshold: Threshold = 0.5, settled: bool = False) -> Response:
    """Gives all masks as a file."""
    made = export(space, form, threshold, settled=settled)
    headers = {"Content-Disposition": f'attachment; filename="{made.name}"'}
    return Response(made.content, media_type=made.media_type, headers=headers)
