"""`memover serve` as a process of its own, on a filled Redis."""

from __future__ import annotations

import os
import re
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from memover import Cache
from tests.servers.forking import start_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

SERVE_SECONDS = 30


@contextmanager
def serving(root: Path, url: str, prefix: str, *args: str) -> Iterator[str]:
    """The address of a page; the server is ended with the `with`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MEMOVER_")}
    reading, writing = os.pipe()
    with open(reading) as said, open(writing, "w") as out, open(os.devnull) as nothing:
        process = start_fork(
            ["memover", "serve", "--port", "0", "--url", url, "--prefix", prefix, *args],
            cwd=root,
            env={**clean, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=nothing,
            stdout=out,
            stderr=sys.__stderr__,
        )
        out.close()
        try:
            found = re.search(r"http://\S+:\d+", said.readline())
            assert found is not None, f"status {process.wait()}"
            yield found[0]
        finally:
            process.terminate()
            process.wait(timeout=SERVE_SECONDS)


@pytest.fixture
def serve(tmp_path: Path, redis_url: str, prefix: str) -> Iterator[Callable[..., str]]:
    """`serve("--allow-invalidate")`: the address of a page of this test's prefix."""
    with ExitStack() as stack:
        yield lambda *args: stack.enter_context(serving(tmp_path, redis_url, prefix, *args))


@pytest.fixture
def filled(redis_url: str, prefix: str) -> list[str]:
    """The keys of some entries, and a key-value entry that is up to no good."""
    with Cache(redis_url, prefix=prefix) as cache:
        cached = cache.versioned(namespace="shop/profiles", version=2, ttl=600, tags=("u:{n}",))(lambda n: {"id": n})
        for n in range(30):
            cached(n)
        cache.set("<script>alert(1)</script>", "</pre><img src=x onerror=alert(2)>", ttl=600)
        return [cached.key(n) for n in range(30)]
