"""Which requests are answered, and what a browser may do with the answers. Every answer passes through here, errors too.

    check    refused with  when
    -------  ------------  ---------------------------------------------------------------------------------------
    Host     421           bound to loopback, and the name asked for is not one of loopback's: a name of somebody else's
                           that resolves to 127.0.0.1 makes its page ours to the browser (DNS rebinding)
    Origin   403           there is one, and it is not the origin that was asked: another site's script or form
    token    401           there is one to be given, and none of `Authorization: Bearer`, `?token=` and our cookie is right

The cookie is random, not the token; HttpOnly, SameSite=Strict, and Secure where the request came by https. Scripts, styles and
requests are of this server alone, nothing inline (Content Security Policy Level 3), no frames.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

__all__ = ["COOKIE", "HEADERS", "RequestGuard", "is_loopback"]

COOKIE = "memover_session"
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    b"frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # with "no-referrer" browsers send forms of our own as of origin null
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_QUERY_LIMIT_BYTES = 4096


def is_loopback(host: str) -> bool:
    """Whether a name or address reaches this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class RequestGuard:
    """ASGI middleware around the page. `host` is the address it is bound to; `token` "" for none."""

    def __init__(self, app: Any, *, host: str, token: str = "") -> None:
        self._app = app
        self._loopback = is_loopback(host)
        self._token = token
        self._session = secrets.token_urlsafe(32)

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # nothing here speaks WebSocket; the server closes it
        asked = Request(scope)
        refused = self._refused(asked)
        if refused is not None:
            status, told = refused
            answer = PlainTextResponse(told, status)
            answer.raw_headers += HEADERS
            if status == 401:
                answer.headers["www-authenticate"] = 'Bearer realm="memover"'
            await answer(scope, receive, send)
            return
        cookie = self._new_cookie(asked)

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                ours = {name for name, _ in HEADERS}
                kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in ours]
                message = {**message, "headers": [*kept, *HEADERS, *cookie]}
            await send(message)

        await self._app(scope, receive, guarded)

    # -- checks --------------------------------------------------------------------------------------------------------

    def _refused(self, asked: Request) -> tuple[int, str] | None:
        headers = asked.headers
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not _name_of(host):
            return 400, "A request must name one host."
        if self._loopback and not is_loopback(_name_of(host)):
            return 421, (
                "This page is for this machine alone, under the name localhost or 127.0.0.1. Through a proxy, serve it with "
                "--host and --token."
            )
        origin = headers.get("origin")
        if origin is not None and not _same_origin(origin, host):
            return 403, "Another site may not ask."
        if asked.method not in ("GET", "HEAD") and headers.get("sec-fetch-site", "") not in ("", "same-origin"):
            return 403, "Another site may not ask."
        if self._token and not (self._in_header(asked) or self._in_cookie(asked) or self._in_query(asked)):
            return 401, "Give the token that memover serve was started with: Authorization: Bearer, or once ?token=."
        return None

    def _in_header(self, asked: Request) -> bool:
        scheme, _, given = asked.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and _equal(given.strip(), self._token)

    def _in_cookie(self, asked: Request) -> bool:
        return _equal(asked.cookies.get(COOKIE, ""), self._session)

    def _in_query(self, asked: Request) -> bool:
        if len(asked.url.query) > _QUERY_LIMIT_BYTES:
            return False
        return _equal(asked.query_params.get("token", ""), self._token)

    def _new_cookie(self, asked: Request) -> list[tuple[bytes, bytes]]:
        if not self._token or not self._in_query(asked) or self._in_cookie(asked):
            return []
        secure = "; Secure" if asked.url.scheme == "https" else ""
        return [(b"set-cookie", f"{COOKIE}={self._session}; Path=/; HttpOnly; SameSite=Strict{secure}".encode())]


def _equal(given: str, known: str) -> bool:
    """Whether two secrets are the same, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode(), known.encode())


def _name_of(host: str) -> str:
    """The name in a Host header, without its port and the brackets of IPv6; "" for what is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises ValueError unless it is a number
    except ValueError:
        return ""
    plain = not (parts.path or parts.query or parts.fragment or "@" in host or "\\" in host)
    return (parts.hostname or "") if plain else ""


def _same_origin(origin: str, host: str) -> bool:
    scheme, slashes, authority = origin.partition("://")
    return bool(slashes) and scheme in ("http", "https") and authority.lower() == host.lower()
