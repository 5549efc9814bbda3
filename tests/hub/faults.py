"""Failures that the loopback Hub can be told to have."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send


@dataclass
class Fault:
    """What happens to the next requests that match.

    Attributes:
        pattern: a regular expression that `METHOD /path` matches from its beginning.
        times: how many requests it happens to.
        status: answer with this status instead of serving the request; None: serve it.
        body: of that answer, taken for JSON; None: an error in words.
        retry_after: seconds, said with that answer.
        drop_after: close the connection after so many bytes of the request's body; None: do not.
        delay: seconds to wait before anything else.
        before: called before the request is served, e.g. with a commit of somebody else.
    """

    pattern: str
    times: int = 1
    status: int | None = None
    body: bytes | None = None
    retry_after: int | None = None
    drop_after: int | None = None
    delay: float = 0.0
    before: Callable[[], object] | None = None


async def _drop(receive: Receive, after: int) -> None:
    """Close the connection without an answer once so many bytes of the body have come."""
    while after > 0:
        message = await receive()
        after -= len(message.get("body", b""))
        if not message.get("more_body"):
            break
    # A web application has no word for this: uvicorn's receive belongs to an object that has the transport.
    receive.__self__.transport.abort()  # type: ignore[attr-defined]
    while (await receive())["type"] != "http.disconnect":
        pass


class Faults:
    """The faults that are in store, and a record of all requests.

    Args:
        app: that serves what does not fail.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.requests: list[str] = []
        self._planned: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Let matching requests fail."""
        with self._lock:
            self._planned.append(fault)

    def clear(self) -> None:
        """Let nothing fail, and forget what was asked."""
        with self._lock:
            self._planned.clear()
            self.requests.clear()

    def asked(self, pattern: str) -> int:
        """How many requests so far match."""
        return sum(bool(re.match(pattern, request)) for request in self.requests)

    def _next(self, request: str) -> Fault | None:
        with self._lock:
            self.requests.append(request)
            for fault in self._planned:
                if fault.times > 0 and re.match(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        fault = self._next(f"{scope['method']} {scope['path']}")
        if fault is None:
            await self.app(scope, receive, send)
            return
        await asyncio.sleep(fault.delay)
        if fault.before is not None:
            await asyncio.to_thread(fault.before)
        if fault.drop_after is not None:
            await _drop(receive, fault.drop_after)
            return
        if fault.status is not None:
            headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            if fault.body is None:
                answer: Response = JSONResponse({"error": "as told"}, fault.status, headers)
            else:
                answer = Response(fault.body, fault.status, headers, "application/json")
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)
