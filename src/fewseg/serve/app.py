"""HTTP around the pages: the page's files and a small API. Needs the extra ``serve``."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from fewseg import __version__
from fewseg.annotations.options import TITLES
from fewseg.inference.advice import verdict
from fewseg.inference.model import Model
from fewseg.inference.options import Split
from fewseg.inference.outputs import COLOURS
from fewseg.serve.export import EXAMPLES, TABLE, examples, export
from fewseg.serve.importing import import_masks
from fewseg.serve.kept import KeptPages
from fewseg.serve.label_studio import STUDIO_PATHS, studio_router
from fewseg.serve.label_studio_client import StudioSettings
from fewseg.serve.limits import Bodies, Budget, Limits, RequestError, basic_credentials
from fewseg.serve.pages import Drawn, PageImage, Pages, PageState, SharedModel

logger = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")
_SWEEP_SECONDS = 60
_HOST = re.compile(r"(?:(?P<name>[A-Za-z0-9._-]+)|\[(?P<address>[0-9A-Fa-f:.]+)\])(?::[0-9]{1,5})?")
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
    label_studio: StudioSettings | None = None,
    password: str = "",
    label_options: str = "",
    keep: Path | None = None,
) -> FastAPI:
    """The server of a model.

    ``label_options`` are those by which ``fewseg label`` uses the same model; pages are kept in a folder.
    A request must name one of ``hosts``, as the name of a foreign site could lead here, or an IP address. It
    must bring the ``password`` where there is one; in place of it, Label Studio's addresses need the user of
    its settings, if that has one.
    """
    limits = limits or Limits()
    unpacking = Budget(limits.unpacked_bytes, "archives to unpack")
    shared = SharedModel(model, Budget(limits.decoded_pixels), unpacking)
    own_password = STUDIO_PATHS if label_studio is not None and label_studio.user else ()
    pages = Pages(shared, limits, kept=None if keep is None else KeptPages(keep))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async def sweep() -> None:
            while True:
                pages.sweep()
                await run_in_threadpool(pages.sweep_kept)
                await asyncio.sleep(_SWEEP_SECONDS)

        if pages.kept is not None:
            await run_in_threadpool(pages.kept.renew)
        task = asyncio.create_task(sweep())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = FastAPI(title="fewseg", version=__version__, lifespan=lifespan, openapi_url=None)
    app.state.pages, app.state.bodies = pages, Bodies(limits)
    app.state.label_options = label_options

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = _refuse_foreign(request, hosts)
        if response is None and password and request.url.path not in own_password:
            response = _refuse_stranger(request, password)
        response = response or await call_next(request)
        for name, value in _HEADERS.items():
            response.headers[name] = value
        response.headers["Cache-Control"] = "no-cache" if "etag" in response.headers else "no-store"
        return response

    app.add_exception_handler(RequestValidationError, _parameter_error)
    for kind in (RequestError, ValueError, MemoryError, OSError):
        app.add_exception_handler(kind, _error)
    app.include_router(router)
    if label_studio is not None:
        app.include_router(studio_router(label_studio, shared, limits, app.state.bodies))
    app.mount("/", StaticFiles(directory=STATIC, html=True), name="page")
    return app


def _refuse_foreign(request: Request, hosts: Sequence[str] | None) -> Response | None:
    """The answer to a request for another host name or from a page of another site, else None."""
    host = request.headers.get("host", "")
    name = _host_name(host)
    if hosts is not None and name not in hosts and not _is_address(name):
        text = (
            f"the host must be one of {', '.join(hosts)}, or an IP address, got {host!r}: open the page by "
            "one of them, or start the server with --behind and this name"
        )
        return JSONResponse({"detail": text}, 421)
    origin = request.headers.get("origin")
    same_site = origin in (f"http://{host}", f"https://{host}")
    if origin is not None and request.method not in ("GET", "HEAD") and not same_site:
        text = f"requests must come from a page of this server, this one comes from {origin}"
        return JSONResponse({"detail": text}, 403)
    return None


def _host_name(host: str) -> str | None:
    """The name in a Host header, without its port; None where it is not a name and a port alone."""
    match = _HOST.fullmatch(host)
    return (match["name"] or match["address"]).lower() if match else None


def _is_address(name: str | None) -> bool:
    """Whether a host is an IP address, which no site can have lead elsewhere."""
    with suppress(ValueError):
        return bool(ip_address(name or ""))
    return False


def _refuse_stranger(request: Request, password: str) -> Response | None:
    """The answer to a request without the password (any user, HTTP Basic), else None."""
    if secrets.compare_digest(basic_credentials(request).partition(b":")[2], password.encode()):
        return None
    headers = {"WWW-Authenticate": 'Basic realm="fewseg", charset="UTF-8"'}
    text = "the password is missing or wrong: give that of `fewseg serve`, with any user name"
    return JSONResponse({"detail": text}, 401, headers)


async def _error(_: Request, error: Exception) -> Response:
    status, text = 422, str(error)
    if isinstance(error, RequestError):
        status = error.status
    elif isinstance(error, MemoryError):
        status, text = 413, "there is not enough memory for this image: use a smaller one"
    elif isinstance(error, OSError):
        logger.error("%s", error)
        status, text = 507, "the server could not write a temporary file: free space on its disk"
    return JSONResponse({"detail": text}, status)


async def _parameter_error(_: Request, error: Exception) -> Response:
    """One line about the first invalid parameter."""
    assert isinstance(error, RequestValidationError)
    wrong = error.errors()[0]
    name, should = wrong["loc"][-1], wrong["msg"].removeprefix("Input should ")
    if wrong["type"] == "missing":
        return JSONResponse({"detail": f"{name} is missing: give it"}, 422)
    return JSONResponse({"detail": f"{name} is {str(wrong['input'])[:60]!r}: it should {should}"}, 422)


def _page(request: Request, x_fewseg_session: Annotated[str, Header()] = "") -> PageState:
    pages: Pages = request.app.state.pages
    return pages.get(x_fewseg_session)


Page = Annotated[PageState, Depends(_page)]
Threshold = Annotated[float, Query(gt=0, lt=1)]


async def _content(request: Request, page: Page) -> AsyncIterator[bytes]:
    """The body of a request, which counts as held until the answer is made."""
    bodies: Bodies = request.app.state.bodies
    async with bodies.read(request, page.limits.upload_bytes) as content:
        yield content


Content = Annotated[bytes, Depends(_content)]


def _image_json(image: PageImage) -> dict[str, Any]:
    height, width = image.size
    return {
        "id": image.id,
        "name": image.name,
        "width": width,
        "height": height,
        "role": image.role,
        "edit": image.edit,
    }


def _page_json(page: PageState) -> dict[str, Any]:
    """What changes while a page is used."""
    undoable, redoable = page.undoable
    return {
        "classes": page.classes,
        "images": [_image_json(image) for image in page.images],
        "version": page.version,
        "bytes": page.nbytes,
        "undoable": undoable,
        "redoable": redoable,
    }


@router.post("/sessions", status_code=201)
def open_session(request: Request) -> dict[str, Any]:
    """Opens a page's session."""
    token, page = request.app.state.pages.open()
    return {"token": token, **session(request, page)}


@router.get("/session")
def session(request: Request, page: Page) -> dict[str, Any]:
    """All that a session has."""
    pages: Pages = request.app.state.pages
    limits = pages.limits
    return {
        "model": pages.shared.model.name,
        "fewseg": __version__,
        "formats": {**TITLES, TABLE: "Table of things: count, area (CSV)"},
        "palette": COLOURS,
        "command": f"fewseg label --support {EXAMPLES} --images photos --out labels"
        f"{request.app.state.label_options}",
        "limits": {"upload_bytes": limits.upload_bytes, "pixels": limits.pixels, "images": limits.images},
        **_page_json(page),
    }


@router.delete("/session", status_code=204)
def close_session(request: Request, x_fewseg_session: Annotated[str, Header()] = "") -> None:
    """Ends a session and drops what it holds."""
    request.app.state.pages.close(x_fewseg_session)


@router.post("/images", status_code=201)
def upload(page: Page, content: Content, name: str = "image") -> dict[str, Any]:
    """Adds an image: the body is the file."""
    return _image_json(page.add_image(name, content))


@router.get("/images/{id}/picture")
def picture(id: str, page: Page, small: bool = False) -> Response:
    """An image to look at."""
    content, media_type = page.picture(id, small=small)
    return Response(content, media_type=media_type)


@router.get("/images/{id}/file")
def file(id: str, page: Page) -> Response:
    """An image's file as it was uploaded."""
    return Response(page.image(id).content, media_type="application/octet-stream")


@router.delete("/images/{id}", status_code=204)
def remove_image(id: str, page: Page) -> None:
    """Removes an image."""
    page.remove_image(id)


@router.get("/images/{id}/labels")
def labels(
    id: str, page: Page, threshold: Threshold = 0.5, predicted: bool = False, small: bool = False
) -> Response:
    """The mask of an image: a grey PNG of class numbers."""
    content = page.labels_png(id, threshold, predicted=predicted, small=small)
    return Response(content, media_type="image/png", headers={"X-Fewseg-Version": str(page.version)})


@router.put("/images/{id}/labels")
def settle(
    id: str,
    page: Page,
    content: Content,
    role: Drawn = "accepted",
    again: bool = False,
    edit: int | None = None,
) -> dict[str, Any]:
    """Settles the mask of an image: the body is a PNG of class numbers.

    Given the ``edit`` of the image that was drawn on, it is refused where the mask has changed since.
    """
    image = page.set_mask(id, role, content, again=again, edit=edit)
    return {**_image_json(image), "version": page.version}


@router.post("/images/{id}/complete")
def complete(id: str, page: Page, content: Content) -> Response:
    """The mask of what is painted and guessed: a grey PNG, as the labels; nothing is settled.

    The body is a PNG of twice the image's height: class numbers (255 for unknown), and below them what each
    pixel is: 0 guessed, 1 painted, 1 + j in a box around a thing of class j.
    """
    return Response(page.complete(id, content), media_type="image/png")


@router.delete("/images/{id}/labels")
def reopen(id: str, page: Page) -> dict[str, Any]:
    """Drops the settled mask of an image."""
    return {**_image_json(page.reopen(id)), "version": page.version}


@router.get("/images/{id}/quality")
def quality(id: str, page: Page) -> dict[str, Any]:
    """The quality of an image's prediction; empty without supports."""
    answer = page.segmentation(id, quality=True)
    if answer is None or answer.quality is None:
        return {}
    scores = {name: quality.score for name, quality in answer.quality.classes.items()}
    return {**answer.facts(), "verdict": verdict(answer.quality.score), "scores": scores}


@router.get("/advice")
def advice(page: Page) -> dict[str, Any]:
    """What to annotate next, and the IoU to expect by the number of examples."""
    return page.advice()


@router.post("/undo")
def undo(page: Page) -> dict[str, Any]:
    """Takes the last change back."""
    return {"changed": page.undo(), **_page_json(page)}


@router.post("/redo")
def redo(page: Page) -> dict[str, Any]:
    """Makes a change that was undone again."""
    return {"changed": page.redo(), **_page_json(page)}


@router.post("/masks")
def add_masks(page: Page, content: Content, name: str = "masks", role: Drawn = "support") -> dict[str, Any]:
    """Imports masks: the body is a file of annotations, or a ZIP archive."""
    count, notes = import_masks(page, name, content, role)
    return {**_page_json(page), "count": count, "notes": notes}


@router.post("/classes", status_code=201)
def add_class(page: Page, name: str) -> dict[str, Any]:
    """Adds a class."""
    page.add_class(name)
    return {"classes": page.classes}


@router.put("/classes/{number}")
def rename_class(number: int, page: Page, name: str) -> dict[str, Any]:
    """Gives a class a different name."""
    page.rename_class(number, name)
    return {"classes": page.classes, "version": page.version}


@router.delete("/classes/{number}")
def remove_class(number: int, page: Page) -> dict[str, Any]:
    """Removes a class, from every mask too."""
    page.remove_class(number)
    return _page_json(page)


@router.get("/examples")
def download_examples(page: Page) -> Response:
    """The examples as a support set."""
    return examples(page)


@router.get("/download/{form}")
def download(
    form: str,
    page: Page,
    threshold: Threshold = 0.5,
    settled: bool = False,
    instances: Split | None = None,
) -> Response:
    """All masks as a file."""
    return export(page, form, threshold, settled=settled, instances=instances)
