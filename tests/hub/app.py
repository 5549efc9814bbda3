"""The loopback Hub as a web application."""

from __future__ import annotations

import re

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.hub import files, lfs, repos, xet
from tests.hub.faults import Faults
from tests.hub.store import HubError, Store


class _QuotedPaths:
    """Routes see the path as it was sent: a quoted slash is part of a name."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": re.sub(r"\?.*", "", scope["raw_path"].decode("ascii"))}
        await self.app(scope, receive, send)


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HubError)
    headers = {"X-Error-Message": error.message} | ({"X-Error-Code": error.code} if error.code else {})
    return JSONResponse({"error": error.message}, error.status, headers)


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": "Not found"}, error.status_code)


def make_app(store: Store) -> Faults:
    """The application: it serves `store`, and fails as it is told."""
    app = Starlette(
        routes=[*lfs.ROUTES, *xet.ROUTES, *repos.ROUTES, *files.ROUTES],
        exception_handlers={HubError: _refusal, HTTPException: _unknown},
    )
    app.state.store = store
    return Faults(_QuotedPaths(app))
