"""What an alias of CACHES stands for, how tests isolate it, and how everything is emptied."""

from __future__ import annotations

import asyncio
import sys
import unittest
import weakref
from typing import Any

import pytest
from django.core.cache import cache, caches
from django.test import AsyncClient, Client, SimpleTestCase
from django.test.utils import override_settings

import memover
from memover import Cache, versioned_cache
from memover.django import aclear_all, aliases, clear_all
from memover.django.testing import IsolatedCaches, isolated_caches
from memover.keys.ownership import owners

LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
DUMMY = "django.core.cache.backends.dummy.DummyCache"


class Money:
    """A class of the project that only the alias's pickle codec can keep."""

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.more = object


@pytest.fixture(autouse=True)
def _nothing_of_earlier_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they have left is not among the namespaces that this process knows: their servers are gone. Its views are."""
    before = [weakref.ref(owner) for owner in owners() if not owner.name.startswith("_pages.")]

    def later() -> list[Any]:
        left = {id(owner) for reference in before if (owner := reference()) is not None}
        return [owner for owner in owners() if id(owner) not in left]

    monkeypatch.setattr(aliases, "owners", later)


def counted(namespace: str, alias: str) -> tuple[Any, list[int]]:
    runs: list[int] = []

    @versioned_cache(namespace=namespace, cache=alias)
    def function(n: int) -> int:
        runs.append(n)
        return n

    return function, runs


def test_an_alias_in_memory_and_one_that_is_off(backend: Any) -> None:
    """LocMemCache keeps functions' results in this process; DummyCache runs the function at every call."""
    backend(others={"local": {"BACKEND": LOCMEM, "TIMEOUT": 7}, "off": {"BACKEND": DUMMY}})
    local, ran_local = counted("alias-local", "local")
    off, ran_off = counted("alias-off", "off")
    assert [local(1), local(1), off(1), off(1)] == [1, 1, 1, 1]
    assert (ran_local, ran_off) == ([1], [1, 1])
    assert local.cache_parameters()["ttl"] == 7
    assert local.cache.address.startswith("memory")
    local.invalidate(1)
    local(1)
    assert ran_local == [1, 1]


def test_settings_of_a_test_begin_with_an_empty_alias(backend: Any) -> None:
    """`override_settings(CACHES=...)` makes the alias anew."""
    settings = {"default": {"BACKEND": LOCMEM}}
    function, runs = counted("alias-overridden", "default")
    for _ in range(2):
        with override_settings(CACHES=settings):
            function(1)
            function(1)
    assert runs == [1, 1]


def test_using_replaces_every_alias(backend: Any) -> None:
    """Inside, functions of all aliases use that cache, with the codec of their alias."""
    backend(others={"local": {"BACKEND": LOCMEM}})

    @versioned_cache(namespace="alias-money", cache="default")
    def money(amount: int) -> Money:
        return Money(amount)

    local, runs = counted("alias-using", "local")
    money(1)
    local(1)
    with memover.using(Cache(prefix="inside")) as inside:
        assert money.cache is inside
        assert local.cache is inside
        assert money.peek(1) is None
        assert (money(1).amount, money(1).amount) == (1, 1)
        assert money.cache_info().hits == 1
        local(1)
    assert money.cache is not inside
    assert runs == [1, 1]
    assert money.peek(1) is not None


def test_settings_overridden_inside_count(backend: Any) -> None:
    """The innermost of `using`, the mixin's caches and `override_settings` says what an alias is: a test turns caching off so."""
    backend()
    function, runs = counted("alias-inner", "default")
    for outside in (isolated_caches, lambda: memover.using(Cache())):
        runs.clear()
        with outside() as outer:
            function(1)
            with override_settings(CACHES={"default": {"BACKEND": DUMMY}}):
                function(1)
                function(1)
                with isolated_caches() as inner:
                    function(1)
                    function(1)
                    assert function.cache is inner
                assert function.peek(1) is None
            assert function.cache is outer
            assert function.peek(1) is not None
        assert runs == [1, 1, 1, 1]


@pytest.mark.parametrize("place", [{}, {"LOCATION": "place"}], ids=["", "named"])
def test_django_s_own_cache_in_memory_is_isolated_too(place: dict[str, str], backend: Any) -> None:
    """Its entries of outside are not seen inside, nor the other way round, nor those of the test before."""
    backend(others={"local": {"BACKEND": LOCMEM, **place}})
    caches["local"].set("k", "outside")
    for _ in range(2):
        with isolated_caches():
            assert caches["local"].get("k") is None
            caches["local"].set("k", "inside")
            with isolated_caches():
                assert caches["local"].get("k") is None
                caches["local"].set("k", "innermost")
            assert caches["local"].get("k") == "inside"
        assert caches["local"].get("k") == "outside"


def test_isolated_caches_isolate_functions_and_the_key_value_api(backend: Any) -> None:
    """Nothing of outside is seen inside, nor the other way round."""
    backend(others={"local": {"BACKEND": LOCMEM}})
    function, runs = counted("alias-isolated", "default")
    function(1)
    cache.set("k", "outside")
    with isolated_caches() as isolated:
        assert function.cache is isolated
        assert cache.get("k") is None
        cache.set("k", "inside")
        function(1)
    assert cache.get("k") == "outside"
    assert runs == [1, 1]


def test_the_fixture_isolates_aliases(backend: Any, request: pytest.FixtureRequest) -> None:
    """`memover_cache` does what `isolated_caches` does."""
    backend()
    function, runs = counted("alias-fixture", "default")
    function(1)
    cache.set("k", "outside")
    isolated = request.getfixturevalue("memover_cache")
    assert function.cache is isolated
    assert cache.get("k") is None
    function(1)
    assert runs == [1, 1]


@pytest.mark.parametrize("way", ["run", "debug"])
@pytest.mark.parametrize("own_set_up", [False, True], ids=["", "own setUp"])
def test_the_mixin_gives_each_test_an_empty_cache(own_set_up: bool, way: str, backend: Any) -> None:
    """Before Django's test case among the bases; a `setUp` that calls no other has empty caches too."""
    backend()
    function, runs = counted("alias-mixin", "default")
    seen: list[Any] = []

    class Tests(IsolatedCaches, SimpleTestCase):
        def setUp(self) -> None:
            if own_set_up:
                seen.append((function.peek(1), cache.get("k")))
            else:
                super().setUp()

        def test_one(self) -> None:
            function(1)
            function(1)
            cache.set("k", 1)
            seen.append((function.cache is self.memover_cache, cache.get("k")))

        def test_two(self) -> None:
            seen.append((function.peek(1), cache.get("k")))

    tests = unittest.defaultTestLoader.loadTestsFromTestCase(Tests)
    if way == "run":
        result = unittest.TestResult()
        tests.run(result)
        assert result.wasSuccessful(), result.failures + result.errors
    else:
        tests.debug()
    assert [each for each in seen if each[0] is True] == [(True, 1)]
    assert seen.count((None, None)) == (3 if own_set_up else 1)
    assert len(seen) == (4 if own_set_up else 2)
    assert runs == [1]
    assert (function.peek(1), cache.get("k")) == (None, None)


def test_clear_all_empties_entries_and_namespaces(backend: Any) -> None:
    """Those of every alias, of the default cache, and of functions that were not called yet in this process."""
    backend(others={"local": {"BACKEND": LOCMEM}})
    function, runs = counted("alias-cleared", "default")
    local, ran_local = counted("alias-cleared-local", "local")
    with memover.using(memover.default_cache()):
        pass
    for clear in (clear_all, lambda: asyncio.run(aclear_all())):
        function(1)
        local(1)
        cache.set("k", 1)
        caches["local"].set("k", 1)
        clear()
        assert (cache.get("k"), caches["local"].get("k"), function.peek(1), local.peek(1)) == (None, None, None, None)
    assert (runs, ran_local) == ([1, 1], [1, 1])


def test_an_alias_is_emptied_alone(backend: Any) -> None:
    """`caches["default"].clear_all()` leaves the functions of other aliases."""
    configured = backend(others={"local": {"BACKEND": LOCMEM}})
    function, _ = counted("alias-alone", "default")
    local, _ = counted("alias-alone-local", "local")
    for clear in (configured.clear_all, lambda: asyncio.run(configured.aclear_all())):
        function(1)
        local(1)
        cache.set("k", 1)
        clear()
        assert (cache.get("k"), function.peek(1)) == (None, None)
        assert local.peek(1) is not None


# -- the panel ----------------------------------------------------------------------------------------------------------------


def shown(kind: str) -> dict[str, Any]:
    """What the panel recorded of one request."""
    from debug_toolbar.toolbar import DebugToolbar

    toolbars: list[Any] = []
    created = DebugToolbar._created
    created.connect(receiver := lambda sender, toolbar=None, **_: toolbars.append(toolbar or sender))
    middleware = ["debug_toolbar.middleware.DebugToolbarMiddleware"]
    try:
        with override_settings(MIDDLEWARE=middleware, DEBUG=True):
            if kind == "sync":
                answer = Client().get("/panelled")
            else:
                answer = asyncio.run(_get("/apanelled"))
    finally:
        created.disconnect(receiver)
    assert b"9 9" in answer.content
    (toolbar,) = toolbars
    panel = toolbar.get_panel_by_id("MemoverPanel")
    return {**panel.get_stats(), "subtitle": panel.nav_subtitle, "content": panel.content}


async def _get(path: str) -> Any:
    return await AsyncClient().get(path)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_panel_shows_the_calls_of_a_request(kind: str, backend: Any) -> None:
    """Each with its namespace, its key and where the answer came from."""
    backend()
    pages: Any = sys.modules["memover_tests_urls"]
    # Another test may have made this process forget which functions it has (`as_another_process`).
    assert (pages.shown.peek(3) if kind == "sync" else asyncio.run(pages.ashown.peek(3))) is None
    stats = shown(kind)
    assert [each["source"] for each in stats["calls"]] == ["loaded", "fresh"]
    assert {each["namespace"] for each in stats["calls"]} == {
        "memover-tests-shown" if kind == "sync" else "memover-tests-ashown"
    }
    assert stats["subtitle"] == "2 calls, 1 hits"
    assert "<td>loaded</td>" in stats["content"]
