"""A Django project in this process: settings, one page of each kind, and `backend(...)` to configure its cache."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("django")
pytest.importorskip("debug_toolbar")

import django
from django.conf import settings
from django.test.utils import override_settings

from memover.stores.survey import open_survey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Money:
    """A class of the project, which only pickle can keep."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.amount == self.amount

    __hash__ = None  # type: ignore[assignment]


if not settings.configured:
    settings.configure(
        SECRET_KEY="the first secret of the tests",
        ALLOWED_HOSTS=["testserver"],
        INSTALLED_APPS=["django.contrib.sessions", "memover.django", "tests.django.books", "debug_toolbar"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        DEBUG_TOOLBAR_PANELS=["memover.django.panels.MemoverPanel"],
        DEBUG_TOOLBAR_CONFIG={"SHOW_TOOLBAR_CALLBACK": lambda request: True, "IS_RUNNING_TESTS": False},
        STATIC_URL="/static/",
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        ROOT_URLCONF="memover_tests_urls",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
        USE_TZ=True,
    )
    django.setup()


def _pages() -> ModuleType:
    from django.core.cache import cache
    from django.http import HttpRequest, HttpResponse
    from django.template import engines
    from django.urls import include, path
    from django.views.decorators.cache import cache_page

    pages = ModuleType("memover_tests_urls")
    counts: dict[str, int] = {}

    def count(name: str) -> int:
        counts[name] = counts.get(name, 0) + 1
        return counts[name]

    def plain(request: HttpRequest) -> HttpResponse:
        return HttpResponse(f"plain {count('plain')}")

    async def awaited(request: HttpRequest) -> HttpResponse:
        async def compute() -> int:
            return count("awaited")

        return HttpResponse(f"awaited {await cache.aget_or_set('awaited', compute)}")

    def visits(request: HttpRequest) -> HttpResponse:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return HttpResponse(f"visits {request.session['visits']}")

    def fragment(request: HttpRequest) -> HttpResponse:
        template = engines["django"].from_string(
            "{% load cache %}{% cache 60 part who %}{{ count }}{% endcache %} of {{ who }}"
        )
        return HttpResponse(template.render({"count": lambda: count("fragment"), "who": request.GET["who"]}))

    from memover import versioned_cache

    @versioned_cache(namespace="memover-tests-shown", cache="default")
    def shown(n: int) -> int:
        return n * n

    @versioned_cache(namespace="memover-tests-ashown", cache="default")
    async def ashown(n: int) -> int:
        return n * n

    def panelled(request: HttpRequest) -> HttpResponse:
        return HttpResponse(f"<html><body>{shown(3)} {shown(3)}</body></html>")

    async def apanelled(request: HttpRequest) -> HttpResponse:
        return HttpResponse(f"<html><body>{await ashown(3)} {await ashown(3)}</body></html>")

    pages.shown, pages.ashown = shown, ashown  # type: ignore[attr-defined]
    pages.counts = counts  # type: ignore[attr-defined]
    pages.urlpatterns = [  # type: ignore[attr-defined]
        path("plain", plain),
        path("page", cache_page(60)(plain)),
        path("awaited", awaited),
        path("visits", visits),
        path("fragment", fragment),
        path("panelled", panelled),
        path("apanelled", apanelled),
        path("__debug__/", include("debug_toolbar.urls")),
    ]
    return pages


sys.modules.setdefault("memover_tests_urls", _pages())


@pytest.fixture(params=["redis", "sqlite", "memory"])
def location(request: pytest.FixtureRequest) -> str:
    """The two shared stores, and the one in this process."""
    if request.param == "memory":
        return ""
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('tmp_path')}/django.db"
    found: str = request.getfixturevalue("redis_url")
    return found


@pytest.fixture
def expires_ms(location: str) -> Callable[[str], int | None]:
    """Milliseconds until a key of the shared store goes, None for never; fails where there is no such key."""

    def ask(key: str) -> int | None:
        survey = open_survey(location)
        try:
            (facts,) = survey.facts([key.encode()])
        finally:
            survey.close()
        assert facts is not None, f"{key} is not stored"
        return facts.expires_ms

    return ask


@pytest.fixture
def backend(location: str, prefix: str) -> Iterator[Callable[..., Any]]:
    """`backend(VERSION=2, ...)` configures the default cache with the test's prefix and returns it."""
    from django.core.cache import caches

    entered: list[override_settings] = []

    def configure(alias: str = "default", *, others: Any = (), **params: Any) -> Any:
        options = {"socket_timeout": 10, "socket_connect_timeout": 10, **params.pop("OPTIONS", {})}
        own = {
            "BACKEND": "memover.django.MemoverCache",
            "LOCATION": location,
            "KEY_PREFIX": prefix,
            **params,
            "OPTIONS": options,
        }
        entered.append(override_settings(CACHES={"default": own, alias: own, **dict(others)}))
        entered[-1].enable()
        return caches[alias]

    yield configure
    for override in reversed(entered):
        override.disable()
