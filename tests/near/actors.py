"""What the tests of the near cache share: a function over a source that counts up, and how to see where answers come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover import Cache
from tests.servers import wait_until
from tests.servers.daemon import redis_server_version

if TYPE_CHECKING:
    from collections.abc import Callable

NAMESPACE = "near"
UNTOLD = "-client|tracking" if redis_server_version() >= (7, 0) else "-client"
"""What takes pushes from a user: servers before Redis 7 take single subcommands from nobody."""
SILENT = {"username": "app", "password": "secret", "acl": f"~* &* +@all {UNTOLD}"}
"""A user to whom the server pushes nothing."""
PATIENT: dict[str, Any] = {"socket_timeout": 10.0, "socket_connect_timeout": 10.0}


class Source:
    """What a function loads: it holds one number for all arguments, and counts its loads."""

    def __init__(self) -> None:
        self.value = 1
        self.loads = 0

    def __call__(self, x: int) -> list[int]:
        self.loads += 1
        return [x, self.value]


def open_cache(url: str, prefix: str, **options: Any) -> Cache:
    patient = {} if url.startswith("sqlite:") else PATIENT
    return Cache(url, prefix=prefix, **{**patient, **options})


def near_function(cache: Cache, source: Callable[[int], Any], **options: Any) -> Any:
    @cache.versioned(**{"namespace": NAMESPACE, "near": 1.0, **options})
    def f(x: int) -> Any:
        return source(x)

    return f


def is_near(f: Any, *args: Any) -> bool:
    """Whether a call was answered by the near cache."""
    before = f.cache_info().near_hits
    f(*args)
    return bool(f.cache_info().near_hits > before)


def comes_near(f: Any, *args: Any) -> None:
    """Call until the near cache answers."""
    wait_until(lambda: is_near(f, *args), "a near hit", interval=0.01)


def tier_of(cache: Cache) -> Any:
    return cache._state.heart.tier
