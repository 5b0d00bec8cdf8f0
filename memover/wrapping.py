"""What `versioned_cache` does with the function that it is given; loaded with the first one."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from memover.cached import AsyncCachedFunction, CachedFunction
from memover.codec.base import resolve_codec
from memover.definition import Definition
from memover.errors import ConfigurationError
from memover.keys.binding import Binding, qualified_name
from memover.keys.identity import Identity
from memover.keys.tags import Tags
from memover.runtime.state import CacheState

if TYPE_CHECKING:
    from memover.policy import Policy

__all__ = ["decorated", "refuse"]


def decorated(target: Any, policy: Policy, declared: dict[str, Any], *, cache: Any, codec: Any) -> Any:
    """The decorated object for a function, or for a classmethod or staticmethod.

    `declared` are the options of `versioned_cache` as `cache_parameters` shows them. Raises `ConfigurationError`."""
    kind = "class" if isinstance(target, classmethod) else "static" if isinstance(target, staticmethod) else "plain"
    function: Any = target if kind == "plain" else target.__func__
    name = qualified_name(function)
    refuse(function, name)
    refuse_cache(cache, name)
    if codec is not None:
        resolve_codec(codec)  # so that a wrong one is refused here, and not at the first call
    is_async = inspect.iscoroutinefunction(function) or (
        not inspect.isroutine(function) and inspect.iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004
    )
    key = declared["key"]
    binding = Binding(function, key=key, ignore=declared["ignore"], name=name)
    counting = () if callable(key) else binding.counting
    identity = Identity(function, name, key=key, counting=counting, follow_code=declared["follow_code"])
    binding.part = identity.part
    definition = Definition(
        function,
        name,
        policy,
        binding,
        tags=Tags(declared["tags"], binding, name),
        cache=cache,
        codec=codec,
        declared=declared,
        is_async=is_async,
        kind=kind,
        identity=identity,
    )
    return (AsyncCachedFunction if is_async else CachedFunction)(function, definition, kind)


def refuse_cache(cache: Any, name: str) -> None:
    """Raises `ConfigurationError` for what is no cache. Whether an alias is one is not known before Django is set up."""
    if cache is None or isinstance(getattr(cache, "_state", None), CacheState):
        return
    if isinstance(cache, str):
        if "://" in cache:  # which may hold a password
            raise ConfigurationError(
                f"{name}: cache= takes a Cache, and as text the name of an alias of Django's CACHES: write cache=Cache(url)."
            )
        return
    if isinstance(cache, type):
        raise ConfigurationError(f"{name}: cache= takes a Cache, not the class {cache.__name__}: call it first.")
    what = f"{type(cache).__module__}.{type(cache).__qualname__}"
    alias = ' For an alias of Django\'s CACHES write its name: cache="default".' if "django" in what else ""
    raise ConfigurationError(f"{name}: cache= takes a Cache, not a {what}.{alias}")


def refuse(function: Any, name: str) -> None:
    """Raises `ConfigurationError` for what cannot be memoized."""
    if isinstance(function, property):
        raise ConfigurationError("A property cannot be decorated: put @property above @versioned_cache(...).")
    if not callable(function):
        raise ConfigurationError(f"{function!r} cannot be called, so it cannot be cached: decorate a function.")
    if isinstance(function, type):
        raise ConfigurationError(f"{name} is a class: decorate a function that makes its instances.")
    inner = (
        function
        if inspect.isroutine(function)
        else getattr(function, "func", getattr(type(function), "__call__", None))  # noqa: B004
    )
    for candidate in (function, inner):
        if inspect.isgeneratorfunction(candidate):
            raise ConfigurationError(
                f"{name} is a generator function: what it returns can be consumed only once, so no later caller could have "
                f"it. Return a list or a tuple of what it yields."
            )
        if inspect.isasyncgenfunction(candidate):
            raise ConfigurationError(
                f"{name} is an asynchronous generator function: what it returns can be consumed only once, so no later "
                f"caller could have it. Make it a coroutine that returns a list or a tuple."
            )
