"""Entries that expand: a reader's cost is bounded by what is stored, and what a writer stores its readers read."""

from __future__ import annotations

import struct
import zlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memover import Cache
from memover.codec import compression
from memover.codec.compression import NONE, ZLIB, compress, expand
from memover.codec.envelope import read_header, rewritten
from memover.codec.mv1 import codec as mv1
from memover.codec.mv1 import format as f
from memover.codec.mv1.format import extension
from memover.codec.mv1.limits import few_objects
from memover.errors import DamagedEntry
from tests.codec.same import same

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

FREE = 1_000
MANY = 20_000


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some objects are free, so that small payloads show what large ones come to."""
    monkeypatch.setattr(mv1, "OBJECTS_FREE", FREE)


def test_bytes_expand_to_a_number_of_times_their_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past a free length; the writer keeps to it as the reader does."""
    monkeypatch.setattr(compression, "FREE_BYTES", 1 << 20)
    payloads = [bytes(1 << 20), bytes((1 << 20) + 1), bytes(1 << 23), b"ab" * (1 << 22), bytes(range(256)) * (1 << 14)]
    for payload in payloads:
        flag, stored = compress(payload)
        assert expand(flag, stored, limit_bytes=1 << 24) == payload
    assert [compress(payload)[0] != NONE for payload in payloads[:3]] == [True, False, False]
    with pytest.raises(DamagedEntry) as caught:
        expand(ZLIB, zlib.compress(bytes(1 << 23)), limit_bytes=1 << 24)
    assert caught.value.reason == "too-large"


EMPTY: Any = [[]] * MANY
BOMBS: dict[str, Callable[[], bytes]] = {
    "lists": lambda: msgpack.packb(EMPTY),
    "marked lists": lambda: b"\xc1\x00" + msgpack.packb(EMPTY),
    "maps": lambda: msgpack.packb([{}] * MANY),
    "pairs": lambda: msgpack.packb([{0: 0}] * MANY),
    "extensions": lambda: msgpack.packb([extension(f.DECIMAL, b"1")] * MANY),
    "tuples": lambda: b"\xc1\x00" + msgpack.packb([[extension(f.TUPLE, b"")]] * MANY),
    "numbers": lambda: msgpack.packb([0] * MANY),
    "lengths": lambda: (b"\xdd" + struct.pack(">I", 5 * MANY)) * 1_000 + b"\x90" * 5 * MANY,
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("kind", ["function", "key-value"])
def test_more_objects_than_the_bytes_account_for_are_a_miss(
    name: str, kind: str, few: None, redis_url: str, prefix: str, redis_client: redis.Redis
) -> None:
    """A poisoned entry is a counted miss; the function runs, and what it returns is a hit."""
    with Cache(redis_url, prefix=prefix) as cache:

        @cache.versioned(namespace="f")
        def function(x: int) -> Any:
            return x

        cache.set("k", 1)
        key = function.key(1) if kind == "function" else f"{prefix}:1:k"
        assert function(1) == 1
        raw = redis_client.get(key)
        assert isinstance(raw, bytes)
        squeezed = zlib.compress(BOMBS[name](), 9)
        assert len(squeezed) < FREE
        bomb = rewritten(raw, read_header(raw, key.encode()), payload=squeezed, codec="mv1", compression=ZLIB)
        redis_client.set(key, bomb)
        if kind == "key-value":
            assert cache.get("k", "missing") == "missing"
            return
        assert function(1) == function(1) == 1
        info = function.cache_info()
        assert info.damaged
        assert (info.loads, info.hits) == (2, 1)


def test_a_small_entry_of_sixty_million_lists_is_a_miss(redis_url: str, prefix: str, redis_client: redis.Redis) -> None:
    """With the limits as they are."""
    with Cache(redis_url, prefix=prefix) as cache:

        @cache.versioned(namespace="f")
        def function(x: int) -> Any:
            return x

        function(1)
        raw = redis_client.get(function.key(1))
        assert isinstance(raw, bytes)
        squeeze = zlib.compressobj(9)
        parts = [squeeze.compress(b"\xdd" + struct.pack(">I", 60_000_000))]
        parts += [squeeze.compress(b"\x90" * 1_000_000) for _ in range(60)]
        squeezed = b"".join((*parts, squeeze.flush()))
        header = read_header(raw, function.key(1).encode())
        redis_client.set(function.key(1), rewritten(raw, header, payload=squeezed, compression=ZLIB))
        assert function(1) == 1
        assert function.cache_info().damaged


VALUES: dict[str, Any] = {
    "lists": EMPTY,
    "maps": [{}] * MANY,
    "tuples": [()] * MANY,
    "decimals": [Decimal(1)] * MANY,
    "pairs": [{0: ()}] * MANY,
    "rows": [{"name": "a", "tags": ["b", "c"], "at": 1.5}] * MANY,
    "timestamps": [msgpack.Timestamp(1, 1)] * MANY,
    "bytes": bytes(MANY * 10),
}


@pytest.mark.parametrize("name", VALUES)
def test_what_a_writer_stores_its_readers_read(
    name: str, few: None, redis_url: str, prefix: str, redis_client: redis.Redis
) -> None:
    """What would expand too far is stored without compression, what does not is compressed, and both are hits."""
    value = VALUES[name]
    with Cache(redis_url, prefix=prefix) as cache:

        @cache.versioned(namespace="f")
        def function(x: int) -> Any:
            return value

        assert same(function(1), value)
        assert same(function(1), value)
        info = function.cache_info()
        assert (info.loads, info.hits, info.damaged) == (1, 1, 0)
        raw = redis_client.get(function.key(1))
        assert isinstance(raw, bytes)
        assert bool(read_header(raw, function.key(1).encode()).compression) == (name == "bytes")
        cache.set("k", value)
        assert same(cache.get("k"), value)


def test_a_key_value_entry_longer_than_a_reader_expands_is_read(redis_url: str, prefix: str) -> None:
    """It is stored without compression."""
    with Cache(redis_url, prefix=prefix, expanded_limit=10_000) as cache:
        cache.set("k", "x" * 20_000)
        assert cache.get("k") == "x" * 20_000


PARTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.frozensets(st.integers(0, 9), max_size=3)
    ),
    max_leaves=12,
)


@given(part=PARTS, times=st.integers(1, 4_000), free=st.sampled_from([4, 100, 10_000]))
@settings(deadline=None, max_examples=25)
def test_whatever_is_encoded_and_compressed_is_read_back(part: Any, times: int, free: int) -> None:
    """Any value, repeated so that it compresses well, under small limits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mv1, "OBJECTS_FREE", free)
        patch.setattr(compression, "FREE_BYTES", free * 10)
        value = [part] * times
        with Cache("memory://", compress_from=1) as cache:

            @cache.versioned(namespace="f")
            def function() -> Any:
                return value

            function()
            entry = function.peek()
            assert entry is not None
            assert same(entry.value, value)
            assert function.cache_info().damaged == 0


@pytest.mark.parametrize(
    ("document", "weight"),
    [
        (extension(f.DECIMAL, b"1"), 8),
        (extension(f.IPADDRESS, b"\x00127.0.0.1"), 8),
        (extension(f.IPADDRESS, b"\x03::/0"), 64),
        (extension(f.IPADDRESS, b"\x05::/0"), 64),
        ([extension(f.NUMPY_ARRAY, b""), "<f8", [0], 0, b""], 64),
        ([extension(f.NUMPY_OBJECTS, b""), [0], 0], 64),
        ([extension(f.FRAME, b""), "polars.DataFrame", {}, bytes(400)], 1024),
        ([extension(f.TUPLE, b"")], 0),
    ],
    ids=["decimal", "address", "network", "interface", "array", "objects", "frame", "tuple"],
)
def test_what_takes_long_to_make_counts_for_more(document: Any, weight: int) -> None:
    """Of scalars and arrays fewer fit into as many stored bytes as of empty lists: a few kilobytes are no long hit."""
    many = 2_000
    body = msgpack.packb([document] * many)
    counts = counted(document) + weight
    assert few_objects(body, 1 + many * counts)
    assert not few_objects(body, many * counts)


@given(PARTS, st.integers(1, 60))
@settings(deadline=None)
def test_objects_are_counted(value: Any, limit: int) -> None:
    """A payload has few objects for a limit iff what it is read as does, or it is no longer than the limit."""
    plain = msgpack.unpackb(msgpack.packb(value, default=str), strict_map_key=False)
    body = msgpack.packb(plain)
    assert few_objects(body, limit) == (len(body) <= limit or counted(plain) <= limit)


def counted(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(counted(key) + counted(each) for key, each in value.items())
    return 1 + (sum(map(counted, value)) if isinstance(value, list) else 0)
