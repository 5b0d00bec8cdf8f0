"""Which classes stored bytes may rebuild: those that the program itself names, and no others.

A class is known to a function's codec when it is

    reachable    from the return annotation: nested, generic, in unions, and through the fields of dataclasses, attrs,
                 pydantic, msgspec, TypedDict and NamedTuple classes and of their bases
    given        in `types=` (the exceptions of `cache_errors`, say)
    registered   with `register_value`
    at home      defined in the module of the decorated function, at the place its qualified name says
    builtin      an exception class of `builtins`

A stored name is only ever looked up among these. No lookup imports a module, or calls `getattr` on one (a module's
`__getattr__` may import): namespaces are read as dicts.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

from memover.classes.annotations import innermost
from memover.classes.naming import class_name, module_name
from memover.classes.places import look_up
from memover.classes.reach import Reach
from memover.classes.registered import registered_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["KnownClasses"]


class KnownClasses:
    """The classes one function's stored results may be made of, found when first needed.

    The annotation is read at the first class that is not at home or registered, so that forward references to
    classes defined later work; while a name in it cannot be resolved yet, it is read again.
    """

    def __init__(self, function: Callable[..., Any] | None, given: Iterable[type]) -> None:
        self._function = None if function is None else innermost(function)
        self._given = tuple(given)
        self._index: dict[str, type | None] = {}
        self._complete = False
        self._home: str = getattr(self._function, "__module__", None) or ""

    def find(self, name: str) -> type | None:
        """The class known under a stored name, or None."""
        module, _, qualname = name.partition(":")
        registration = registered_name(name)
        if registration is not None:
            return registration.kind
        if not self._complete:
            found = self._index.get(name)
            if found is not None:
                return found
        if module == "builtins":
            candidate = vars(builtins).get(qualname)
            return candidate if isinstance(candidate, type) and issubclass(candidate, BaseException) else None
        if self._home and module == module_name(self._home):
            candidate = look_up(self._home, qualname)
            if candidate is not None and class_name(candidate) == name:
                return candidate
        if not self._complete:
            self._read()
        return self._index.get(name)

    def admits(self, kind: type) -> bool:
        """Whether what is stored of this class would be rebuilt as this very class."""
        return self.find(class_name(kind)) is kind

    def forget(self) -> None:
        """Has the annotation read again when it is next needed: a name in it may lead to another class by now."""
        self._complete = False
        self._index = {}

    def _read(self) -> None:
        reach = Reach(self._function)
        for kind in self._given:
            reach.follow(kind, kind.__module__)
        index: dict[str, type | None] = {}
        for kind in reach.found:
            name = class_name(kind)
            # Two classes under one name: neither could be told from the other in stored bytes.
            index[name] = None if name in index and index[name] is not kind else kind
        self._index = index
        self._complete = reach.complete
