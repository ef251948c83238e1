"""Label Studio's ML backend protocol over HTTP.

Source: ``label_studio/ml/api_connector.py`` of Label Studio 1.23, which calls these addresses.
"""

from __future__ import annotations

import json
import logging
import secrets
from typing import Annotated, Any

import httpx
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from fewseg.data.errors import DataError
from fewseg.inference.formats.json_fields import typed
from fewseg.serve.body import read_body
from fewseg.serve.label_studio.backend import Backend
from fewseg.serve.label_studio.client import Account
from fewseg.serve.limits import MIB, Refused

logger = logging.getLogger(__name__)

_EVENT_BYTES = MIB
_AT_ONCE = 8  # answers; each may wait for Label Studio, in a thread that the page does not need

_basic = HTTPBasic(auto_error=False, realm="fewseg")


def studio_router(backend: Backend, account: Account, body_bytes: int) -> APIRouter:
    """Returns the protocol's addresses.

    Args:
        backend: that answers.
        account: with the user that Label Studio must give, except to ``/webhook``: Label Studio sends none
            there, and an event only has annotations read again.
        body_bytes: larger requests are refused.
    """
    router, threads = APIRouter(), CapacityLimiter(_AT_ONCE)

    async def allowed(given: Annotated[HTTPBasicCredentials | None, Depends(_basic)]) -> None:
        wanted = f"{account.user or ''}:{account.password or ''}"
        if account.user and (given is None or not _same(f"{given.username}:{given.password}", wanted)):
            raise Refused(
                401,
                "user or password are wrong: give Label Studio BASIC_AUTH_USER and BASIC_AUTH_PASS of here",
            )

    inside = [Depends(allowed)]

    @router.get("/health", dependencies=inside)
    async def health() -> dict[str, str]:
        return {"status": "UP", "model_class": f"fewseg {backend.name}"}

    @router.post("/setup", dependencies=inside)
    async def setup(request: Request) -> JSONResponse:
        version = await _answered(backend.setup, await _body(request, body_bytes), threads)
        return _kept_by_nobody({"model_version": version})

    @router.post("/predict", dependencies=inside)
    async def predict(request: Request) -> JSONResponse:
        version, results = await _answered(backend.predict, await _body(request, body_bytes), threads)
        return _kept_by_nobody({"results": results, "model_version": version})

    @router.get("/versions", dependencies=inside)
    async def versions() -> JSONResponse:
        return _kept_by_nobody({"versions": backend.versions})

    @router.post("/webhook")
    async def webhook(request: Request) -> dict[str, bool]:
        return {"stale": backend.webhook(await _event(request))}

    return router


def _same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode(), wanted.encode())


def _kept_by_nobody(content: dict[str, Any]) -> JSONResponse:
    return JSONResponse(content, headers={"Cache-Control": "no-store"})


async def _body(request: Request, limit: int) -> dict[str, Any]:
    content = await read_body(request, limit)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(422, f"the request is no JSON ({error}); accepted is Label Studio's own") from error
    return typed(value, dict, "the request")


async def _event(request: Request) -> dict[str, Any]:
    """An event; of one that is too long to be worth reading, that something changed somewhere."""
    try:
        return await _body(request, _EVENT_BYTES)
    except Refused as error:
        if error.status != httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            raise
        return {"action": "ANNOTATION_UPDATED"}


async def _answered(work: Any, request: dict[str, Any], threads: CapacityLimiter) -> Any:
    """Runs an answer in a thread; a refusal goes to the log too, as Label Studio shows its status alone."""
    try:
        return await run_sync(work, request, limiter=threads)
    except (DataError, Refused) as error:
        logger.error("Label Studio is refused: %s", error)
        raise
