"""A project in a directory of its own, a filled Redis, and the `memover` command run in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache
from tests.servers.forking import run_fork

if TYPE_CHECKING:
    from pathlib import Path

CALLS = 400
MODULE = """\
from memover import versioned_cache


@versioned_cache(namespace="profiles", version=2, ttl=600)
def profile(user_id: int, region: str = "eu") -> dict[str, int]:
    return {"id": user_id}


@versioned_cache(namespace="prices", key="{item}:{currency}", ttl=600)
def price(item: str, currency: str = "EUR") -> int:
    return 7
"""


class Project:
    """`run` is the command as a user types it, on a store; `facts` what its JSON says."""

    def __init__(self, root: Path, url: str, prefix: str) -> None:
        self.root = root
        self.url = url
        self.prefix = prefix
        (root / "pyproject.toml").write_text('[tool.memover]\ntargets = ["shop"]\n')
        (root / "shop.py").write_text(MODULE)

    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MEMOVER_")}
        return {
            **clean,
            "MEMOVER_URL": self.url,
            "MEMOVER_PREFIX": self.prefix,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }

    def run(self, *args: str, status: int = 0, typed: str = "") -> subprocess.CompletedProcess[str]:
        ended = run_fork(["memover", *args], cwd=self.root, env=self.environment(), text=typed)
        assert ended.returncode == status, f"status {ended.returncode}\n{ended.stdout}{ended.stderr}"
        return ended

    def facts(self, *args: str, status: int = 0) -> Any:
        return json.loads(self.run(*args, "--format", "json", status=status).stdout)

    def lock(self) -> None:
        self.run("lock")


def fill(url: str, prefix: str, calls: int = CALLS) -> dict[str, Any]:
    """Entries of two versions of one function, one of another without expiry and with tags, and key-value entries; their keys."""

    def function(n: int) -> dict[str, Any]:
        return {"id": n, "name": "x" * (n % 50)}

    keys: dict[str, Any] = {}
    for version in (1, 2):
        with Cache(url, prefix=prefix) as cache:
            cached: Any = cache.versioned(namespace="profiles", version=version, ttl=600)(function)
            for n in range(calls):
                cached(n)
            keys["profiles", version] = [cached.key(n) for n in range(calls)]
    with Cache(url, prefix=prefix) as cache:
        tagged: Any = cache.versioned(namespace="items", version=7, ttl=None, tags=("item:{n}", "all"))(function)
        for n in range(20):
            tagged(n)
        keys["items", 7] = [tagged.key(n) for n in range(20)]
        for n in range(30):
            cache.set(f"profiles:{n}", n, ttl=600, version=3)
        keys["~kv", 3] = [f"{prefix}:3:profiles:{n}" for n in range(30)]
    return keys


def foreign(client: Any, prefix: str) -> None:
    """Keys of somebody else's, some of which look like ours."""
    for n in range(200):
        client.set(f"other:{prefix}:{n}", "x" * 100)
    client.set(f"{prefix}:1:profiles:notes", b"no entry")
    client.set(f"{prefix}:1:profiles:short", b"mvr")
    client.lpush(f"{prefix}:2:profiles:queue", 1, 2)
    client.hset(f"{prefix}:9:profiles:hash", "a", 1)
    client.set(f"{prefix}x:1:profiles:{'0' * 32}", b"another prefix")
    client.set(f"{prefix}:0:profiles:zero", b"no version")


@pytest.fixture
def project(tmp_path: Path, redis_url: str, prefix: str) -> Project:
    return Project(tmp_path, redis_url, prefix)
