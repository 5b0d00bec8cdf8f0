"""`memover ls` counts what there is: against the truth, in bounded steps, without touching anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.progress import Progress

from memover import Cache
from memover.cli.running import progress

from .conftest import CALLS, Project, fill, foreign

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import redis

    from tests.servers import RedisCluster, RedisServer


def test_every_entry_is_counted_and_nothing_else(project: Project, redis_client: redis.Redis) -> None:
    """Entries, bytes, those without expiry, generation and when it moved, for each version of each namespace."""
    keys = fill(project.url, project.prefix)
    foreign(redis_client, project.prefix)
    rows = {(row["namespace"], row["version"]): row for row in project.facts("ls")["rows"]}
    assert set(rows) == set(keys)
    for place, names in keys.items():
        row = rows[place]
        assert row["entries"] == len(names)
        assert row["bytes"] == sum(redis_client.memory_usage(name) or 0 for name in names)
        assert row["no_ttl"] == (20 if place == ("items", 7) else 0)
        generation = redis_client.get(f"{project.prefix}:gen:{place[0]}")
        assert generation is not None
        assert row["generation"] == generation.decode()
        assert row["moved_at"] == int(generation.partition(b"-")[0]) / 1e6
        assert row["locked"] == "unknown"


def test_the_lock_says_which_versions_are_old(project: Project) -> None:
    """Current, old, and what it does not know."""
    fill(project.url, project.prefix, 3)
    project.lock()
    locked = {(row["namespace"], row["version"]): row["locked"] for row in project.facts("ls")["rows"]}
    assert locked == {
        ("profiles", 1): "old",
        ("profiles", 2): "current",
        ("items", 7): "unknown",
        ("~kv", 3): "unknown",
    }


def test_a_pattern_chooses(project: Project) -> None:
    """Namespaces as the shell would; exit status 1 and the nearest name when there is none."""
    fill(project.url, project.prefix, 3)
    assert {row["namespace"] for row in project.facts("ls", "pro*")["rows"]} == {"profiles"}
    ended = project.run("ls", "profilez", status=1)
    assert "did you mean profiles?" in ended.stderr
    assert project.facts("ls", "nothing", status=1)["rows"] == []


def test_a_wrong_prefix_names_the_right_ones(project: Project) -> None:
    """Exit status 1, and the prefixes that there are."""
    fill(project.url, project.prefix, 3)
    ended = project.run("ls", "--prefix", f"{project.prefix}z", status=1)
    assert "there are no entries under the prefix" in ended.stderr


def test_looking_is_scans_alone(start_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    """No KEYS and nothing that writes; the number of commands follows the number of keys, and none is large."""
    server = start_redis()
    fill(server.url, "shop")
    project = Project(tmp_path, server.url, "shop")
    with server.recording() as calls:
        project.run("ls", "--step", "50")
    words = {" ".join(str(call).split()[:1]) for call in calls}
    assert words <= {"SCAN", "GETRANGE", "PTTL", "MEMORY", "DBSIZE", "MGET", "CLIENT"}
    assert sum(str(call).startswith("SCAN") for call in calls) >= CALLS * 2 // 100


def test_looking_is_no_use(start_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    """Where the server can leave it out (CLIENT NO-TOUCH, 7.2), a look does not make a key recently used."""
    server = start_redis()
    if tuple(map(int, server.info("server")["redis_version"].split(".")[:2])) < (7, 2):
        pytest.skip("CLIENT NO-TOUCH came with Redis 7.2")
    keys = fill(server.url, "shop", 3)
    with server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lfu")
        before = client.object("FREQ", keys["items", 7][0])
        Project(tmp_path, server.url, "shop").run("ls")
        assert client.object("FREQ", keys["items", 7][0]) <= before


def test_an_estimate_says_so(start_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    """About as many, from a share of the keys, and `estimated` is true."""
    server = start_redis()
    fill(server.url, "shop", 1000)
    found = Project(tmp_path, server.url, "shop").facts("ls", "--sample", "600")
    assert found["estimated"] is True
    rows = {(row["namespace"], row["version"]): row for row in found["rows"]}
    assert all(row["estimated"] is True for row in found["rows"])
    assert 700 < rows["profiles", 1]["entries"] < 1300
    everything = Project(tmp_path, server.url, "shop").facts("ls", "--sample", "100000")
    assert everything["estimated"] is False
    assert {row["entries"] for row in everything["rows"] if row["namespace"] == "profiles"} == {1000}


def test_settings_of_the_project_say_where(project: Project) -> None:
    """`url` and `prefix` under [tool.memover], when neither an option nor the environment does."""
    fill(project.url, project.prefix, 3)
    (project.root / "pyproject.toml").write_text(
        f'[tool.memover]\nurl = "{project.url}"\nprefix = "{project.prefix}"\ntargets = ["shop"]\n'
    )
    project.url = project.prefix = ""
    assert "profiles" in project.run("ls").stdout


def test_follow_code_versions_are_their_own(project: Project, redis_client: redis.Redis) -> None:
    """A version part `2~1f2e3d4c` is a version of its own."""
    with Cache(project.url, prefix=project.prefix) as cache:
        cached = cache.versioned(namespace="notes", version=2)(lambda: 1)
        cached()
        raw = redis_client.get(cached.key())
    assert raw is not None
    redis_client.set(f"{project.prefix}:2~0a1b2c3d:notes:{'0' * 32}", raw)
    versions = [row["version"] for row in project.facts("ls", "notes")["rows"]]
    assert versions == [2, "2~0a1b2c3d"]


def test_a_table_in_a_pipe_is_not_cut(project: Project) -> None:
    """A long namespace stands in one line, aligned, without colour."""
    name = "a/" * 80 + "end"
    with Cache(project.url, prefix=project.prefix) as cache:
        cache.versioned(namespace=name)(lambda: 1)()
    told = project.run("ls").stdout
    assert name in told
    assert "\x1b" not in told


@pytest.mark.slow
def test_a_cluster_is_counted_whole(redis_cluster: RedisCluster, prefix: str, tmp_path: Path) -> None:
    """Every primary's entries, each once."""
    keys = fill(redis_cluster.url, prefix, 100)
    rows = Project(tmp_path, redis_cluster.url, prefix).facts("ls")["rows"]
    assert {(row["namespace"], row["version"]): row["entries"] for row in rows} == {
        place: len(names) for place, names in keys.items()
    }


def test_the_bar_of_a_scan_ends_at_the_number_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is 1,000 keys and may find three: the bar says three of three."""
    bars: list[Progress] = []
    monkeypatch.setattr(Progress, "__enter__", lambda bar: bars.append(bar) or bar)
    with progress("counting", 3) as on_step:
        on_step(1000)
        (task,) = bars[0].tasks
        assert (task.completed, task.total) == (3, 3)
