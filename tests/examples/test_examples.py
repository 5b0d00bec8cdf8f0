"""Every example runs, in memory and on a real Redis, and shows what it says it shows."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import memover
from tests.servers import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    import redis

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

on_both_stores = pytest.mark.parametrize("where", ["memory", "redis"])


@pytest.fixture
def url(where: str, request: pytest.FixtureRequest) -> str:
    return "memory://" if where == "memory" else request.getfixturevalue("redis_url")


def run(name: str, *args: str, prefix: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {key: value for key, value in os.environ.items() if not key.startswith("MEMOVER_")}
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *args],
        check=False,
        env={**known, "MEMOVER_PREFIX": prefix, "PYTHONWARNINGS": "error", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def output(name: str, *args: str, prefix: str) -> str:
    ended = run(name, *args, prefix=prefix)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    return ended.stdout


@on_both_stores
def test_the_quickstart_shows_hits_keys_versions_and_an_invalidation(url: str, prefix: str) -> None:
    """What `make demo` prints: ten misses, ten hits, two versions side by side, one invalidation."""
    told = output("quickstart.py", url, prefix=prefix)
    assert "10 hits, 10 misses, 10 loads." in told
    assert f"{prefix}:1:quickstart/complexity:argparse" in told
    assert re.search(rf"{prefix}:2:quickstart/complexity:argparse\S*   is another key", told)
    assert re.search(rf"{prefix}:1:quickstart/complexity:argparse\S*   is still there", told)
    assert "(a hit)" in told
    assert re.search(r"lines=\d{3,}", told)
    generations = re.findall(r"generation (\d+)-[0-9a-f]{16}", told)
    assert len(generations) == 2
    assert int(generations[0]) < int(generations[1])
    assert "\x1b" not in told, "no colours in a file"


def test_a_second_process_shares_the_quickstarts_entries_and_their_invalidation(redis_url: str, prefix: str) -> None:
    """With a Redis URL the other process loads nothing at first, and loads again after the invalidation."""
    told = output("quickstart.py", redis_url, prefix=prefix)
    before, after = re.findall(r"process (\d+): (\d+) hits, (\d+) loads", told)
    assert before[1:] == ("10", "0")
    assert after[1:] == ("0", "1")
    assert before[0] == after[0], "it was one process"
    assert before[0] in told.partition("A second process, ")[2].partition("\n")[0]


def test_the_quickstart_says_so_when_there_is_no_redis(prefix: str) -> None:
    """A wrong URL or a silent server ends with a sentence, not with a traceback."""
    silent = run("quickstart.py", f"redis://127.0.0.1:{free_port()}/0", prefix=prefix)
    assert silent.returncode == 1
    assert "does not answer. Is Redis running there?" in silent.stderr
    wrong = run("quickstart.py", "postgres://localhost", prefix=prefix)
    assert wrong.returncode == 1
    assert "No store for the scheme 'postgres'" in wrong.stderr
    assert "Traceback" not in silent.stderr + wrong.stderr


@on_both_stores
def test_two_versions_of_a_profile_live_side_by_side(url: str, prefix: str) -> None:
    """Release 2 never sees release 1's entry, release 1 keeps its own, and nothing is deleted by hand."""
    told = output("profiles.py", url, prefix=prefix)
    one, two = (re.search(rf"{prefix}:{v}:profiles:([0-9a-f]{{32}}) -> (.*)", told) for v in (1, 2))
    assert one is not None
    assert two is not None
    assert one[2] == "{'name': 'Alice'}"
    assert two[2] == "{'name': 'Alice', 'avatar_url': '/avatars/7.png'}"
    assert "queries so far, as (release, user): [(1, 7), (2, 7)]" in told
    assert "release 1 says Alicia and release 2 says Alicia" in told


@on_both_stores
def test_methods_share_by_what_identifies_their_object(url: str, prefix: str) -> None:
    """Objects of one region share, other regions do not, and a write invalidates one call."""
    told = output("catalogue.py", url, prefix=prefix)
    assert "renamed: Item(sku='tea', name='Fine tea', cents=450)" in told
    assert "other regions stay cached: Item(sku='tea', name='Tea', cents=520)" in told
    queries = "regions, item eu tea, item us tea, item us mug, shipping 500, item eu tea"
    assert told.rstrip().endswith(f"6 queries were made: {queries}")


def test_examples_leave_entries_that_end_by_themselves(redis_url: str, redis_client: redis.Redis, prefix: str) -> None:
    """What an example leaves in a Redis has a ttl, generations and what was declared to last apart."""
    output("quickstart.py", redis_url, prefix=prefix)
    output("profiles.py", redis_url, prefix=prefix)
    entries = [key for key in redis_client.scan_iter(f"{prefix}:*", count=1000) if b":gen:" not in key]
    assert len(entries) > 10
    assert all(redis_client.pttl(key) > 0 for key in entries)


# The web service


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    pytest.importorskip("starlette")
    monkeypatch.setenv("ARTICLES", str(tmp_path / "articles.db"))
    spec = importlib.util.spec_from_file_location("memover_example_web", EXAMPLES / "web.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@on_both_stores
def test_an_article_is_loaded_once_and_again_after_a_post(web: Any, url: str, prefix: str) -> None:
    """Requests at the same time share one load; the answer to a POST means that nobody serves the old article."""
    httpx = pytest.importorskip("httpx")

    async def conversation() -> None:
        transport = httpx.ASGITransport(app=web.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
            first = await asyncio.gather(*(client.get("/articles/7") for _ in range(5)))
            assert sorted(answer.headers["x-cache"] for answer in first) == ["loaded", *["waited"] * 4]
            assert {answer.json()["title"] for answer in first} == {"On naming things"}
            assert (await client.get("/articles/7")).headers["x-cache"] == "fresh"

            assert (await client.post("/articles/7", json={"title": "A better title"})).status_code == 204
            changed = await client.get("/articles/7")
            assert changed.json() == {"title": "A better title", "words": 900}
            assert changed.headers["x-cache"] == "loaded"

            for _ in range(2):  # cache_if: what is missing may come
                absent = await client.get("/articles/8")
                assert absent.status_code == 404
                assert absent.headers["x-cache"] == "loaded"
            assert (await client.post("/articles/8", json={"title": "?"})).status_code == 404

    with memover.Cache(url, prefix=prefix) as cache, memover.using(cache):

        async def whole() -> None:
            await conversation()
            await cache.aclose()

        asyncio.run(whole())


def test_the_web_service_runs_as_its_first_lines_say(redis_url: str, prefix: str, tmp_path: Path) -> None:
    """uvicorn finds the application; its workers serve one article from Redis, a new one after a POST, and end cleanly."""
    pytest.importorskip("uvicorn")
    httpx = pytest.importorskip("httpx")
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "web:app", "--port", str(port)]
    log = tmp_path / "log"
    with log.open("wb") as said:
        server = subprocess.Popen(
            [*command, "--workers", "2", "--no-access-log"],
            env={
                **os.environ,
                "MEMOVER_URL": redis_url,
                "MEMOVER_PREFIX": prefix,
                "ARTICLES": str(tmp_path / "articles.db"),
            },
            stderr=said,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:

            def served() -> Any:
                assert server.poll() is None, log.read_text()
                return client.get("/articles/7")

            first = wait_until(served, "uvicorn to answer", passing=(httpx.TransportError,), timeout=60)
            assert first.json()["title"] == "On naming things"
            assert client.get("/articles/7").headers["x-cache"] == "fresh"
        address = f"http://127.0.0.1:{port}/articles/7"
        for number in range(10):  # a connection each, so that now one worker is asked and now the other
            title = f"Edition {number}"
            assert httpx.post(address, json={"title": title}, trust_env=False, timeout=30).status_code == 204
            assert httpx.get(address, trust_env=False, timeout=30).json()["title"] == title
    finally:
        server.terminate()
        server.wait(30)
    told = log.read_text()
    assert "Application shutdown complete" in told
    assert "Traceback" not in told
