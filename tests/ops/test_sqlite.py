"""The commands on a store in a file: the same words, the same truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache

from .conftest import Project, fill

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("memover.stores.sqlite", reason="this memover has no SQLite store")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, f"sqlite:///{tmp_path}/cache.db", "shop")


def test_everything_is_counted(project: Project) -> None:
    """Exactly, also where an estimate was asked for: a file has no fair sample."""
    keys = fill(project.url, "shop", 30)
    for args in (("ls",), ("ls", "--sample", "5")):
        found = project.facts(*args)
        assert {(row["namespace"], row["version"]): row["entries"] for row in found["rows"]} == {
            place: len(names) for place, names in keys.items()
        }
        assert found["estimated"] is False
    assert {row["no_ttl"] for row in found["rows"]} == {0, 20}
    assert all(row["bytes"] > 0 and row["generation"] for row in found["rows"])


def test_an_entry_from_fresh_to_gone(project: Project) -> None:
    """Inspected, invalidated by tag, by namespace and by key."""
    key = fill(project.url, "shop", 3)["items", 7][4]
    assert project.facts("inspect", key)["verdict"] == "fresh"
    assert project.facts("invalidate", "--tag", "item:4", "--yes")["entries"] == 1
    assert project.facts("inspect", key)["verdict"] == "invalidated"
    assert project.facts("invalidate", "profiles", "--yes")["versions"] == {"1": 3, "2": 3}
    assert "did you mean profiles?" in project.run("invalidate", "profilez", "--yes", status=1).stderr
    project.run("invalidate", "--key", key, "--yes")
    project.run("inspect", key, status=1)
    assert project.facts("invalidate", "~kv", "--yes")["entries"] == 30


def test_old_versions_are_removed(project: Project) -> None:
    """And nothing else."""
    fill(project.url, "shop", 5)
    project.lock()
    (row,) = project.facts("gc")["rows"]
    assert (row["kind"], row["namespace"], row["version"], row["removed"]) == ("entries", "profiles", 1, 5)
    assert {(each["namespace"], each["version"]) for each in project.facts("ls")["rows"]} == {
        ("profiles", 2),
        ("items", 7),
        ("~kv", 3),
    }


def test_the_doctor_looks_at_a_file(project: Project) -> None:
    """Every check has an answer, and none fails."""
    fill(project.url, "shop", 3)
    found = {each["name"]: each for each in project.facts("doctor")["checks"]}
    assert {"reachable", "round trip", "version", "maxmemory", "rights", "entries without ttl", "tag keys"} <= set(
        found
    )
    assert "fail" not in {each["status"] for each in found.values()}
    assert found["version"]["value"].startswith("SQLite")


def test_the_doctor_advises_what_a_file_has(project: Project) -> None:
    """A file does not say how much it may take, and entries without ttl leave it for room: neither is a warning."""
    fill(project.url, "shop", 3)
    found = {each["name"]: each for each in project.facts("doctor")["checks"]}
    assert "bounded by the max_bytes of the processes" in found["maxmemory"]["value"]
    lasting = found["entries without ttl"]
    assert (lasting["status"], lasting["advice"]) == ("ok", "")
    assert lasting["value"].startswith("20 of ")


@pytest.mark.parametrize(
    "command",
    [
        ("ls",),
        ("inspect", "shop:1:profiles:x"),
        ("top", "--once"),
        ("gc",),
        ("invalidate", "profiles", "--yes"),
        ("invalidate", "--tag", "all", "--yes"),
        ("invalidate", "--key", "shop:1:profiles:x", "--yes"),
    ],
)
def test_a_path_where_nothing_is_is_said_and_stays_as_it_is(project: Project, command: tuple[str, ...]) -> None:
    """A mistyped path makes neither a file nor a directory."""
    project.lock()
    before = sorted(project.root.iterdir())
    ended = project.run(*command, "--url", "sqlite:///typo/cache.db", status=2)
    assert f"sqlite:///{project.root}/typo/cache.db: there is no such file" in ended.stderr
    assert sorted(project.root.iterdir()) == before


def test_the_doctor_says_that_there_is_no_file(project: Project) -> None:
    """It is a check that fails, with what to look at; the file is not made."""
    (check,) = project.facts("doctor", status=1)["checks"]
    assert (check["name"], check["status"]) == ("reachable", "fail")
    assert "there is no such file" in check["value"] and "--url" in check["advice"]
    assert "server" not in check["advice"]
    assert not (project.root / "cache.db").exists()


def test_processes_report_into_the_file(project: Project) -> None:
    """What this process does is seen by another."""
    with Cache(project.url, prefix="shop", report=60) as cache:
        cached: Any = cache.versioned(namespace="profiles")(lambda n: n)
        cached(1)
        cached(1)
        assert cache._state.reporter is not None
        cache._state.reporter.publish()
        found = project.facts("top", "--once")
        assert found["processes"] == 1
        (function,) = found["functions"]
        assert (function["namespace"], function["hit_ratio"]) == ("profiles", 0.5)
    assert project.facts("top", "--once")["processes"] == 0
