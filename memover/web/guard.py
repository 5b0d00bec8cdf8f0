"""Who may ask, and what a browser may do with the answers. Everything passes through here, errors too.

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
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

__all__ = ["COOKIE", "HEADERS", "Guard", "is_loopback"]

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
    """Whether a name or address is this machine's to itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware around the page. `host` is the address it is bound to; `token` "" for none."""

    def __init__(self, app: Any, *, host: str, token: str = "") -> None:
        self._app = app
        self._loopback = is_loopback(host)
        self._token = token.encode()
        self._session = secrets.token_urlsafe(32).encode()

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
        headers = {name.lower(): value for name, value in scope["headers"]}
        refused = self._refused(scope, headers)
        if refused is not None:
            await self._answer(send, *refused)
            return
        cookie = self._wants_cookie(scope, headers)

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                ours = {name for name, _ in HEADERS}
                kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in ours]
                message = {**message, "headers": [*kept, *HEADERS, *cookie]}
            await send(message)

        await self._app(scope, receive, guarded)

    # -- checks --------------------------------------------------------------------------------------------------------

    def _refused(self, scope: MutableMapping[str, Any], headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        host = headers.get(b"host", b"").decode("latin-1")
        if [name for name, _ in scope["headers"]].count(b"host") != 1 or not _name_of(host):
            return 400, "A request must name one host."
        if self._loopback and not is_loopback(_name_of(host)):
            return 421, (
                "This page is for this machine alone, under the name localhost or 127.0.0.1. Through a proxy, serve it with "
                "--host and --token."
            )
        origin = headers.get(b"origin")
        if origin is not None and not _same_origin(origin.decode("latin-1"), host):
            return 403, "Another site may not ask."
        site = headers.get(b"sec-fetch-site", b"")
        if scope["method"] not in ("GET", "HEAD") and site not in (b"", b"same-origin"):
            return 403, "Another site may not ask."
        if self._token and not self._knows(scope, headers):
            return 401, "Give the token that memover serve was started with: Authorization: Bearer, or once ?token=."
        return None

    def _knows(self, scope: MutableMapping[str, Any], headers: dict[bytes, bytes]) -> bool:
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token):
            return True
        if hmac.compare_digest(self._cookie(headers), self._session):
            return True
        return self._in_query(scope)

    def _in_query(self, scope: MutableMapping[str, Any]) -> bool:
        query = scope.get("query_string", b"")
        if b"token=" not in query or len(query) > _QUERY_LIMIT_BYTES:
            return False
        given = parse_qs(query.decode("latin-1")).get("token", [""])[-1]
        return hmac.compare_digest(given.encode(), self._token)

    @staticmethod
    def _cookie(headers: dict[bytes, bytes]) -> bytes:
        try:
            found = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
        except CookieError:
            return b""
        return b"" if found is None else found.value.encode()

    def _wants_cookie(self, scope: MutableMapping[str, Any], headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        if not self._token or not self._in_query(scope) or hmac.compare_digest(self._cookie(headers), self._session):
            return []
        secure = b"; Secure" if scope.get("scheme") == "https" else b""
        return [
            (b"set-cookie", b"%b=%b; Path=/; HttpOnly; SameSite=Strict%b" % (COOKIE.encode(), self._session, secure))
        ]

    @staticmethod
    async def _answer(send: Callable[[Any], Awaitable[None]], status: int, text: str) -> None:
        body = text.encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            *HEADERS,
        ]
        if status == 401:
            headers.append((b"www-authenticate", b'Bearer realm="memover"'))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _name_of(host: str) -> str:
    """The name in a Host header, without its port and the brackets of IPv6; "" for what is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises for what is no number
    except ValueError:
        return ""
    plain = not (parts.path or parts.query or parts.fragment or "@" in host or "\\" in host)
    return (parts.hostname or "") if plain else ""


def _same_origin(origin: str, host: str) -> bool:
    scheme, slashes, authority = origin.partition("://")
    return bool(slashes) and scheme in ("http", "https") and authority.lower() == host.lower()
