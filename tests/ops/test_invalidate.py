"""`memover invalidate` says what it covers, does it everywhere, and refuses names that nobody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache

from .conftest import CALLS, Project, fill, foreign

if TYPE_CHECKING:
    import redis

    from tests.servers import RedisCluster


@pytest.mark.filterwarnings("ignore::memover.MemoverWarning")  # another body than filled it
def test_a_namespace_with_all_its_versions(project: Project, redis_client: redis.Redis) -> None:
    """Counted exactly, and the application sees it at once."""
    keys = fill(project.url, project.prefix)
    foreign(redis_client, project.prefix)
    loads = []

    def function(n: int) -> dict[str, Any]:
        loads.append(n)
        return {"id": n, "name": "x" * (n % 50)}

    with Cache(project.url, prefix=project.prefix) as cache:
        cached: Any = cache.versioned(namespace="profiles", version=2)(function)
        cached(1)
        assert loads == []
        found = project.facts("invalidate", "profiles", "--yes")
        assert cached.key(1) == keys["profiles", 2][1]
        cached(1)
    assert loads == [1]
    assert list(found) == ["namespace", "tag", "key", "entries", "versions", "generation", "dry_run"]
    assert found["entries"] == 2 * CALLS
    assert found["versions"] == {"1": CALLS, "2": CALLS}
    assert found["generation"] == (redis_client.get(f"{project.prefix}:gen:profiles") or b"").decode()
    assert (found["namespace"], found["tag"], found["key"], found["dry_run"]) == ("profiles", None, None, False)


def test_a_dry_run_changes_nothing(project: Project, redis_client: redis.Redis) -> None:
    """The same count, and no generation moves."""
    fill(project.url, project.prefix, 3)
    before = redis_client.get(f"{project.prefix}:gen:profiles")
    found = project.facts("invalidate", "profiles", "--dry-run")
    assert (found["entries"], found["generation"], found["dry_run"]) == (6, None, True)
    assert redis_client.get(f"{project.prefix}:gen:profiles") == before


def test_it_asks_first(project: Project, redis_client: redis.Redis) -> None:
    """With what is covered; a no changes nothing and is exit status 1."""
    fill(project.url, project.prefix, 3)
    before = redis_client.get(f"{project.prefix}:gen:profiles")
    ended = project.run("invalidate", "profiles", typed="n\n", status=1)
    assert "6 entries (version 1: 3, version 2: 3)" in ended.stderr
    assert redis_client.get(f"{project.prefix}:gen:profiles") == before
    project.run("invalidate", "profiles", typed="y\n")
    assert redis_client.get(f"{project.prefix}:gen:profiles") != before


def test_an_unknown_namespace_is_refused(project: Project, redis_client: redis.Redis) -> None:
    """With the nearest names, and without making a generation for it."""
    fill(project.url, project.prefix, 3)
    told = project.run("invalidate", "profilez", "--yes", status=1).stderr
    assert "did you mean profiles?" in told
    assert not redis_client.exists(f"{project.prefix}:gen:profilez")


def test_what_the_lock_or_a_generation_knows_is_known(project: Project) -> None:
    """Though nothing is stored now."""
    project.lock()
    assert project.facts("invalidate", "prices", "--yes")["entries"] == 0
    with Cache(project.url, prefix=project.prefix) as cache:
        cache.invalidate_namespace("once")
    assert project.facts("invalidate", "once", "--yes")["entries"] == 0


def test_a_tag(project: Project) -> None:
    """The entries that carry it, whichever function made them."""
    keys = fill(project.url, project.prefix, 3)
    assert project.facts("invalidate", "--tag", "item:4", "--yes")["versions"] == {"7": 1}
    assert project.facts("inspect", keys["items", 7][4])["verdict"] == "invalidated"
    assert project.facts("inspect", keys["items", 7][5])["verdict"] == "fresh"
    assert project.facts("invalidate", "--tag", "all", "--dry-run")["entries"] == 20
    told = project.run("invalidate", "--tag", "item:x", "--yes", status=1).stderr
    assert "did you mean item:" in told


def test_a_tag_in_a_long_header_is_seen(project: Project) -> None:
    """Headers that are longer than what a step reads are read whole."""
    tags = [f"a-rather-long-tag-that-takes-room:{n:0100}" for n in range(15)]
    with Cache(project.url, prefix=project.prefix) as cache:
        cache.versioned(namespace="many", tags=lambda call: tags)(lambda: 1)()
    assert project.facts("invalidate", "--tag", tags[14], "--dry-run")["entries"] == 1


def test_one_entry(project: Project, redis_client: redis.Redis) -> None:
    """It is gone with its lease, and what was made from it is not served any more."""
    loads = []
    with Cache(project.url, prefix=project.prefix) as cache:

        @cache.versioned(namespace="inner", ttl=600)
        def inner(n: int) -> int:
            loads.append("inner")
            return n

        @cache.versioned(namespace="outer", ttl=600)
        def outer(n: int) -> int:
            loads.append("outer")
            return inner(n)

        outer(1)
        outer(1)
        assert loads == ["outer", "inner"]
        found = project.facts("invalidate", "--key", inner.key(1), "--yes")
        assert (found["entries"], found["versions"]) == (1, {"1": 1})
        assert not redis_client.exists(inner.key(1))
        outer(1)
        assert loads == ["outer", "inner"] * 2


def test_one_key_value_entry_and_all_of_them(project: Project) -> None:
    """`--key` removes one, `~kv` moves their generation as clear() does."""
    with Cache(project.url, prefix=project.prefix) as cache:
        cache.set("a{b}c", 1)
        cache.set("d", 2)
        project.run("invalidate", "--key", f"{project.prefix}:1:a{{b}}c", "--yes")
        assert cache.get("a{b}c") is None
        assert cache.get("d") == 2
        assert project.facts("invalidate", "~kv", "--yes")["entries"] == 1
        assert cache.get("d") is None


def test_foreign_keys_are_left_alone(project: Project, redis_client: redis.Redis) -> None:
    """Exit status 2 for what is not memover's, 1 for what is not there."""
    foreign(redis_client, project.prefix)
    project.run("invalidate", "--key", f"{project.prefix}:1:profiles:notes", "--yes", status=2)
    assert redis_client.exists(f"{project.prefix}:1:profiles:notes")
    project.run("invalidate", "--key", f"{project.prefix}:1:profiles:{'0' * 32}", "--yes", status=1)
    assert "is not the key of an entry" in project.run("invalidate", "--key", "x", "--yes", status=2).stderr


@pytest.mark.parametrize("args", [(), ("a", "--tag", "b"), ("--tag", "a", "--key", "b")])
def test_one_thing_at_a_time(project: Project, args: tuple[str, ...]) -> None:
    """Anything else is exit status 2."""
    assert "one thing" in project.run("invalidate", *args, status=2).stderr


@pytest.mark.slow
def test_on_a_cluster(redis_cluster: RedisCluster, prefix: str, tmp_path: Any) -> None:
    """Namespace, tag and entry, whichever node has them."""
    keys = fill(redis_cluster.url, prefix, 20)
    project = Project(tmp_path, redis_cluster.url, prefix)
    assert project.facts("invalidate", "profiles", "--yes")["entries"] == 40
    assert project.facts("inspect", keys["profiles", 1][0])["verdict"] == "invalidated"
    assert project.facts("invalidate", "--tag", "all", "--yes")["entries"] == 20
    assert project.facts("inspect", keys["items", 7][0])["verdict"] == "invalidated"
    project.run("invalidate", "--key", keys["items", 7][3], "--yes")
    project.run("inspect", keys["items", 7][3], status=1)
