"""What comes and goes with a request, a task or a connection is refused as an argument, with what to give instead."""

from __future__ import annotations

import importlib
import importlib.util
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from memover.errors import UnkeyableArgument
from memover.keys.canonical import encode
from memover.keys.passing import _HINTS

if TYPE_CHECKING:
    from collections.abc import Callable

SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"a=1"}


def of(module: str, make: Callable[[Any], Any]) -> Callable[[], Any]:
    return lambda: make(pytest.importorskip(module))


OBJECTS: dict[str, tuple[Callable[[], Any], str]] = {
    "Starlette request": (of("starlette.requests", lambda it: it.Request(SCOPE)), "give the function the values of it"),
    "Starlette headers": (of("starlette.requests", lambda it: it.Request(SCOPE).headers), "the values in it"),
    "Starlette query": (of("starlette.requests", lambda it: it.Request(SCOPE).query_params), "the values in it"),
    "Starlette response": (of("starlette.responses", lambda it: it.Response()), "make it from the function's result"),
    "FastAPI background": (of("fastapi", lambda it: it.BackgroundTasks()), "make it from the function's result"),
    "Django request": (
        of("django.http", lambda it: object.__new__(it.HttpRequest)),
        "give the function the values of it",
    ),
    "Django query": (of("django.http", lambda it: it.QueryDict.__new__(it.QueryDict)), "the values in it"),
    "Flask proxy": (of("flask", lambda it: it.request), "it stands for another object in each request"),
    "Flask request": (of("flask", lambda it: it.Request.from_values("/?a=1")), "give the function the values of it"),
    "Flask query": (of("flask", lambda it: it.Request.from_values("/?a=1").args), "the values in it"),
    "Flask headers": (of("flask", lambda it: it.Request.from_values("/").headers), "the values in it"),
    "Celery task": (of("celery", lambda it: it.Celery().task(name="t")(lambda: 1)), "it is the task"),
    "connection": (lambda: sqlite3.connect(":memory:"), "it says how the result is found"),
    "client": (of("httpx", lambda it: it.Client()), "it says how the result is found"),
}


@pytest.mark.parametrize("what", OBJECTS)
def test_it_is_refused_with_what_to_give_instead(what: str) -> None:
    """And with `ignore=`, for what the result does not depend on."""
    make, instead = OBJECTS[what]
    passing = make()
    try:
        with pytest.raises(UnkeyableArgument) as caught:
            encode(passing, "given", "load")
    finally:
        if what in ("connection", "client"):
            passing.close()
    assert instead in str(caught.value)
    assert "ignore=('given',) if the result does not depend on it" in str(caught.value)


def test_the_task_that_a_bound_task_is_given_is_named() -> None:
    """Its parameter is called `self`, and a `__memover_key__()` is nothing that its class could be given."""
    task = pytest.importorskip("celery").Celery().task(name="t", bind=True)(lambda self: 1)
    with pytest.raises(UnkeyableArgument, match="it is the task and not what it works on") as caught:
        encode(task, "self", "load")
    assert "__memover_key__" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(_HINTS))
def test_the_names_are_those_of_classes(name: str) -> None:
    """Where the library is installed: one that renames a class is noticed here."""
    parts = name.split(".")
    if name == "celery.local.celery.local":  # what the proxies of tasks say of themselves
        return
    if importlib.util.find_spec(parts[0]) is None:
        pytest.skip(f"{parts[0]} is not installed")
    module: Any = importlib.import_module(".".join(parts[:-1]))
    kind = getattr(module, parts[-1])
    assert f"{kind.__module__}.{kind.__qualname__}" == name
