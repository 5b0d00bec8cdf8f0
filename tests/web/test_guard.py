"""Who may ask the page: attacks by name, by origin, without a token, and with forms that are not its own."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

from memover.web.guard import HEADERS, is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

TOKEN = "a-token-of-more-than-16-characters"


def raw(address: str, request: str) -> str:
    """The answer to bytes that no client library would send."""
    parts = urlsplit(address)
    assert parts.hostname is not None and parts.port is not None
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(request.encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer.decode(errors="replace")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "169.254.1.1", ""]
)
def test_a_name_of_somebody_elses_is_refused(serve: Callable[..., str], host: str) -> None:
    """DNS rebinding: the browser asks us under the attacker's name."""
    address = serve()
    answer = raw(address, f"GET /contents HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    assert answer.split()[1] in ("421", "400")
    assert "namespace" not in answer


def test_two_names_are_refused(serve: Callable[..., str]) -> None:
    """Whichever of them the server would believe."""
    answer = raw(serve(), "GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert answer.split()[1] == "400"


def test_loopback_has_several_names(serve: Callable[..., str]) -> None:
    """With whatever port a tunnel has made of it."""
    address = serve()
    for host in ("localhost", "127.0.0.1:9999", "[::1]:8686", "LOCALHOST"):
        assert httpx.get(address, headers={"host": host}).status_code == 200, host


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1.evil.example"]
)
def test_another_origin_is_refused(serve: Callable[..., str], origin: str) -> None:
    """Reading and writing alike."""
    address = serve("--allow-invalidate")
    assert httpx.get(f"{address}/events", headers={"origin": origin}).status_code == 403
    assert httpx.post(f"{address}/invalidate", headers={"origin": origin}).status_code == 403
    assert httpx.post(f"{address}/invalidate", headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_every_answer_carries_the_policy(serve: Callable[..., str], filled: list[str]) -> None:
    """Pages, files, errors and refusals: nothing inline, no frames, no sniffing, nothing kept."""
    address = serve()
    for path in (
        "/",
        "/contents",
        "/doctor",
        "/nothing",
        "/static/page.js",
        "/static/../app.py",
        "/invalidate",
        "/entry?key=x",
    ):
        answer = httpx.get(f"{address}{path}")
        for name, value in HEADERS:
            assert answer.headers[name.decode()] == value.decode(), path
        assert answer.headers.get_list("cache-control") == ["no-store"]
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy and "http" not in policy and "default-src 'none'" in policy
    assert "content-security-policy" in httpx.get(address, headers={"host": "evil.example"}).headers


def test_nothing_is_inline_or_from_elsewhere(serve: Callable[..., str], filled: list[str]) -> None:
    """No script, style or handler in the HTML, and no address of another server in any file."""
    address = serve("--allow-invalidate")
    for path in ("/", "/contents", "/doctor", "/namespace/shop%2Fprofiles", f"/entry?key={filled[0]}"):
        text = httpx.get(f"{address}{path}").text
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text), path
        assert not re.search(r'(?:src|href|action)="(?!/|#)', text), path
    for name in ("page.js", "page.css", "icon.svg"):
        text = httpx.get(f"{address}/static/{name}").text.replace("http://www.w3.org/2000/svg", "")
        assert "http" not in text and "//fonts" not in text and "@import" not in text


def test_a_token_is_asked_for(serve: Callable[..., str]) -> None:
    """Everywhere, by header, by address once, then by a cookie that is not the token."""
    address = serve("--token", TOKEN)
    for path in ("/", "/events", "/static/page.js", "/nothing"):
        answer = httpx.get(f"{address}{path}")
        assert (answer.status_code, answer.headers["www-authenticate"].startswith("Bearer")) == (401, True)
    assert httpx.get(address, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    for wrong in ("Bearer x", f"Basic {TOKEN}", "Bearer", TOKEN):
        assert httpx.get(address, headers={"authorization": wrong}).status_code == 401
    assert httpx.get(f"{address}/?token={TOKEN}x").status_code == 401
    with httpx.Client() as client:
        answer = client.get(f"{address}/?token={TOKEN}")
        cookie = answer.headers["set-cookie"]
        assert TOKEN not in cookie
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
        again = client.get(f"{address}/contents")
        assert again.status_code == 200
        assert "set-cookie" not in again.headers
    assert httpx.get(address, headers={"cookie": "memover_session=x"}).status_code == 401
    assert httpx.get(address, headers={"cookie": f"memover_session={TOKEN}"}).status_code == 401


def test_other_addresses_need_a_token() -> None:
    """Exit status 2 and a token to take; a short one is refused too."""
    for args in (["--host", "0.0.0.0"], ["--host", "192.168.1.1"], ["--token", "short"]):
        ended = subprocess.run(
            [sys.executable, "-m", "memover", "serve", "--url", "redis://localhost:1/0", *args],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 2
        assert "token" in ended.stderr
    assert is_loopback("::1") and is_loopback("127.8.8.8") and not is_loopback("0.0.0.0") and not is_loopback("::")


def csrf_of(page: str) -> str:
    found = re.search(r'<form method="post" action="/invalidate".*?name="csrf" value="([^"]+)"', page, re.DOTALL)
    assert found is not None
    return found[1]


def test_it_only_reads_unless_told(
    serve: Callable[..., str], filled: list[str], redis_client: redis.Redis, prefix: str
) -> None:
    """No form, and a post of one is refused."""
    address = serve()
    before = redis_client.get(f"{prefix}:gen:shop/profiles")
    assert "<form" not in httpx.get(f"{address}/namespace/shop%2Fprofiles").text
    answer = httpx.post(f"{address}/invalidate", data={"namespace": "shop/profiles", "csrf": ""})
    assert answer.status_code == 403
    assert redis_client.get(f"{prefix}:gen:shop/profiles") == before


def test_the_button_invalidates(
    serve: Callable[..., str], filled: list[str], redis_client: redis.Redis, prefix: str
) -> None:
    """With the form's own token, by a namespace that there is."""
    address = serve("--allow-invalidate")
    page = httpx.get(f"{address}/namespace/shop%2Fprofiles").text
    assert 'name="namespace" value="shop/profiles"' in page
    csrf = csrf_of(page)
    before = redis_client.get(f"{prefix}:gen:shop/profiles")
    for fields in (
        {"namespace": "shop/profiles"},
        {"namespace": "shop/profiles", "csrf": csrf[:-1]},
        {"namespace": "shop/profiles", "csrf": "é"},
    ):
        assert httpx.post(f"{address}/invalidate", data=fields).status_code == 403
    json = httpx.post(f"{address}/invalidate", json={"namespace": "shop/profiles", "csrf": csrf})
    assert json.status_code == 403, "a body that other sites can send without being asked about"
    assert redis_client.get(f"{prefix}:gen:shop/profiles") == before
    unknown = httpx.post(f"{address}/invalidate", data={"namespace": "shop/profilez", "csrf": csrf})
    assert unknown.status_code == 404
    assert ">shop/profiles</a>" in unknown.text
    assert not redis_client.exists(f"{prefix}:gen:shop/profilez")
    answer = httpx.post(
        f"{address}/invalidate",
        data={"namespace": "shop/profiles", "csrf": csrf},
        headers={"origin": address, "sec-fetch-site": "same-origin"},
    )
    assert answer.status_code == 303
    after = redis_client.get(f"{prefix}:gen:shop/profiles")
    assert after != before and after is not None
    assert after.decode() in httpx.get(f"{address}{answer.headers['location']}").text


def test_long_bodies_are_refused(serve: Callable[..., str], filled: list[str]) -> None:
    """Before they are read whole."""
    assert httpx.post(f"{serve('--allow-invalidate')}/invalidate", content=b"x" * 100_000).status_code == 413
