"""`memover doctor` finds what is wrong with a running cache, and says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .conftest import Project, fill
from .processes import reporting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers import RedisCluster, RedisServer, SentinelGroup


def checks(project: Project, status: int = 0) -> dict[str, Any]:
    return {each["name"]: each for each in project.facts("doctor", status=status)["checks"]}


def test_a_cache_in_order(start_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    """Every check is there, and none fails or warns."""
    server = start_redis(config={"maxmemory": "200mb", "maxmemory-policy": "volatile-lru"})
    project = Project(tmp_path, server.url, "shop")
    project.lock()
    found = checks(project)
    assert list(found) == [
        "reachable",
        "round trip",
        "version",
        "maxmemory",
        "clock",
        "replicas",
        "rights",
        "processes",
        "entries without ttl",
        "old versions",
        "tag keys",
    ]
    assert {each["status"] for each in found.values()} == {"ok"}
    assert all(set(each) == {"name", "status", "value", "advice"} for each in found.values())


def test_what_is_wrong_is_named(start_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    """No limit of memory, entries without ttl, versions of the past, two versions side by side."""
    server = start_redis()
    project = Project(tmp_path, server.url, "shop")
    project.lock()
    fill(server.url, "shop", 5)
    with reporting(server.url, "shop", "profiles", 1), reporting(server.url, "shop", "profiles", 2):
        found = checks(project)
    warned = {name for name, each in found.items() if each["status"] == "warn"}
    assert warned == {"maxmemory", "entries without ttl", "old versions", "processes"}
    assert "items version 7: 20" in found["entries without ttl"]["value"]
    assert "5 entries" in found["old versions"]["value"]
    assert "memover gc" in found["old versions"]["advice"]
    assert "profiles version 1 in 1 process, version 2 in 1 process" in found["processes"]["value"]
    assert all(found[name]["advice"] for name in warned)


def test_eviction_of_generations_is_warned_of(start_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    """A policy of allkeys evicts tokens too."""
    server = start_redis(config={"maxmemory": "200mb", "maxmemory-policy": "allkeys-lru"})
    assert checks(Project(tmp_path, server.url, "shop"))["maxmemory"]["status"] == "warn"


def test_missing_rights_are_a_failure(start_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    """Exit status 1, and what was refused."""
    server = start_redis(username="app", password="secret", acl="~shop:* +@all -eval -evalsha")
    found = checks(Project(tmp_path, server.url, "shop"), status=1)
    assert found["rights"]["status"] == "fail"
    assert "run scripts" in found["rights"]["value"]


def test_a_store_that_is_not_there_is_a_check_that_fails(tmp_path: Path) -> None:
    """Exit status 1, one check, and no traceback."""
    project = Project(tmp_path, "redis://localhost:1/0", "shop")
    (only,) = project.facts("doctor", status=1)["checks"]
    assert (only["name"], only["status"]) == ("reachable", "fail")
    assert only["advice"]


@pytest.mark.slow
def test_a_cluster_and_a_sentinel_group(
    redis_cluster: RedisCluster, sentinel_group: SentinelGroup, tmp_path: Path, prefix: str
) -> None:
    """Each primary has its row of memory; replicas are counted."""
    found = checks(Project(tmp_path, redis_cluster.url, prefix))
    assert sum(name.startswith("maxmemory ") for name in found) == 3
    assert "fail" not in {each["status"] for each in found.values()}
    found = checks(Project(tmp_path, sentinel_group.url, prefix))
    assert found["replicas"]["value"].startswith("2 replicas")
