"""System checks: what `manage.py check` says of the caches and of the functions that use them.

    memover.E001  a decorated function cannot have the cache it names, or its namespace there
    memover.W001  the server evicts generations (`--deploy` only: it asks the server)
    memover.W002  the server refuses writes when it is full (`--deploy` only)
    memover.W003  the server could not be asked (`--deploy` only)
    memover.W004  no KEY_PREFIX on a store that others can reach (`--deploy` only)

A cache that cannot be made as it is configured needs no check of ours: Django's own make every cache, and raise
`InvalidMemoverCache`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  # Django's names

from memover.django.backend import MemoverCache
from memover.errors import ConfigurationError, StoreError
from memover.registry import owners

__all__ = ["check_functions", "check_servers"]


def check_functions(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """Whether every decorated function has its namespace to itself on the cache it names. No connection is opened."""
    found: list[CheckMessage] = []
    for owner in owners():
        alias = getattr(owner, "alias", None)
        if alias is None:
            continue
        try:
            owner.now()
        except ConfigurationError as error:
            found.append(Error(str(error), obj=owner.name, id="memover.E001"))
    return found


def check_servers(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """What the servers do when their memory is full, and who may share the keys. One round trip per alias."""
    found: list[CheckMessage] = []
    for alias in settings.CACHES:
        try:
            backend = caches[alias]
        except Exception:  # noqa: S112  # Django's own checks raise it
            continue
        if isinstance(backend, MemoverCache) and backend.cache._shared.remote:
            found += _server(alias, backend)
    return found


def _server(alias: str, backend: MemoverCache) -> Iterator[CheckMessage]:
    if not backend.prefix:
        yield Warning(
            f"The cache {alias!r} has no KEY_PREFIX.",
            hint="Every other Django project on that Redis database without one shares its keys: name the project and environment.",
            id="memover.W004",
        )
    from memover.stores.redis.commands import Command

    def asking() -> Any:
        (answer,) = yield [Command(b"memover", (b"INFO", b"memory"))]
        return answer

    try:
        store: Any = backend.cache._shared.store
        lines = store._run(asking()).decode("utf-8", "replace").splitlines()
    except StoreError as error:
        yield Warning(f"The cache {alias!r} could not be asked: {error}", hint="Is the server up?", id="memover.W003")
        return
    said = dict(line.split(":", 1) for line in lines if ":" in line)
    policy = said.get("maxmemory_policy", "")
    if said.get("maxmemory", "0") == "0":
        return
    if policy.startswith("allkeys"):
        yield Warning(
            f"The server of the cache {alias!r} evicts any key when it is full ({policy}), generations too.",
            hint="Losing one empties what is under it, and never revives an entry; with maxmemory-policy volatile-lru they stay.",
            id="memover.W001",
        )
    elif policy == "noeviction":
        yield Warning(
            f"The server of the cache {alias!r} refuses writes when it is full (noeviction).",
            hint="cache.set() then raises StoreUnavailable: set maxmemory-policy to volatile-lru or another volatile-* policy.",
            id="memover.W002",
        )
