"""Counting what is left: in the process by kind of object, in the server by kind of key. Run in processes of their own."""

from __future__ import annotations

import gc
import os
import re
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import redis

_CALL_TOKEN = re.compile(r":gen:[^:@]+@")
"""A namespace's own, not the one that all tags share."""

__all__ = ["grown", "held", "kinds_of_keys", "settled", "without_expiry"]


def held() -> dict[str, int]:
    """What this process holds: memover's objects by type, all containers the collector knows, threads, descriptors."""
    gc.collect()
    gc.collect()
    objects = gc.get_objects()
    counts: Counter[str] = Counter()
    for one in objects:
        kind = type(one)
        module = getattr(kind, "__module__", "") or ""
        if isinstance(module, str) and module.split(".")[0] == "memover":
            counts[f"{module}.{kind.__qualname__}"] += 1
    counts["objects"] = len(objects)
    counts["threads"] = threading.active_count()
    if os.path.isdir("/proc/self/fd"):
        counts["descriptors"] = len(os.listdir("/proc/self/fd"))
    return dict(counts)


def settled(enough: Any, seconds: float = 20.0) -> dict[str, int]:
    """`held()` as soon as `enough(held)` is true, or after so many seconds: what is on its way out may take a moment."""
    import time

    deadline = time.monotonic() + seconds
    while True:
        now = held()
        if enough(now) or time.monotonic() > deadline:
            return now
        time.sleep(0.1)


def grown(before: dict[str, int], after: dict[str, int], allowed: int) -> dict[str, int]:
    """What has become more than `allowed` more."""
    return {kind: after[kind] - before.get(kind, 0) for kind in after if after[kind] - before.get(kind, 0) > allowed}


def kinds_of_keys(client: redis.Redis, prefix: str) -> dict[str, int]:
    """How many keys of each kind a server holds."""
    counts: Counter[str] = Counter()
    for key in client.scan_iter(count=5000):
        name = key.decode("latin-1")
        if name.startswith("{"):
            kind = "lease"
        else:
            kind = name.removeprefix(f"{prefix}:").partition(":")[0]
            if _CALL_TOKEN.search(name):
                kind = "call token"
            elif kind.isdigit():
                kind = "entry"
        counts[kind] += 1
    return dict(counts)


def without_expiry(client: redis.Redis, prefix: str) -> dict[str, int]:
    """The same of those keys alone that have no ttl."""
    names = list(client.scan_iter(count=5000))
    counts: Counter[str] = Counter()
    for first in range(0, len(names), 1000):
        chunk = names[first : first + 1000]
        with client.pipeline(transaction=False) as pipeline:
            for name in chunk:
                pipeline.pttl(name)
            for name, left in zip(chunk, pipeline.execute()):
                if left == -1:
                    text = name.decode("latin-1")
                    kind = text.removeprefix(f"{prefix}:").partition(":")[0]
                    counts["call token" if _CALL_TOKEN.search(text) else kind] += 1
    return dict(counts)
