"""What an `sqlite:` URL says, and which are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from memover import Cache
from memover.errors import ConfigurationError
from memover.stores.sqlite.guards import check_file_system
from memover.stores.sqlite.url import parse_url


def test_three_slashes_are_relative_and_four_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is made absolute once, so that a later chdir does not change which file it is."""
    monkeypatch.chdir(tmp_path)
    assert parse_url("sqlite:///a.db") == str(tmp_path / "a.db")
    assert parse_url("SQLite:///b/a.db") == str(tmp_path / "b" / "a.db")
    assert parse_url("sqlite:////var/x/a.db") == "/var/x/a.db"
    assert parse_url("sqlite:////var/x/a%20b%3F.db") == "/var/x/a b?.db"
    assert parse_url("sqlite:///~/a.db") == os.path.expanduser("~/a.db")


def test_a_link_is_the_file_it_leads_to(tmp_path: Path) -> None:
    """Two names of one file are one store."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert parse_url(f"sqlite:///{tmp_path}/link/a.db") == str(tmp_path / "real" / "a.db")


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///dir/", "names no file"),
        ("sqlite://a.db", "sqlite:///a.db"),
        ("sqlite://host/a.db", "sqlite:///host/a.db"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///a.db?timeout=3", "keyword arguments"),
        ("sqlite:///a%00b.db", "zero byte"),
        ("sqlite:a.db", "sqlite:///"),
    ],
)
def test_what_names_no_file_is_refused_with_advice(url: str, advice: str) -> None:
    """When the cache is constructed, with what to write instead."""
    with pytest.raises(ConfigurationError, match=advice):
        Cache(url)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    """When the cache is constructed."""
    with pytest.raises(ConfigurationError, match="is a directory"):
        Cache(f"sqlite:///{tmp_path}")


def test_constructing_touches_nothing(tmp_path: Path) -> None:
    """No file, no directory, no connection before the first use; then directories are made as well."""
    with Cache(f"sqlite:///{tmp_path}/new/dir/a.db") as cache:
        assert list(tmp_path.iterdir()) == []
        assert cache.address == f"sqlite:///{tmp_path}/new/dir/a.db"
        cache.set("k", 1)
        assert (tmp_path / "new" / "dir" / "a.db").exists()


def test_network_file_systems_are_refused_where_the_system_tells(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """NFS and the like: locks and shared memory do not hold there. A host's directory in a guest is warned of."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        "36 22 0:31 / /mnt/nfs\\040share rw,noatime - nfs4 server:/export rw\n"
        "37 22 0:32 / /mnt/c rw - 9p drvfs rw\n"
    )
    check_file_system("/mnt/nfs/store.db", str(mounts))
    assert not caplog.records
    with pytest.raises(ConfigurationError, match=r"nfs4.*Redis for several machines"):
        check_file_system("/mnt/nfs share/a/store.db", str(mounts))
    check_file_system("/mnt/c/store.db", str(mounts))
    assert "shared with another machine (9p)" in caplog.text
    check_file_system("/mnt/c/store.db", str(tmp_path / "none"))
