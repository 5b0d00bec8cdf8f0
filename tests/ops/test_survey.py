"""A survey goes through a store in bounded steps, sees each key, and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from memover import ConfigurationError, StoreError
from memover.stores.survey import open_survey

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.servers import RedisCluster, RedisServer, SentinelGroup


def every_key(survey: Any, pattern: bytes, step: int = 1000) -> set[bytes]:
    return {key for page in survey.keys(pattern, step) for key in page.keys}


def test_every_key_is_seen_in_steps(start_redis: Callable[..., RedisServer]) -> None:
    """All of them, with SCANs of the size that was asked for, and no KEYS."""
    server = start_redis()
    with server.client() as client:
        client.mset({f"a:{n}": n for n in range(3000)} | {f"b:{n}": n for n in range(100)})
    survey = open_survey(server.url)
    with server.recording() as calls:
        found = every_key(survey, b"a:*", 100)
        assert survey.total() == 3100
    survey.close()
    assert found == {f"a:{n}".encode() for n in range(3000)}
    words = [str(call).split()[0] for call in calls]
    assert words.count("SCAN") >= 31
    assert set(words) == {"SCAN", "DBSIZE"}


def test_a_look_at_many_keys_is_one_round_trip(redis_url: str, redis_client: redis.Redis, prefix: str) -> None:
    """Size, expiry and the first bytes, whatever stands under a key; None for what is gone."""
    redis_client.set(f"{prefix}:s", b"abcdef", px=60_000)
    redis_client.set(f"{prefix}:p", b"x" * 5000)
    redis_client.rpush(f"{prefix}:l", 1)
    survey = open_survey(redis_url)
    names = [f"{prefix}:{each}".encode() for each in ("s", "p", "l", "none")]
    text, long, other, none = survey.facts(names, 4)
    assert text is not None and long is not None and other is not None
    assert (text.head, long.head, other.head, none) == (b"abcd", b"xxxx", b"", None)
    assert text.expires_ms is not None and 50_000 < text.expires_ms <= 60_000
    assert long.expires_ms is None
    assert long.size == redis_client.memory_usage(f"{prefix}:p")
    assert survey.value(names[0]) == b"abcdef"
    assert survey.value(names[2]) is None
    assert survey.tokens(names) == [b"abcdef", b"x" * 5000, None, None]
    assert survey.unlink(names) == [True, True, True, False]
    survey.close()


def test_what_a_user_may_not_do_is_said(start_redis: Callable[..., RedisServer]) -> None:
    """And sizes are guessed where MEMORY USAGE is refused."""
    server = start_redis(username="app", password="secret", acl="~shop:* +@all -memory|usage -unlink")
    with server.client() as client:
        client.set("shop:1:a:b", b"x" * 100)
    survey = open_survey(server.url)
    refused = {right.name: right.detail for right in survey.rights("shop") if not right.allowed}
    assert set(refused) == {"measure keys", "write keys"}
    assert "unlink" in refused["write keys"]
    (facts,) = survey.facts([b"shop:1:a:b"])
    assert facts is not None and facts.size >= 100
    survey.close()


def test_a_server_describes_itself(start_redis: Callable[..., RedisServer]) -> None:
    """Version, memory, policy, role, replicas and clock."""
    server = start_redis(config={"maxmemory": "100mb", "maxmemory-policy": "volatile-lfu"})
    survey = open_survey(server.url)
    (facts,) = survey.servers()
    assert facts.product == "Redis" and facts.version == server.info("server")["redis_version"]
    assert facts.memory_limit == 100 * 1024 * 1024
    assert (facts.policy, facts.role, facts.replicas) == ("volatile-lfu", "primary", 0)
    assert facts.clock is not None and facts.clock > 1.7e9
    assert all(0 < each < 5 for each in survey.latency(5))
    survey.close()


@pytest.mark.slow
def test_a_cluster_is_gone_through_node_by_node(redis_cluster: RedisCluster, prefix: str) -> None:
    """Each key once, facts and tokens from whichever node has it, removal included."""
    names = [f"{prefix}:{n}".encode() for n in range(300)]
    with redis_cluster.client() as client:
        for name in names:
            client.set(name, name, px=60_000)
        survey = open_survey(redis_cluster.url)
        assert every_key(survey, f"{prefix}:*".encode(), 20) == set(names)
        assert [each.head for each in survey.facts(names) if each is not None] == names
        assert survey.tokens(names) == names
        assert len(survey.servers()) == 3
        survey.put(f"{prefix}:report:x".encode(), b"{}", 60_000)
        assert client.get(f"{prefix}:report:x") == b"{}"
        assert all(survey.unlink(names))
        assert [client.exists(name) for name in names] == [0] * 300
        survey.close()


@pytest.mark.slow
def test_behind_sentinel_the_primary_is_looked_at(sentinel_group: SentinelGroup, prefix: str) -> None:
    """The one that the sentinels name."""
    survey = open_survey(sentinel_group.url)
    survey.put(f"{prefix}:report:x".encode(), b"{}", 60_000)
    assert every_key(survey, f"{prefix}:*".encode()) == {f"{prefix}:report:x".encode()}
    (facts,) = survey.servers()
    assert (facts.role, facts.replicas) == ("primary", 2)
    survey.close()


def test_no_server_is_a_store_error() -> None:
    """From every method, and only when it is used."""
    survey = open_survey("redis://localhost:1/0")
    for look in (survey.total, survey.servers, lambda: survey.tokens([b"x"]), lambda: list(survey.keys(b"*"))):
        with pytest.raises(StoreError):
            look()


@pytest.mark.parametrize("url", ["memory://", "", "postgres://x", "localhost:6379"])
def test_what_cannot_be_looked_into_is_refused(url: str) -> None:
    """With the URLs that can."""
    with pytest.raises(ConfigurationError, match="redis://"):
        open_survey(url)
