"""The page as an application: routes, the stream of what is new, and the one thing that writes.

Reading is GET. `POST /invalidate` exists only where `allow_invalidate` says so, and takes the csrf token that the forms carry: a
random text of this server that no other site can read. If the store does not answer, the page says so, with status 502.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from memover.cli.text import nearest
from memover.errors import MemoverError
from memover.web.guard import RequestGuard
from memover.web.overview import Overview
from memover.web.pages import Pages, path_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from memover.cli.running import StoreContext

__all__ = ["application"]

_BODY_LIMIT_BYTES = 8192
_STREAMS_LIMIT = 50


def application(
    context: StoreContext, *, host: str, token: str = "", allow_invalidate: bool = False, interval: float = 1.0
) -> Any:
    """The guarded ASGI application of the page; `host` is the address that it will be bound to."""
    routes = _Routes(context, allow_invalidate, interval)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        watching = asyncio.create_task(routes.overview.go_on())
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            routes.overview.close()

    app = Starlette(
        lifespan=lifespan,
        routes=[
            Route("/", routes.functions),
            Route("/contents", routes.contents),
            Route("/doctor", routes.doctor),
            Route("/namespace/{name:path}", routes.namespace),
            Route("/entry", routes.entry),
            Route("/events", routes.events),
            Route("/history", routes.history),
            Route("/invalidate", routes.invalidate, methods=["POST"]),
            Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
        ],
        exception_handlers={MemoverError: routes.failed, 404: routes.missing},
    )
    return RequestGuard(app, host=host, token=token)


class _Routes:
    def __init__(self, context: StoreContext, allow_invalidate: bool, interval: float) -> None:
        self.overview = Overview(context, interval)
        self._context = context
        self._csrf = secrets.token_urlsafe(32) if allow_invalidate else ""
        self._pages = Pages(context, self._csrf)
        self._streams = 0

    # -- pages -----------------------------------------------------------------------------------------------------------

    def _page(self, template: str, title: str, here: str = "", **facts: Any) -> Response:
        return HTMLResponse(self._pages.made(template, title, here, **facts))

    async def functions(self, request: Request) -> Response:
        lines, names = self.overview.reports.lines, sorted(self.overview.reported)
        return self._page("functions", "Functions", "/", lines=lines, namespaces=names, error=self.overview.error)

    async def contents(self, request: Request) -> Response:
        return self._page("contents", "Contents", "/contents", found=await self.overview.contents.fresh())

    async def doctor(self, request: Request) -> Response:
        return self._page("doctor", "Doctor", "/doctor", checks=await self.overview.checks.fresh())

    async def namespace(self, request: Request) -> Response:
        name = request.path_params["name"]
        contents = await self.overview.contents.fresh()
        found = contents.namespaces.get(name)
        reported = self.overview.reported
        if found is None and name not in reported and name not in self._context.named_in_lock():
            return self._unknown(name, reported | set(contents.namespaces))
        moved = request.query_params.get("moved", "")
        note = f"Invalidated: {name} has moved to generation {moved[:64]}." if moved else ""
        return HTMLResponse(self._pages.namespace(name, found, self.overview.reports, note))

    async def entry(self, request: Request) -> Response:
        key = request.query_params.get("key", "")
        if not key.startswith(f"{self._context.prefix}:"):
            return self._failure(404, "Not of this prefix", "Only keys of this prefix are shown.")
        found = await self.overview.entry(key)
        if found is None:
            told = "It has expired, was evicted or invalidated, or was never stored."
            return self._failure(404, "No such entry", told)
        return self._page("entry", "Entry", found=found, now=time.time())

    # -- what is new -----------------------------------------------------------------------------------------------------

    async def history(self, request: Request) -> Response:
        return JSONResponse(self.overview.past(request.query_params.get("namespace", "")))

    async def events(self, request: Request) -> Response:
        if self._streams >= _STREAMS_LIMIT:
            return PlainTextResponse("Too many pages are open.", 503)
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[str]:
        self._streams += 1
        try:
            yield f"retry: 2000\ndata: {self._news()}\n\n"
            while True:
                await self.overview.change()
                yield f"data: {self._news()}\n\n"
        finally:
            self._streams -= 1

    def _news(self) -> str:
        found = self.overview.reports
        news = {
            "error": self.overview.error,
            "processes": len(found.reports),
            "interval": found.interval,
            "point": self.overview.history[-1] if self.overview.history else None,
            "functions": [
                {
                    **line.facts(),
                    "path": path_of(line.namespace),
                    "cells": line.texts(),
                    "grade": line.grade,
                    "spark": self.overview.spark(line.namespace, line.version),
                }
                for line in found.lines
            ],
        }
        return json.dumps(news, separators=(",", ":"))

    # -- what writes -----------------------------------------------------------------------------------------------------

    async def invalidate(self, request: Request) -> Response:
        if not self._csrf:
            told = "This page only reads. Start it with --allow-invalidate to have the button."
            return self._failure(403, "Read-only", told)
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _BODY_LIMIT_BYTES:
                return PlainTextResponse("Too long.", 413)
        fields = _form(request.headers.get("content-type", ""), body)
        if not hmac.compare_digest(fields.get("csrf", "").encode(), self._csrf.encode()):
            told = "The form was not this page's, or the page is from before a restart: load it again."
            return self._failure(403, "Not accepted", told)
        name = fields.get("namespace", "")
        contents = await self.overview.contents.fresh()
        known = {*self.overview.reported, *contents.namespaces, *self._context.named_in_lock()}
        if name not in known and not await self.overview.has_generation(name):
            return self._unknown(name, known)
        generation = await self.overview.invalidate(name)
        return RedirectResponse(f"{path_of(name)}?moved={quote(generation)}", 303)

    # -- what went wrong -------------------------------------------------------------------------------------------------

    def _failure(self, status: int, title: str, told: str, hints: Sequence[str] = ()) -> Response:
        return HTMLResponse(self._pages.made("failure", title, told=told, hints=hints), status)

    def _unknown(self, name: str, known: set[str]) -> Response:
        told = f"Neither the store, nor a process that reports, nor the lock knows a namespace {name[:200]!r}."
        return self._failure(404, "No such namespace", told, nearest(name, known))

    async def failed(self, request: Request, error: Exception) -> Response:
        return self._failure(502, "The store did not do it", str(error))

    async def missing(self, request: Request, error: Exception) -> Response:
        return self._failure(404, "No such page", "There is nothing here.")


def _form(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of a form as browsers send them without files; none for another kind of body."""
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return {}
    try:
        return dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=10))
    except ValueError:
        return {}
