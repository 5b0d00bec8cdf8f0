"""Whatever a stranger leaves under our keys: a call returns what its function returns, never hangs, and hits again soon."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memover import Cache, ConfigurationError, versioned_cache
from memover.engine.tokens import FLOOR_LIMIT, GARBAGE
from memover.keys.names import lease_key
from tests.servers import wait_until

if TYPE_CHECKING:
    import redis

    from tests.face.ways import Way

NONCE = "0123456789abcdef"
NOW = 1_790_000_000_000_000
TYPES: dict[str, tuple[Any, ...]] = {
    "list": ("RPUSH", "k", "a", "b"),
    "hash": ("HSET", "k", "a", "b"),
    "set": ("SADD", "k", "a"),
    "zset": ("ZADD", "k", "1", "a"),
    "stream": ("XADD", "k", "*", "a", "b"),
    "hyperloglog": ("PFADD", "k", "a"),
    "integer": ("SET", "k", "17"),
    "empty": ("SET", "k", ""),
    "text": ("SET", "k", "hello"),
    "unicode": ("SET", "k", "Grüße ✓ \u202e"),
    "binary": ("SET", "k", bytes(range(256))),
    "pickle": ("SET", "k", b"\x80\x04K\x01."),
    "newlines": ("SET", "k", b"\r\n+OK\r\n$-1\r\n"),
    "huge": ("SETRANGE", "k", 8_000_000, "x"),
}
TOKENS: dict[str, str] = {
    "n beyond every number": f"{10**30}-{NONCE}",
    "n of 16 digits": f"9999999999999999-{NONCE}",
    "n at the limit": f"{GARBAGE}-{NONCE}",
    "n below the limit": f"{GARBAGE - 1}-{NONCE}",
    "n two below the limit": f"{GARBAGE - 2}-{NONCE}",
    "n at the floor's limit": f"{FLOOR_LIMIT}-{NONCE}",
    "n below the floor's limit": f"{FLOOR_LIMIT - 1}-{NONCE}",
    "n of next century": f"{NOW * 2}-{NONCE}",
    "negative": f"-5-{NONCE}",
    "zero": f"0-{NONCE}",
    "fraction": f"1.5-{NONCE}",
    "exponent": f"1e15-{NONCE}",
    "hexadecimal": f"0x10-{NONCE}",
    "other digits": f"\u0661\u0662\u0663-{NONCE}",
    "no nonce": f"{NOW}-",
    "short nonce": f"{NOW}-abc",
    "upper nonce": f"{NOW}-{NONCE.upper()}",
    "long nonce": f"{NOW}-{NONCE}{NONCE}",
    "newline": f"{NOW}-{NONCE}\n",
    "spaces": f" {NOW}-{NONCE}",
    "comma": f"{NOW}-{NONCE},{NOW}-{NONCE}",
}


def cached(way: Way) -> tuple[Any, list[int]]:
    loads: list[int] = []

    @way.cached(wait_timeout=0.3, lease_ttl=1)
    def f(x: int) -> list[Any]:
        loads.append(x)
        return [x, "value"]

    return f, loads


def well(way: Way, f: Any, loads: list[int], x: int = 1) -> None:
    """Calls are right, and after two at most they are hits; helpers work; invalidations work."""
    for _ in range(2):
        assert way.run(f(x)) == [x, "value"]
    hits = f.cache_info().hits
    assert way.run(f(x)) == [x, "value"]
    assert f.cache_info().hits == hits + 1, "no hit"
    assert way.run(f.peek(x)).value == [x, "value"]
    for helper in (lambda: f.invalidate(x), f.invalidate_all):
        count = len(loads)
        way.run(helper())
        assert way.run(f(x)) == [x, "value"]
        assert len(loads) == count + 1, "the entry survived its invalidation"
        hits = f.cache_info().hits
        assert way.run(f(x)) == [x, "value"]
        assert f.cache_info().hits == hits + 1, "no hit after an invalidation"


def put(client: redis.Redis, command: tuple[Any, ...], key: str) -> None:
    client.delete(key)
    client.execute_command(*[key if word == "k" else word for word in command])


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("where", ["entry", "generation", "lease"])
def test_bytes_and_types_of_strangers(where: str, kind: str, redis_way: Way, redis_client: redis.Redis) -> None:
    """Another type or other bytes under an entry, a generation or a lease: a miss, and overwritten."""
    f, loads = cached(redis_way)
    redis_way.run(f(1))
    key = {
        "entry": f.key(1),
        "generation": f"{redis_way.prefix}:gen:{f.namespace}",
        "lease": lease_key(f.key(1)),
    }[where]
    if where == "lease":
        redis_client.delete(f.key(1))
    put(redis_client, TYPES[kind], key)
    well(redis_way, f, loads)
    put(redis_client, TYPES[kind], key)
    if where == "generation":
        redis_way.run(f.invalidate_all())
    redis_way.run(f.invalidate(1))
    well(redis_way, f, loads)
    assert f.cache_info().store_errors == 0


@pytest.mark.parametrize("text", TOKENS.values(), ids=TOKENS.keys())
def test_tokens_of_strangers(text: str, redis_way: Way, redis_client: redis.Redis) -> None:
    """A token that is none, or absurd: no entry is revived by it, no client is led astray for good."""
    f, loads = cached(redis_way)
    redis_way.run(f(1))
    name = f"{redis_way.prefix}:gen:{f.namespace}"
    redis_client.set(name, text)
    well(redis_way, f, loads)
    # One that knows nothing of the past and one that does agree.
    other = redis_way.new_cache()
    g, also = cached_on(redis_way, other, f.namespace, loads)
    well(redis_way, g, also)
    well(redis_way, f, loads)
    redis_client.set(name, text)
    redis_way.run(f.invalidate_all())
    token = redis_client.get(name)
    assert token is not None
    assert token != text.encode()
    well(redis_way, f, loads)


def cached_on(way: Way, cache: Cache, namespace: str, loads: list[int]) -> tuple[Any, list[int]]:
    def f(x: int) -> list[Any]:
        loads.append(x)
        return [x, "value"]

    decorate = versioned_cache(cache=cache, namespace=f"{namespace}", wait_timeout=0.3, lease_ttl=1)
    # Of one source: the same function decorated on another cache.
    f.__qualname__ = "cached.<locals>.f"
    f.__module__ = cached.__module__
    return decorate(way.flavoured(f)), loads


@pytest.mark.parametrize(
    "lease",
    [
        "L stranger {tokens}",
        "L stranger",
        "L  {tokens}",
        "L {nonce} {tokens}",
        "L \udcff\udcfe {tokens}",
        "F stranger",
        "F ",
        "L",
        "",
        "X",
    ],
)
@pytest.mark.parametrize("ttl", [None, 3])
def test_leases_of_strangers(ttl: int | None, lease: str, redis_way: Way, redis_client: redis.Redis) -> None:
    """A lease that nobody of ours took: one that never ends counts for nothing, another for as long as it lasts."""
    f, loads = cached(redis_way)
    redis_way.run(f(1))
    token = redis_client.get(f"{redis_way.prefix}:gen:{f.namespace}") or b""
    text = lease.format(tokens=token.decode(), nonce=NONCE).encode("utf-8", "surrogateescape")
    redis_client.delete(f.key(1))
    redis_client.set(lease_key(f.key(1)), text, px=None if ttl is None else ttl * 100)
    assert redis_way.run(f(1)) == [1, "value"]
    if ttl is not None:
        redis_way.run(f.invalidate(1))
    well(redis_way, f, loads)


# -- entries --------------------------------------------------------------------------------------------------------------


def test_entries_of_other_versions_prefixes_and_calls(redis_way: Way, redis_client: redis.Redis) -> None:
    """Bytes copied from another key are foreign, whatever key that was: its name is in them."""
    f, loads = cached(redis_way)
    redis_way.run(f(1))
    redis_way.run(f(2))
    elsewhere = redis_way.new_cache(prefix=f"{redis_way.prefix}x")
    g, _ = cached_on(redis_way, elsewhere, f.namespace, [])
    redis_way.run(g(1))
    for source in (f.key(2), g.key(1)):
        raw = redis_client.get(source)
        redis_client.set(f.key(1), raw)
        redis_client.set(f.at(7).key(1), raw)
        damaged = f.cache_info().damaged
        assert redis_way.run(f.at(7).peek(1)) is None
        assert redis_way.run(f.peek(1)) is None
        assert f.cache_info().damaged == damaged + 2
        well(redis_way, f, loads)


def test_no_bit_of_an_entry_may_flip(way_of: Any, redis_url: str, redis_client: redis.Redis) -> None:
    """Every single flipped bit and every truncation is a miss; the value that comes is always the function's."""
    way = way_of(redis_url)
    f, loads = cached(way)
    way.run(f(1))
    raw = redis_client.get(f.key(1))
    assert raw is not None
    rng = random.Random(3)
    places = range(len(raw) * 8) if not way.is_async else rng.sample(range(len(raw) * 8), 100)
    for bit in places:
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        redis_client.set(f.key(1), bytes(flipped))
        assert way.run(f.peek(1)) is None, f"bit {bit}"
    for length in range(len(raw)):
        redis_client.set(f.key(1), raw[:length])
        assert way.run(f.peek(1)) is None, f"length {length}"
    redis_client.set(f.key(1), raw + b"\0")
    assert way.run(f.peek(1)) is None
    redis_client.set(f.key(1), raw)
    assert way.run(f.peek(1)) is not None
    well(way, f, loads)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), where=st.sampled_from(["entry", "generation", "lease"]))
def test_any_bytes_anywhere(data: bytes, where: str, redis_url: str, prefix: str, redis_client: redis.Redis) -> None:
    """Random bytes under any key of a call: its value is right, and no exception comes of it."""
    with Cache(redis_url, prefix=prefix) as cache:

        @cache.versioned(namespace="any", wait_timeout=0.3, lease_ttl=1)
        def f(x: int) -> list[int]:
            return [x]

        keys = {"entry": f.key(1), "generation": f"{prefix}:gen:any", "lease": lease_key(f.key(1))}
        redis_client.set(keys[where], data)
        assert f(1) == [1]
        f.invalidate(1)
        f.invalidate_all()
        assert f(1) == [1]
        assert f.peek(1) is not None


def test_a_huge_value_under_a_key_of_ours_does_not_take_the_store_down(
    way_of: Any, redis_url: str, redis_client: redis.Redis
) -> None:
    """A stranger's 60 MB under one entry: at most this call suffers, and `invalidate` is the way out."""
    way = way_of(redis_url)
    f, loads = cached(way)
    way.run(f(2))
    redis_client.setrange(f.key(1), 60_000_000, "x")
    assert way.run(f(1)) == [1, "value"]
    way.run(f.invalidate(1))
    wait_until(lambda: way.run(f.peek(2)) is not None, "the store to be asked again")
    well(way, f, loads)


# -- names and numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a:b", "a{b}", "a b", "a\nb", "ä", "", "a" * 201, "a\0", "*", "a%b"])
def test_names_that_could_mean_two_things_are_refused(name: str) -> None:
    """A namespace or prefix with `:`, braces, blanks, newlines or other letters is a `ConfigurationError`."""
    with pytest.raises(ConfigurationError):
        versioned_cache(namespace=name)
    with pytest.raises(ConfigurationError):
        Cache(prefix=name)


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", None, 2**63])
def test_versions_that_are_none_are_refused(version: Any, way: Way) -> None:
    """A version is a positive int, at decoration and for `at()`."""
    with pytest.raises(ConfigurationError):
        versioned_cache(namespace="n", version=version)
    f, _ = cached(way)
    with pytest.raises(ConfigurationError):
        f.at(version)


ARGUMENTS = ["a:b", "{a}", "}{", "a}b", "{", "\r\n", "\0", "ä✓\u202e", "", "x" * 5000, "*", "[a-z]", "%7B", "\ud800"]


@pytest.mark.parametrize("template", [None, "{x}", "{x}:{y}"])
def test_arguments_with_every_kind_of_character(template: str | None, redis_way: Way) -> None:
    """Texts with `:`, braces, newlines, NUL and unicode are keys like any other, and all different."""
    loads: list[Any] = []

    @redis_way.cached(key=template)
    def f(x: str, y: str = "y") -> list[str]:
        loads.append((x, y))
        return [x.encode("utf-8", "surrogatepass").hex(), y]

    for _ in range(2):
        for x in ARGUMENTS:
            assert redis_way.run(f(x)) == [x.encode("utf-8", "surrogatepass").hex(), "y"]
    assert len(loads) == len(set(ARGUMENTS))
    for x in ARGUMENTS:
        redis_way.run(f.invalidate(x))
        assert redis_way.run(f.peek(x)) is None
    assert len({f.key(x) for x in ARGUMENTS}) == len(ARGUMENTS)


def test_braces_share_a_slot_with_their_lease(redis_cluster: Any, way_of: Any) -> None:
    """In Cluster an entry and its lease are in one slot, whatever is in the arguments."""
    way = way_of(redis_cluster.url)

    @way.cached(key="{x}")
    def f(x: str) -> str:
        return x

    for x in ARGUMENTS[:-1]:
        assert way.run(f(x)) == x
        assert way.run(f(x)) == x
    assert f.cache_info().hits == len(ARGUMENTS) - 1
    assert f.cache_info().store_errors == 0


@pytest.mark.parametrize("ttl", [1e-9, 1e9, 1e15, 1e300, "100000w", None, float("inf"), 10**400])
def test_absurd_times_are_refused_or_work(ttl: Any, way: Way) -> None:
    """A time to live, a lease or a wait of any length: hits, or for a moment's ttl misses, and no exception."""
    loads: list[int] = []
    endless = ttl is None or ttl == float("inf") or ttl == 10**400
    options = {} if endless else {"lease_ttl": ttl, "wait_timeout": ttl}

    @way.cached(ttl=ttl, **options)
    def f(x: int) -> int:
        loads.append(x)
        return x

    assert [way.run(f(1)) for _ in range(3)] == [1, 1, 1]
    assert len(loads) == (3 if ttl == 1e-9 else 1)
    assert f.cache_info().store_errors == 0


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("-inf"), True, "", "5 parsecs", b"5", [5]])
def test_times_that_are_none_are_refused(ttl: Any) -> None:
    """Zero, negative, not a number, not a duration: a `ConfigurationError` at decoration."""
    with pytest.raises(ConfigurationError):
        versioned_cache(namespace="n", ttl=ttl)
    with pytest.raises(ConfigurationError):
        Cache(ttl=ttl)


def test_waiting_for_ever_is_possible(way: Way) -> None:
    """Followers with an absurd `wait_timeout` wait as long as the load takes, and no clock overflows."""
    import threading

    go = threading.Event()

    @way.cached(wait_timeout=1e300, lease_ttl=1e300)
    def f(x: int) -> int:
        if not way.is_async:
            go.wait(30)
        return x

    if way.is_async:
        import asyncio

        async def both() -> list[int]:
            return list(await asyncio.gather(f(1), f(1)))

        assert way.run(both()) == [1, 1]
        return
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(f(1))) for _ in range(3)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(30)
    assert results == [1, 1, 1]
    assert f.cache_info().loads == 1
