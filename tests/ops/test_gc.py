"""`memover gc` removes tokens that no entry carries and reports left behind, and nothing that is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover import Cache

from .conftest import Project, fill

if TYPE_CHECKING:
    import redis


def test_old_versions_are_removed_and_counted(project: Project, redis_client: redis.Redis) -> None:
    """As one JSON document; key-value entries that look alike stay."""
    keys = fill(project.url, project.prefix, 10)
    project.lock()
    taken = sum(redis_client.memory_usage(key) or 0 for key in keys["profiles", 1])
    found = project.facts("gc", "--dry-run")
    assert redis_client.exists(*keys["profiles", 1]) == 10
    found = project.facts("gc")
    (row,) = [row for row in found["rows"] if row["kind"] == "entries"]
    assert row == {"kind": "entries", "namespace": "profiles", "version": 1, "removed": 10, "bytes": taken}
    assert (found["removed"], found["bytes"]) == (10, taken)
    assert redis_client.exists(*keys["profiles", 1]) == 0
    assert redis_client.exists(*keys["profiles", 2], *keys["items", 7], *keys["~kv", 3]) == 60


def test_tokens_that_no_entry_carries_go(project: Project, redis_client: redis.Redis) -> None:
    """Tags of entries that are gone, call tokens of parents that are gone; those in use and generations stay."""
    project.lock()
    with Cache(project.url, prefix=project.prefix) as cache:

        @cache.versioned(namespace="inner", ttl=600)
        def inner(n: int) -> int:
            return n

        @cache.versioned(namespace="outer", ttl=600, tags=("n:{n}",))
        def outer(n: int) -> int:
            return inner(n)

        for n in range(4):
            outer(n)
        tags = [f"{project.prefix}:tag:n:{n}" for n in range(4)]
        calls = set(redis_client.scan_iter(f"{project.prefix}:gen:inner@call*"))
        assert redis_client.exists(*tags) == 4 and len(calls) == 4
        for token in (*tags, *calls):
            redis_client.persist(token)  # as releases before tokens had a ttl left them
        redis_client.unlink(outer.key(0), outer.key(1))
        found = project.facts("gc")
        assert {row["kind"]: row["removed"] for row in found["rows"]} == {"tags": 2, "calls": 2}
        assert redis_client.exists(*tags) == 2
        assert redis_client.exists(f"{project.prefix}:gen:inner", f"{project.prefix}:gen:outer") == 2
        assert project.facts("inspect", outer.key(2))["verdict"] == "fresh"
        outer(0)
        assert project.facts("inspect", outer.key(0))["verdict"] == "fresh"


def test_reports_that_would_stay_go(project: Project, redis_client: redis.Redis) -> None:
    """Those without expiry; live ones expire by themselves."""
    project.lock()
    redis_client.set(f"{project.prefix}:report:old", b"{}")
    redis_client.set(f"{project.prefix}:report:live", b"{}", px=15_000)
    found = project.facts("gc")
    assert [(row["kind"], row["removed"]) for row in found["rows"]] == [("reports", 1)]
    assert redis_client.exists(f"{project.prefix}:report:live") == 1
