"""The decorated object: a transparent proxy (wrapt) of the function, which binds to instances and classes as the function does.

Name, doc, signature, annotations and `iscoroutinefunction` are the function's own. On an instance or a class it becomes a
bound proxy, whose helpers take the arguments without `self`. The helpers that ask the store are in `cached`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from inspect import iscoroutinefunction
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar

from memover.errors import ConfigurationError, UnkeyableArgument
from memover.options import at_least
from memover.runtime.batch import Batch

if TYPE_CHECKING:
    from memover.cache import Cache
    from memover.definition import Definition
    from memover.engine.call import CachedCall
    from memover.model import CacheInfo
    from memover.runtime.batch import CallArguments

    class Proxy:
        """What type checkers are told of a transparent proxy."""

        __wrapped__: Callable[..., Any]
        __name__: str
        __qualname__: str
        __module__: str

        def __init__(self, wrapped: Any) -> None: ...

else:
    from wrapt import BaseObjectProxy as Proxy

__all__ = ["BoundFunctionProxy", "FunctionProxy", "bind"]

L = TypeVar("L", bound=Callable[..., Any])


class FunctionProxy(Proxy):
    """A decorated function, as far as no store is needed: it stands in for the function, and binds as the function does.

    `__call__` is a slot: each decorated object has a callable of its own there, which CPython calls without a frame of this
    class in between. It is the definition's `call` as it is now; in a bound proxy, a method of the proxy that was bound."""

    if not TYPE_CHECKING:
        __slots__ = ("__call__", "_self_binds")

    def __init__(self, wrapped: Any, definition: Definition, kind: str = "plain") -> None:
        super().__init__(wrapped)
        # Annotated here and not in the class, whose own annotations would hide the function's.
        self._self_definition: Definition = definition
        self._self_prefix: tuple[Any, ...] = ()
        self._self_kind: str = kind
        # The function, where an attribute of an instance is a method of it.
        self._self_binds: Any = wrapped if kind == "plain" and hasattr(type(wrapped), "__get__") else None
        # Weakly: a definition outlives its proxy only while a call is under way.
        reference = weakref.ref(self)

        def show(call: Callable[..., Any]) -> None:
            proxy = reference()
            if proxy is not None:
                put_call(proxy, call)

        definition.show_with(show)

    @property
    def namespace(self) -> str:
        """The namespace as declared."""
        return self._self_definition.policy.namespace

    @property
    def version(self) -> int:
        """The version as declared."""
        return self._self_definition.policy.version

    @property
    def cache(self) -> Cache:
        """The `Cache` that the function uses now."""
        return self._self_definition.cache

    def cache_info(self) -> CacheInfo:
        """The counters of this function in this process, on the cache it uses now; see `CacheInfo`. No round trip."""
        return self._self_definition.info()

    def cache_parameters(self) -> dict[str, Any]:
        """The settings as declared, with the cache's defaults filled in. No round trip."""
        return self._self_definition.parameters()

    def upgrade(self, from_version: int) -> Callable[[L], L]:
        """Decorates what turns an entry of an older version into this one's: it is called on a miss, instead of a load.

        It takes the older result as plain builtins (instances as dicts of their fields, enum members as their names;
        with a codec of your own, what that decodes) and returns what the function returns. From several versions the
        steps are taken one after another, each to the next one that has an upgrade. What comes of it is stored with the
        time that was left and under the generation captured before; an exception in it is counted
        (`cache_info().upgrade_errors`), and the function runs. An `async def` function may have an `async def` upgrade.

        An older entry is taken over only if it carries every tag that the result has in this version: a tag that is new may
        have been invalidated since that entry was loaded, so the function runs.

        A miss costs one more round trip for each such version; `invalidate`, `set` and `refresh` remove the older
        versions' entries too. Raises `ConfigurationError` for a version that is not older, or has an upgrade already."""

        def decorate(function: L) -> L:
            self._self_definition.add_upgrade(from_version, function)
            return function

        return decorate

    def batch_load(self, loader: L) -> L:
        """Decorator: `loader(calls)` loads many calls at once, for `map` and `warm`; it is returned as it is.

        It gets the `Call`s whose leases were taken (`call.arguments`; methods: `self` is among `call.args`) and returns a
        mapping from calls to values, or, for a function of one argument, from that argument. It may leave some
        out: those are loaded one by one. A sequence of as many values as there are calls will do too. What it raises
        is the error of all its calls. For an `async def` function it may be `async def`."""
        if not callable(loader):
            raise ConfigurationError("batch_load decorates the function that loads many calls at once.")
        if iscoroutinefunction(loader) and not self._self_definition.is_async:
            raise ConfigurationError(
                f"{self._self_definition.name} is a `def` function, so its bulk loader must be one too."
            )
        self._self_definition.loader = loader
        return loader

    def _self_calls(self, items: Iterable[Any]) -> list[CallArguments]:
        rows = [item if type(item) is tuple else (item,) for item in items]
        if self._self_prefix or self._self_definition.takes_class:
            rows = [self._self_whole(row) for row in rows]
        return [(row, {}) for row in rows]

    def _self_batch(self, calls: list[CallArguments], concurrency: int, progress: Any, wanted: bool) -> Batch:
        resident = self._self_definition.now()
        return Batch(
            resident.function,
            resident.lookup,
            calls,
            loader=self._self_definition.loader,
            concurrency=at_least(1, concurrency, "concurrency"),
            progress=progress,
            wanted=wanted,
        )

    def _self_whole(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        # The arguments as the function takes them. From Python 3.13 on, a classmethod around a proxy makes a plain method
        # of it, which hands on the helpers without the class; a guess would be wrong for subclasses.
        args = (*self._self_prefix, *args)
        if self._self_definition.takes_class and not (args and isinstance(args[0], type)):
            name = self._self_definition.name
            raise UnkeyableArgument(
                f"{name}: this helper was not given the class. From Python 3.13 on, @classmethod hides it from what it "
                f"wraps: put @versioned_cache(...) above @classmethod.",
                function=name,
                parameter="cls",
                path="cls",
            )
        return args

    def _self_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CachedCall:
        # The call of a helper: the key it is about, and the arguments should it have to load.
        args = self._self_whole(args)
        resident = self._self_definition.now()
        return resident.function.call(resident.lookup(*args, **kwargs), args, kwargs)

    def _self_bound(self, kind: Any, instance: Any, owner: Any) -> Any:
        # What an attribute of a class or an instance gives: a bound proxy, or this one.
        function, receiver = binds(self), instance
        if function is None or instance is None:
            if self._self_kind != "class":
                return self
            function, receiver = self.__wrapped__, owner if owner is not None else type(instance)
        own: Any = self
        bound = kind(MethodType(function, receiver))
        put_call(bound, MethodType(own, receiver))
        return bound

    def __reduce_ex__(self, protocol: Any) -> Any:
        # As `functools.lru_cache`: by reference, so that the other process finds its own decorated function.
        if self._self_prefix:
            return getattr, (self._self_prefix[0], self.__name__)
        return self.__qualname__

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __repr__(self) -> str:
        # Where its entries are, unless asking would make the default cache.
        definition = self._self_definition
        if definition.has_cache():
            place = f"in {definition.cache!r}"
        else:
            place = "in the default cache" if definition.alias is None else f"in the alias {definition.alias!r}"
        return f"<cached {self.__module__}.{self.__qualname__} namespace={self.namespace!r} version={self.version} {place}>"

    # A wrapt proxy prints as what it wraps, but for its repr.
    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return format(repr(self), format_spec)


# The slots themselves: quicker than through the proxy, and a test may have put something before `__call__`.
put_call: Callable[[FunctionProxy, Callable[..., Any]], None] = FunctionProxy.__dict__["__call__"].__set__
get_call: Callable[[FunctionProxy], Any] = FunctionProxy.__dict__["__call__"].__get__
binds: Callable[[FunctionProxy], Any] = FunctionProxy.__dict__["_self_binds"].__get__


bind: Callable[[Any, Any, Any, Any], Any] = FunctionProxy.__dict__["_self_bound"]


class BoundFunctionProxy(FunctionProxy):
    """A decorated function on an instance or class. One is made whenever the attribute is asked for, so it keeps nothing of its
    own: its `__call__` is a method of the proxy that was bound, and leads to the rest."""

    _self_kind = "bound"

    __init__ = Proxy.__init__  # pyright: ignore[reportAssignmentType]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self

    @property
    def _self_definition(self) -> Definition:  # type: ignore[override]
        definition: Definition = get_call(self).__func__._self_definition
        return definition

    @property
    def _self_prefix(self) -> tuple[Any, ...]:  # type: ignore[override]
        return (get_call(self).__self__,)
