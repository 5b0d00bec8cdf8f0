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
import dataclasses
import functools
import sys
import types
import typing
from typing import TYPE_CHECKING, Any

from memover.codec.registry import class_name, module_name, registered_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["KnownClasses", "innermost"]


def innermost(function: Any) -> Any:
    """Return the plain function inside wrappers, partials, bound methods, class and static methods."""
    for _ in range(100):
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, (classmethod, staticmethod, types.MethodType)):
            function = function.__func__
        elif hasattr(function, "__wrapped__") and not isinstance(function, type):
            function = function.__wrapped__
        else:
            break
    if isinstance(function, (types.FunctionType, types.BuiltinFunctionType, type)):
        return function
    call = getattr(type(function), "__call__", None)  # noqa: B004 - the function is wanted, not the answer
    return call if isinstance(call, types.FunctionType) else function


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
        """Return the class known under a stored name, or None."""
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
            candidate = _look_up(sys.modules.get(self._home), qualname)
            if candidate is not None and class_name(candidate) == name:
                return candidate
        if not self._complete:
            self._read()
        return self._index.get(name)

    def admits(self, kind: type) -> bool:
        """Say whether what is stored of this class would be rebuilt as this very class."""
        return self.find(class_name(kind)) is kind

    def _read(self) -> None:
        reader = _Reader(self._function)
        for kind in self._given:
            reader.follow(kind, kind.__module__)
        if self._function is not None:
            reader.follow_function(self._function)
        index: dict[str, type | None] = {}
        for kind in reader.found:
            name = class_name(kind)
            # Two classes under one name: neither could be told from the other in stored bytes.
            index[name] = None if name in index and index[name] is not kind else kind
        self._index = index
        self._complete = reader.complete


def _look_up(module: types.ModuleType | None, qualname: str) -> type | None:
    namespace: Any = None if module is None else vars(module)
    found: type | None = None
    for part in qualname.split("."):
        if namespace is None:
            return None
        candidate = namespace.get(part)
        if not isinstance(candidate, type):
            return None
        found = candidate
        namespace = type.__dict__["__dict__"].__get__(found)
    return found


class _Reader:
    """Collects classes from annotations; a name that cannot be resolved is left out and noted."""

    def __init__(self, function: Any) -> None:
        self.found: dict[type, None] = {}
        self.complete = True
        self._seen: set[int] = set()
        self._kept: list[Any] = []
        self._locals = dict(_closure(function))
        self._pending: list[tuple[Any, str]] = []

    def follow_function(self, function: Any) -> None:
        if isinstance(function, type):
            self.follow(function, function.__module__)
            return
        module = getattr(function, "__module__", "") or ""
        annotation = _annotations(function).get("return", None)
        if annotation is not None:
            self.follow(annotation, module)

    def follow(self, annotation: Any, module: str) -> None:
        self._pending.append((annotation, module))
        while self._pending:
            self._step(*self._pending.pop())

    def _step(self, annotation: Any, module: str) -> None:
        if isinstance(annotation, typing.ForwardRef):
            annotation = annotation.__forward_arg__
        if isinstance(annotation, str):
            try:
                annotation = self._evaluate(annotation, module)
            except Exception:
                self.complete = False
                return
            if isinstance(annotation, str):
                return
        if annotation is None or annotation is Any or id(annotation) in self._seen:
            return
        self._seen.add(id(annotation))
        self._kept.append(annotation)  # an id is only good while its object lives
        push = self._pending.append
        if isinstance(annotation, (list, tuple)):  # the parameters of a Callable, or of a class
            for each in annotation:
                push((each, module))
            return
        if typing.get_origin(annotation) is typing.Literal:
            for each in typing.get_args(annotation):
                push((type(each), module))
            return
        for attribute in ("__origin__", "__supertype__", "__value__", "__bound__"):
            if not isinstance(annotation, type) or attribute == "__origin__":
                try:
                    inner = getattr(annotation, attribute, None)
                except Exception:
                    self.complete = False
                    continue
                if inner is not None:
                    push((inner, getattr(annotation, "__module__", None) or module))
        for each in (*typing.get_args(annotation), *(getattr(annotation, "__constraints__", ()) or ())):
            push((each, module))
        if isinstance(annotation, dataclasses.InitVar):
            push((annotation.type, module))
        if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
            self._class(annotation)

    def _class(self, kind: type) -> None:
        if kind.__module__ in ("builtins", "typing") and not issubclass(kind, BaseException):
            return
        self.found[kind] = None
        push = self._pending.append
        for base in kind.__mro__:
            module = base.__module__
            if module in ("builtins", "typing", "pydantic.main", "abc", "enum", "msgspec"):
                continue
            for annotation in _annotations(base).values():
                push((annotation, module))
            for generic in base.__dict__.get("__orig_bases__", ()):
                push((generic, module))
        module = kind.__module__
        for annotation in _field_types(kind):
            push((annotation, module))

    def _evaluate(self, text: str, module: str) -> Any:
        namespace = vars(sys.modules[module]) if module in sys.modules else {}
        known = {each.__name__: each for each in self.found}
        return eval(text, dict(namespace), {**known, **self._locals})  # noqa: S307 - the program's own source text


def _closure(function: Any) -> Iterator[tuple[str, Any]]:
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    for name, cell in zip(getattr(code, "co_freevars", ()), cells or ()):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue


def _annotations(owner: Any) -> dict[str, Any]:
    try:
        if isinstance(owner, type):
            found = owner.__dict__.get("__annotations__")  # noqa: RUF063 - inspect is slow to import
            if found is None and sys.version_info >= (3, 14):
                import annotationlib

                found = annotationlib.get_annotations(owner, format=annotationlib.Format.FORWARDREF)
        else:
            found = owner.__annotations__
        return dict(found or {})
    except Exception:
        return {}


def _field_types(kind: type) -> Iterator[Any]:
    """The resolved field types that attrs, pydantic and dataclasses made at run time keep beside the annotations."""
    for each in getattr(kind, "__attrs_attrs__", ()) or ():
        yield getattr(each, "type", None)
    fields = kind.__dict__.get("__pydantic_fields__")
    if isinstance(fields, dict):
        for each in fields.values():
            yield getattr(each, "annotation", None)
    fields = kind.__dict__.get("__dataclass_fields__")
    if isinstance(fields, dict):
        for each in fields.values():
            yield each.type
