"""`memover check --against`: another revision instead of a lock."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import App

VIEWS = """\
from dataclasses import dataclass

from memover import versioned_cache


@dataclass
class Profile:
    id: int


@versioned_cache(namespace="profiles", version=1)
def profile(user_id: int) -> Profile:
    return Profile(user_id)
"""
PLACE = "shop/views.py"


@pytest.fixture
def shop(app: App) -> App:
    """A repository with one commit on main, on a branch of its own."""
    app.write("shop/__init__.py", "")
    app.write(PLACE, VIEWS)
    app.commit()
    app.git("checkout", "-q", "-b", "feature")
    return app


def add_field(app: App, name: str) -> None:
    app.change(PLACE, "    id: int\n", f"    id: int\n    {name}: str\n")


def test_a_branch_without_changes_passes(shop: App) -> None:
    """No lock is needed."""
    assert "no findings" in shop.run("check", "--against", "main")


def test_a_shape_changed_on_the_branch_is_found(shop: App) -> None:
    """Committed or not, with the field."""
    add_field(shop, "name")
    assert "Profile.name is new: str" in shop.run("check", "--against", "main", status=1)
    shop.commit()
    assert shop.codes(against="main") == ["MV001"]


def test_a_bump_mends_it(shop: App) -> None:
    """There is no lock that could be out of date."""
    add_field(shop, "name")
    shop.run("bump", "profiles")
    assert shop.codes(against="main") == []


@pytest.mark.parametrize("locked", ["no", "before", "since"])
def test_what_lets_a_change_through_works(locked: str, shop: App) -> None:
    """An exception is written into the lock, where that has the finding too; else a comment is what there is."""
    if locked == "before":
        shop.run("lock")
    add_field(shop, "name")
    if locked == "since":
        shop.run("lock")
    told = shop.run("check", "--against", "main", status=1)
    if locked == "before":
        assert "ignore[" not in told
        command = next(line.partition("or: memover ")[2] for line in told.splitlines() if "or: memover lock" in line)
        assert shlex.split(command)[:3] == ["lock", "--accept", "MV001"]
        shop.run(*shlex.split(command))
    else:
        assert "--accept" not in told
        comment = next(line.partition("decorator: ")[2] for line in told.splitlines() if "or: let it through" in line)
        shop.change(PLACE, "\ndef profile", f"\n{comment}\ndef profile")
    assert shop.run("check", "--against", "main") == "no findings\n"


def test_without_a_lock_none_is_asked_for(shop: App) -> None:
    """A number to be raised by hand is all there is to do."""
    shop.change(PLACE, "version=1", "version=2 - 1")
    shop.commit()
    shop.git("branch", "-f", "main")
    add_field(shop, "name")
    told = shop.run("check", "--against", "main", status=1)
    assert "raise the version of profiles by hand" in told
    assert "memover lock" not in told


def test_a_lowered_version_is_found(shop: App) -> None:
    """Against the revision as against a lock."""
    shop.run("bump", "profiles")
    shop.commit()
    shop.git("branch", "-f", "main")
    shop.change(PLACE, "version=2", "version=1")
    assert shop.codes(against="main") == ["MV002"]


def test_changes_of_the_other_branch_are_not_ours(shop: App) -> None:
    """What main did since is main's."""
    shop.git("checkout", "-q", "main")
    add_field(shop, "name")
    shop.change(PLACE, "version=1", "version=2")
    shop.commit()
    shop.git("checkout", "-q", "feature")
    assert shop.codes(against="main") == []


def test_a_number_that_the_other_branch_took_meanwhile_is_found(shop: App) -> None:
    """Two branches bump to 2, each for its own field: the second one must take 3."""
    shop.git("checkout", "-q", "main")
    add_field(shop, "name")
    shop.change(PLACE, "version=1", "version=2")
    shop.commit()
    shop.git("checkout", "-q", "feature")
    add_field(shop, "email")
    shop.change(PLACE, "version=1", "version=2")
    (found,) = shop.check(against="main")
    assert found.code == "MV002"
    assert "main has version 2 already, for another shape" in found.message
    assert found.fixes == ("memover bump profiles --to 3",)


def test_a_number_from_further_back_is_found(shop: App) -> None:
    """Bumped to 2, reverted, and bumped to 2 again for something else: entries of the first 2 may still be there."""
    shop.git("checkout", "-q", "main")
    shop.change(PLACE, "version=1", "version=2")
    used = shop.commit()
    shop.change(PLACE, "version=2", "version=1")
    shop.commit()
    shop.git("checkout", "-q", "-B", "feature")
    add_field(shop, "email")
    shop.change(PLACE, "version=1", "version=2")
    (found,) = shop.check(against="main")
    assert found.code == "MV002"
    assert used[:12] in found.message


def test_a_project_below_the_top_of_its_repository(shop: App) -> None:
    """A monorepo: paths are relative to the project."""
    shop.git("checkout", "-q", "main")
    (shop.root / "services").mkdir()
    shop.git("mv", "shop", "pyproject.toml", "services")
    shop.commit()
    shop.root = shop.root / "services"
    add_field(shop, "name")
    assert shop.codes(against="HEAD") == ["MV001"]


def test_a_revision_that_is_not_there_is_status_two(shop: App) -> None:
    """With a word on shallow clones."""
    assert "fetch" in shop.run("check", "--against", "origin/nowhere", status=2)


def test_outside_a_repository_is_status_two(app: App) -> None:
    """git's own words."""
    app.write("shop/__init__.py", "")
    assert "git" in app.run(
        "check", "--against", "main", status=2, env={"GIT_CEILING_DIRECTORIES": str(app.root.parent)}
    )
