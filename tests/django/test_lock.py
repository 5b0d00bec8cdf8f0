"""`manage.py check` and memover.lock: what is reported, with which command, and when nothing is said."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.checks import run_checks
from django.test.utils import override_settings

from memover.cli.locking import lock
from memover.cli.project import Project
from memover.keys.places import PLACES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SETTINGS = '[tool.memover]\ntargets = ["lockshop"]\nlockfile = "locks/shop.lock"\n'
PRICES = """\
from dataclasses import dataclass
from memover import versioned_cache

@dataclass
class Price:
    amount: int

@versioned_cache(namespace="lockshop-price", version=3, cache="default")
def price(sku: str) -> Price:
    return Price(1)
"""
OTHER = """
@versioned_cache(namespace="lockshop-other", version=1, cache="default")
def other(n: int) -> int:
    return n
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Any]]]:
    """`project(before, after)` locks one source of lockshop.prices, imports another, and answers what `check` says."""
    package = tmp_path / "lockshop"
    package.mkdir()
    (tmp_path / "locks").mkdir()
    (tmp_path / "app").mkdir()
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    # A process of its own, as far as namespaces go: each test imports a lockshop from another directory.
    monkeypatch.setattr(PLACES, "_places", {})

    def check(before: str | None, after: str | None) -> list[Any]:
        if before is not None:
            (package / "prices.py").write_text(before)
            lock(Project.find(tmp_path))
        importlib.invalidate_caches()
        (package / "prices.py").unlink(missing_ok=True)
        if after is not None:
            (package / "prices.py").write_text(after)
            importlib.import_module("lockshop.prices")
        return said(tmp_path / "app")

    yield check
    for name in [name for name in sys.modules if name.partition(".")[0] == "lockshop"]:
        del sys.modules[name]


def said(base: Path) -> list[Any]:
    with override_settings(BASE_DIR=base):
        return [message for message in run_checks() if message.id == "memover.W005"]


@pytest.mark.parametrize(
    ("before", "after", "told", "command"),
    [
        (PRICES, PRICES + OTHER, "other is new", "python manage.py memover lock"),
        (PRICES + OTHER, PRICES, "other is gone", "python manage.py memover lock"),
        (PRICES, PRICES.replace("=3", "=4"), "version is 4, the lock has 3", "python manage.py memover lock"),
        (
            PRICES,
            PRICES.replace("amount: int", "amount: int\n    currency: str = ''"),
            "currency",
            "python manage.py memover bump lockshop-price",
        ),
    ],
    ids=["new", "gone", "bumped", "shape"],
)
def test_a_lock_that_is_out_of_date_is_reported(
    before: str, after: str, told: str, command: str, project: Callable[..., list[Any]]
) -> None:
    """One warning that says what differs, and the command that mends it."""
    (message,) = project(before, after)
    assert told in message.msg and message.hint.startswith(command) and not message.is_serious()


def test_the_command_of_the_hint_mends_it(project: Callable[..., list[Any]], tmp_path: Path) -> None:
    """After `memover lock` the same process has nothing more to report."""
    assert project(PRICES, PRICES + OTHER)
    lock(Project.find(tmp_path))
    assert said(tmp_path / "app") == []


def test_without_targets_the_command_of_the_hint_names_the_module(
    project: Callable[..., list[Any]], tmp_path: Path
) -> None:
    """`memover lock lockshop` needs no settings, so its findings are not answered with commands that need them."""
    (tmp_path / "pyproject.toml").write_text(SETTINGS.replace('targets = ["lockshop"]\n', ""))
    (tmp_path / "lockshop" / "prices.py").write_text(PRICES)
    lock(Project.find(tmp_path), ["lockshop.prices"])
    (message,) = project(None, PRICES.replace("amount: int", "amount: str"))
    assert message.hint.startswith("python manage.py memover bump lockshop-price --target lockshop.prices, or: ")
    assert '--reason "..." --target lockshop.prices' in message.hint


def test_the_process_still_refuses_clashes_after_the_check(project: Callable[..., list[Any]], backend: Any) -> None:
    """Looking at what is decorated changes nothing: the second function of a namespace is refused as before."""
    backend()
    assert project(PRICES, PRICES + OTHER)
    from memover import ConfigurationError, versioned_cache

    with pytest.raises(ConfigurationError, match="belongs to"):

        @versioned_cache(namespace="lockshop-price", cache="default")
        def thief(sku: str) -> int:
            return 1


def test_what_was_not_imported_is_not_gone(project: Callable[..., list[Any]], tmp_path: Path) -> None:
    """A module that this process had no use for is left alone; one whose file was removed is reported."""
    project(PRICES, None)
    (tmp_path / "lockshop" / "prices.py").write_text(PRICES)
    assert said(tmp_path / "app") == [] and "lockshop.prices" not in sys.modules
    (tmp_path / "lockshop" / "prices.py").unlink()
    importlib.invalidate_caches()
    assert ["price is gone" in message.msg for message in said(tmp_path / "app")] == [True]


def test_what_is_decorated_in_a_call_is_not_new(project: Callable[..., list[Any]]) -> None:
    """`memover lock` does not see it either."""
    inner = OTHER.strip().replace("\n", "\n    ")
    late = f"{PRICES}\ndef make():\n    {inner}\n    return other\n"
    assert project(late, late + "\nkept = make()\n") == []


def test_the_views_are_looked_at(project: Callable[..., list[Any]], tmp_path: Path) -> None:
    """What only the URLs import is imported by the check, whichever check runs first."""
    from memover.django.checks import check_lock

    project(PRICES, None)
    (tmp_path / "lockshop" / "prices.py").write_text(PRICES.replace("=3", "=4"))
    (tmp_path / "lockshop" / "urls.py").write_text("import lockshop.prices\nurlpatterns = []\n")
    importlib.invalidate_caches()
    with override_settings(BASE_DIR=tmp_path, ROOT_URLCONF="lockshop.urls"):
        (message,) = check_lock(None)
    assert "version is 4" in message.msg


def test_comments_and_settings_are_heeded(project: Callable[..., list[Any]], tmp_path: Path) -> None:
    """`ignore` in pyproject.toml silences here what it silences for `memover check`."""
    assert project(PRICES, PRICES.replace("=3", "=4"))
    (tmp_path / "pyproject.toml").write_text(SETTINGS + 'ignore = ["MV004"]\n')
    assert said(tmp_path / "app") == []


def test_the_working_directory_without_a_base_dir(
    project: Callable[..., list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project whose settings have no BASE_DIR is looked for from where the command is run."""
    project(PRICES, PRICES + OTHER)
    assert [message for message in run_checks() if message.id == "memover.W005"] == []
    monkeypatch.chdir(tmp_path / "app")
    assert len([message for message in run_checks() if message.id == "memover.W005"]) == 1


def test_nothing_is_said_without_a_lock_or_the_libraries(
    project: Callable[..., list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not use the lock is not told of it."""
    assert project(PRICES, PRICES + OTHER)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "tomli_w", None)
        assert said(tmp_path / "app") == []
    assert said(tmp_path / "app")
    (tmp_path / "locks" / "shop.lock").unlink()
    assert said(tmp_path / "app") == []


@pytest.mark.parametrize(
    ("file", "text"),
    [("locks/shop.lock", "<<<<<<< ours\n"), ("locks/shop.lock", "format = 99\n"), ("pyproject.toml", "[tool.memover")],
)
def test_a_file_that_cannot_be_read_is_a_warning(
    file: str, text: str, project: Callable[..., list[Any]], tmp_path: Path
) -> None:
    """A conflict left in the lock keeps no server from starting, and is said."""
    project(PRICES, PRICES)
    (tmp_path / file).write_text(text)
    (message,) = said(tmp_path / "app")
    assert Path(file).name in message.msg and not message.is_serious()


def test_a_lock_that_is_a_directory_stops_nothing(project: Callable[..., list[Any]], tmp_path: Path) -> None:
    """Whatever goes wrong, `check` goes on."""
    assert project(PRICES, PRICES + OTHER)
    (tmp_path / "locks" / "shop.lock").unlink()
    (tmp_path / "locks" / "shop.lock").mkdir()
    assert said(tmp_path / "app") == []
