"""Going through the keys of a Redis in bounded steps: SCAN, node by node, and UNLINK for what is not wanted.

A step is one SCAN and, for what it found, one pipeline each of GETRANGE with MEMORY USAGE and of UNLINK: Redis is never
held up for longer than a SCAN of `step` keys takes. Keys that are no entries of calls are left alone: foreign ones, and
those of the key-value API, whose keys may look alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from memover.codec.envelope import KIND_AT, KIND_KEY_VALUE, MAGIC
from memover.stores.redis.connect import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memover.stores.redis.connect import Node
    from memover.stores.redis.store import RedisStore

__all__ = ["Swept", "keys_in_all", "remove_prefix", "sweep"]


class Swept(NamedTuple):
    """One step: how many keys were looked at, at most, and each unwanted entry with the bytes it took."""

    looked_at: int
    entries: tuple[tuple[bytes, int], ...]


def keys_in_all(store: RedisStore) -> int:
    """DBSIZE of every node: how much there is to look at. One round trip per node. Raises `StoreError`."""
    return sum(int(store.visit(node, [(b"DBSIZE",)])[0]) for node in store.nodes())


def sweep(
    store: RedisStore, prefix: str, unwanted: Callable[[bytes], bool], *, step: int, remove: bool
) -> Iterator[Swept]:
    """Go through all keys of a prefix and remove the unwanted entries, or only name them. Raises `StoreError`."""
    pattern = f"{prefix}:[1-9]*:*".encode()
    for node in store.nodes():
        for keys in _pages(store, node, pattern, step):
            yield Swept(step, tuple(_entries(store, node, [key for key in keys if unwanted(key)], remove)))


def _entries(store: RedisStore, node: Node | None, keys: list[bytes], remove: bool) -> Iterator[tuple[bytes, int]]:
    if not keys:
        return
    asked: list[tuple[bytes, ...]] = [
        each for key in keys for each in ((b"GETRANGE", key, b"0", b"%d" % KIND_AT), (b"MEMORY", b"USAGE", key))
    ]
    answers = store.visit(node, asked)
    sizes = {
        key: size
        for key, head, size in zip(keys, answers[::2], answers[1::2])
        if isinstance(size, int) and isinstance(head, bytes) and _of_a_call(head)
    }
    # One command for each: in a cluster the keys of one node are in many slots.
    gone = store.visit(node, [(b"UNLINK", key) for key in sizes]) if remove and sizes else [1] * len(sizes)
    for (key, size), answer in zip(sizes.items(), gone):
        if answer == 1:
            yield key, size


def _of_a_call(head: bytes) -> bool:
    return len(head) > KIND_AT and head.startswith(MAGIC) and head[KIND_AT] != KIND_KEY_VALUE


def _pages(store: RedisStore, node: Node | None, pattern: bytes, step: int) -> Iterator[list[bytes]]:
    cursor = b"0"
    while True:
        (answer,) = store.visit(node, [(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % step)])
        if isinstance(answer, Exception):
            raise translated(answer, store.address)
        cursor, keys = answer
        yield keys
        if cursor == b"0":
            return


def remove_prefix(store: RedisStore, prefix: str, *, step: int = 1000) -> None:
    """Remove every key of a prefix, leases and generations too: for tests, which own theirs. Raises `StoreError`."""
    for pattern in (f"{prefix}:*", f"{{{prefix}:*"):
        for node in store.nodes():
            for keys in _pages(store, node, pattern.encode(), step):
                if keys:
                    store.visit(node, [(b"UNLINK", key) for key in keys])
