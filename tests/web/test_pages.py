"""What the page shows is true, and nothing from a store is read as markup."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from memover.codec.envelope import seal

from .conftest import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


def report(client: redis.Redis, prefix: str, namespace: str = "shop/profiles", **more: Any) -> None:
    function = {
        "namespace": namespace,
        "version": 2,
        "totals": {"hits": 90},
        "window": {"hits": 90, "misses": 10},
        **more,
    }
    facts = {
        "format": 1,
        "process": "p1",
        "host": more.pop("host", "web-1"),
        "pid": 4242,
        "memover": "1.0",
        "started": 1.0,
        "at": 2.0,
        "interval": 1.0,
        "window": 1.0,
        "functions": [function],
    }
    client.set(f"{prefix}:report:p1", json.dumps(facts), px=60_000)


def stream(address: str) -> Iterator[dict[str, Any]]:
    """What the page is sent, as it comes."""
    with httpx.stream("GET", f"{address}/events", timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line[6:])


def test_functions_with_their_rates(serve: Callable[..., str], redis_client: redis.Redis, prefix: str) -> None:
    """In the stream and, without a script, in the page itself."""
    report(redis_client, prefix)
    address = serve()
    news = next(each for each in stream(address) if each["functions"])
    (function,) = news["functions"]
    assert (function["namespace"], function["calls_per_second"], function["hit_ratio"]) == ("shop/profiles", 100.0, 0.9)
    assert news["processes"] == 1
    text = httpx.get(address).text
    assert '<a href="/namespace/shop%2Fprofiles">shop/profiles</a>' in text
    assert ">90.0%<" in text
    assert len(httpx.get(f"{address}/history").json()) >= 1


def test_history_grows(serve: Callable[..., str], redis_client: redis.Redis, prefix: str) -> None:
    """A point a second since it was started, of all and of one namespace."""
    report(redis_client, prefix)
    address = serve()
    points = {each["point"]["at"] for each, _ in zip(stream(address), range(3)) if each["point"]}
    assert len(points) >= 2
    found = httpx.get(f"{address}/history?namespace=shop/profiles").json()
    assert found[0]["calls"] == 100.0 and found[0]["hit_ratio"] == 0.9
    assert httpx.get(f"{address}/history?namespace=none").json() == []


def test_contents_and_a_namespace(
    serve: Callable[..., str], filled: list[str], redis_client: redis.Redis, prefix: str
) -> None:
    """Entries counted, sizes and ages as bars, some entries to look at, who runs which version."""
    report(redis_client, prefix)
    address = serve()
    contents = re.sub(r"<[^>]+>", " ", httpx.get(f"{address}/contents").text)
    assert re.search(r"shop/profiles\s+2\s+30\s", contents)
    assert re.search(r"~kv\s+1\s+1\s", contents)
    next(each for each in stream(address) if each["functions"])
    page = httpx.get(f"{address}/namespace/shop%2Fprofiles").text
    assert "generation" in page and "web-1" in page and "4242" in page
    assert "≤ 1 min: 30" in page
    links = re.findall(r'href="(/entry\?key=[^"]+)"', page)
    assert len(links) >= 20
    entry = httpx.get(f"{address}{links[0]}").text
    assert "fresh" in entry and "&#x27;id&#x27;" in entry


def test_what_is_not_there_is_404(
    serve: Callable[..., str], filled: list[str], redis_client: redis.Redis, prefix: str
) -> None:
    """With the nearest names; keys of another prefix are not shown at all."""
    redis_client.set(f"x{prefix}:secret", "another application's")
    address = serve()
    answer = httpx.get(f"{address}/namespace/shop%2Fprofilez")
    assert answer.status_code == 404 and ">shop/profiles</a>" in answer.text
    assert httpx.get(f"{address}/entry?key={prefix}:2:shop/profiles:none").status_code == 404
    other = httpx.get(f"{address}/entry?key=x{prefix}:secret")
    assert other.status_code == 404 and "another application" not in other.text
    assert httpx.get(f"{address}/static/app.py").status_code == 404
    assert httpx.get(f"{address}/static/..%2Fapp.py").status_code == 404


def test_everything_is_escaped(
    serve: Callable[..., str], filled: list[str], redis_client: redis.Redis, prefix: str
) -> None:
    """Keys, values, tokens, hosts and namespaces that are markup."""
    report(redis_client, prefix, namespace=EVIL, host=EVIL)
    key = f'{prefix}:1:evil"><b>'
    raw = seal(
        b"\xa1x",
        key=key.encode(),
        generation=EVIL[:50].encode(),
        codec="<b>",
        created_at=1.0,
        load_time=0.0,
        fresh_until=2.0,
        usable_until=3.0,
        marks=((EVIL.encode(), b"<i>"),),
        kind=2,
    )
    redis_client.set(key, raw)
    address = serve("--allow-invalidate")
    next(each for each in stream(address) if each["functions"])
    evil = f"{prefix}:1:<script>alert(1)</script>"
    for path, params in (
        ("/", {}),
        ("/contents", {}),
        ("/doctor", {}),
        ("/namespace/" + EVIL.replace("/", "%2F").replace(">", "%3E").replace("<", "%3C").replace('"', "%22"), {}),
        ("/namespace/~kv", {"moved": EVIL}),
        ("/namespace/<b>", {}),
        ("/entry", {"key": evil}),
        ("/entry", {"key": key}),
        ("/entry", {"key": EVIL}),
    ):
        answer = httpx.get(f"{address}{path}", params=params)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        for bad in ("<script>", "<img", "<b>evil", 'evil"><b>', "<i>"):
            assert bad not in answer.text, (path, params, bad)
    assert "&lt;/pre&gt;&lt;img src=x" in httpx.get(f"{address}/entry", params={"key": evil}).text


def test_a_store_that_is_away_is_said(tmp_path: Any) -> None:
    """A page and a stream that say so, status 502, and a doctor that names the check."""
    with serving(tmp_path, "redis://localhost:1/0", "shop") as address:
        assert next(each for each in stream(address) if each["error"])["functions"] == []
        answer = httpx.get(f"{address}/contents")
        assert answer.status_code == 502 and "Connection refused" in answer.text
        assert "reachable" in httpx.get(f"{address}/doctor").text


def test_many_open_pages_ask_the_store_no_more(start_redis: Callable[..., Any], tmp_path: Any) -> None:
    """Whoever looks shares one look a second, and what is counted is kept a while."""
    server = start_redis()
    with server.client() as client:
        report(client, "shop")
        with serving(tmp_path, server.url, "shop") as address:
            httpx.get(f"{address}/contents")
            with server.recording() as calls:
                for _ in range(20):
                    httpx.get(f"{address}/contents")
                    httpx.get(address)
            assert sum(str(call).startswith("DBSIZE") for call in calls) == 0


@pytest.mark.parametrize("path", ["/", "/contents", "/doctor"])
def test_pages_are_well_formed(serve: Callable[..., str], filled: list[str], path: str) -> None:
    """Every element that is opened is closed."""
    from html.parser import HTMLParser

    void = {"meta", "link", "input", "br", "img", "rect", "option", "path", "line"}
    opened: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag not in void:
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in void:
                assert opened.pop() == tag

    Reader().feed(httpx.get(f"{serve('--allow-invalidate')}{path}").text)
    assert opened == []
