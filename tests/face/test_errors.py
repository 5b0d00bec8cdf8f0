"""Errors carry their facts, survive pickle with them, and say what to do."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import memover
from memover import (
    ConfigurationError,
    InvalidationFailed,
    MemoverError,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
    UnencodableValue,
    UnkeyableArgument,
)

CASES: list[tuple[MemoverError, dict[str, Any]]] = [
    (MemoverError("what"), {}),
    (ConfigurationError("what"), {}),
    (
        UnkeyableArgument("what", function="f", parameter="user", path="user.friends[3]", kind="shop.Photo"),
        {"function": "f", "parameter": "user", "path": "user.friends[3]", "kind": "shop.Photo"},
    ),
    (
        UnencodableValue("what", function="f", path="$.photo", kind="shop.Photo"),
        {"function": "f", "path": "$.photo", "kind": "shop.Photo"},
    ),
    (StoreError("what", store="redis://h:1/0"), {"store": "redis://h:1/0"}),
    (StoreUnavailable("what", store="redis://h:1/0"), {"store": "redis://h:1/0"}),
    (StoreTimeout("what", store="redis://h:1/0"), {"store": "redis://h:1/0"}),
    (InvalidationFailed("what", what=("a", "b"), store="s"), {"what": ("a", "b"), "store": "s"}),
]


@pytest.mark.parametrize(("error", "facts"), CASES, ids=lambda case: type(case).__name__)
def test_an_error_keeps_its_facts_through_pickle_and_copy(error: MemoverError, facts: dict[str, Any]) -> None:
    """Class, message and attributes; every protocol; copy and deepcopy too."""
    copies = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for again in (*copies, copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert str(again) == "what"
        assert again.args == ("what",)
        assert {name: getattr(again, name) for name in facts} == facts


def test_errors_of_a_users_own_kind_are_picklable_too() -> None:
    """A subclass with attributes of its own."""
    error = Special("what", store="s")
    error.extra = 5
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.store, again.extra) == (Special, "s", 5)


class Special(StoreError):
    extra: int


def test_errors_are_what_python_would_call_them() -> None:
    """So that `except ValueError` and `except TypeError` find them."""
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(UnkeyableArgument, TypeError)
    assert issubclass(UnencodableValue, TypeError)
    assert issubclass(StoreUnavailable, StoreError)
    assert issubclass(StoreTimeout, StoreError)
    assert not issubclass(InvalidationFailed, StoreError)
    for name in memover.__all__:
        value = getattr(memover, name)
        if isinstance(value, type) and issubclass(value, BaseException) and not issubclass(value, Warning):
            assert issubclass(value, MemoverError), name


def test_every_public_name_is_there() -> None:
    """`__all__` holds what there is, `__version__` is a version, and dir() shows both."""
    for name in memover.__all__:
        assert getattr(memover, name) is not None
        assert name in dir(memover)
    assert memover.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = memover.no_such_name


def test_a_failed_invalidation_says_what_is_still_to_be_done(redis_url: str, prefix: str) -> None:
    """`what` holds the names, `store` the address, `__cause__` the store's own error."""
    cache = memover.Cache("redis://:secret@127.0.0.1:1/0", prefix=prefix)

    @memover.versioned_cache(namespace="unreachable", cache=cache)
    def f(x: int) -> int:
        return x

    with pytest.raises(InvalidationFailed) as one:
        f.invalidate(1)
    with pytest.raises(InvalidationFailed) as whole:
        f.invalidate_all()
    with pytest.raises(InvalidationFailed) as named:
        cache.invalidate_namespace("unreachable")
    assert one.value.what == (f.key(1),)
    assert whole.value.what == named.value.what == (f"{prefix}:gen:unreachable",)
    for caught in (one, whole, named):
        assert caught.value.store == "redis://127.0.0.1:1/0"
        assert isinstance(caught.value.__cause__, StoreError)
        assert "secret" not in str(caught.value)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.what, again.store) == (caught.value.what, caught.value.store)
    with pytest.raises(InvalidationFailed) as closing:
        cache.close()
    assert set(closing.value.what) >= {f.key(1), f"{prefix}:gen:unreachable"}
    assert all(name.startswith(f"{prefix}:") for name in closing.value.what)
