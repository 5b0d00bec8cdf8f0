"""The pytest plugin, there as soon as memover is installed.

    def test_profiles_are_cached(memover_cache, assert_cached, assert_loads):
        with assert_loads(1):
            profile(7)
            profile(7)
        assert_cached(profile, 7)

* `memover_cache`: the default cache, replaced for one test by one that no other test sees: memory, or the store of
  `--memover-url` (or `MEMOVER_URL` in the environment, or `memover_url` in the ini file) under a prefix of its own, which
  is emptied afterwards. In a Django project every alias of CACHES is replaced too, and the key-value API of memover's
  aliases has a prefix of its own. Under pytest-xdist each worker's tests are as separate. Functions that were decorated
  with a `Cache` object keep it, and so do processes that a test starts.
* `assert_cached(function, *args)` and `assert_loads(n, *functions)`: see `memover.testing`.
* `--memover-check`: `memover check` as one more test.
"""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from memover.cache import Cache


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options and the ini setting."""
    group = parser.getgroup("memover")
    group.addoption("--memover-check", action="store_true", help="run `memover check` as one more test")
    group.addoption("--memover-url", help="store of the memover_cache fixture (default: MEMOVER_URL, or memory://)")
    parser.addini("memover_url", "store of the memover_cache fixture", default="")


@pytest.fixture
def memover_cache(request: pytest.FixtureRequest) -> Iterator[Cache]:
    """The default cache of this test alone: empty, under a fresh prefix; see `memover.pytest_plugin`."""
    from memover.api import using
    from memover.cache import Cache
    from memover.stores.survey import open_survey, remove_prefix

    option, ini = request.config.getoption("--memover-url"), request.config.getini("memover_url")
    url = option or os.environ.get("MEMOVER_URL") or ini or "memory://"
    with Cache(url, prefix=f"test-{secrets.token_hex(6)}", enabled=True) as cache:
        try:
            with _aliases(cache), using(cache):
                yield cache
        finally:
            if not cache._state.store.local:
                with closing(open_survey(url)) as survey:
                    remove_prefix(survey, cache.prefix)


def _aliases(cache: Cache) -> AbstractContextManager[object]:
    """In a Django project, its caches replaced; the key-value API of its aliases is in memory."""
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    if settings is None or not settings.configured or "memover.django" not in sys.modules:
        return nullcontext()
    from memover.django.testing import isolated_caches

    return isolated_caches(cache)


@pytest.fixture(name="assert_cached")
def _assert_cached() -> Any:
    """`assert_cached(function, *args)`: fails unless the call would be answered from the cache."""
    from memover.testing.assertions import assert_cached

    return assert_cached


@pytest.fixture(name="assert_loads")
def _assert_loads() -> Any:
    """`with assert_loads(n, *functions):` fails unless exactly so many loads are done inside."""
    from memover.testing.assertions import assert_loads

    return assert_loads


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts the check first, if it was asked for: what it finds explains what fails after it."""
    if config.getoption("--memover-check"):
        items.insert(0, CheckItem.from_parent(session, name="memover check", nodeid="memover check"))


class ChecksFailed(Exception):
    """What the check found, as text."""


class CheckItem(pytest.Item):
    """`memover check` with the settings of pyproject.toml."""

    def runtest(self) -> None:
        """Raises `ChecksFailed` with the report."""
        try:
            from memover.cli.check import check, failed
            from memover.cli.formats import as_text
            from memover.cli.project import Project
        except ModuleNotFoundError as error:
            raise ChecksFailed(f'--memover-check needs pip install "memover[cli]" ({error.name} is missing)') from None
        findings = check(Project.find(self.config.rootpath))
        if failed(findings):
            raise ChecksFailed(as_text(findings))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The report itself, without a traceback."""
        from memover.errors import MemoverError

        if isinstance(excinfo.value, (ChecksFailed, MemoverError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Where it stands in the list of tests."""
        return self.config.rootpath, None, "memover check"
