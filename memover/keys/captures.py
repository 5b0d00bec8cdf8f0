"""What a function holds on to: through wrappers, partials, methods and closures, and which of it is part of its key.

`Gathered` walks from the outermost callable to the plain function inside and sorts what each layer holds into `plain`
(bytes for the key), `live` (encoded at each call) and `captures` (compared by identity); see the table in `identity`.
"""

from __future__ import annotations

import builtins
import functools
import sys
from enum import Enum
from inspect import CO_NESTED, CO_OPTIMIZED
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from memover.classes.annotations import closure_of
from memover.classes.naming import class_name, function_name
from memover.errors import ConfigurationError, UnkeyableArgument, raised_by_handler

from .canonical import encode_whole
from .code import codes_within, functions_in, outline, wrapped_by
from .refusal import Unkeyable, type_name

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ATTRIBUTE", "DEFAULT", "GLOBALS", "KEY", "Capture", "Gathered", "is_plain", "made_inside"]

GLOBALS = " (a global)"
"""The end of the label of a global that a function uses, where its module may have many of that name (those of `exec`)."""

KEY = "key="
"""The label of what makes the keys, and the beginning of the labels of what that captured."""

DEFAULT = " (a default)"
"""The end of the label of a parameter's default."""

ATTRIBUTE = " (an attribute)"
"""The end of the label of what was put on a local function."""

_DEPTH_LIMIT = 100

_PLAIN_TYPES = frozenset({type(None), bool, int, float, complex, str, bytes})
_PLAIN_NAMES = frozenset(
    {
        "datetime.date", "datetime.time", "datetime.datetime", "datetime.timedelta", "decimal.Decimal",
        "fractions.Fraction", "uuid.UUID",
    }
)  # fmt: skip


class Capture(NamedTuple):
    """A thing a function holds on to that cannot be in its key; `cell` is the variable itself where there is one."""

    label: str
    value: Any
    cell: Any = None


class Gathered:
    """Walks through wrappers, partials, methods and closures and collects what each layer holds.

    `outermost` is what it began with: what refers back to that tells nothing. `none_counts`: a captured None is part of the key,
    which it is not for functions."""

    def __init__(
        self, title: str, counting: tuple[str, ...], *, outermost: Any = None, none_counts: bool = False
    ) -> None:
        self.title = title
        self.counting = counting
        self.name = ""
        self.functions: list[FunctionType] = []
        self._paths: list[str] = []
        self.captures: list[Capture] = []
        self.plain: list[tuple[str, bytes]] = []
        self.live: list[tuple[str, Any]] = []
        self.innermost: FunctionType | None = None
        self.outermost = outermost
        self.none_counts = none_counts

    def walk(self, thing: Any) -> None:
        """Collects what every layer of a callable holds, and finds its name and the plain function inside."""
        self.outermost = thing
        for _ in range(_DEPTH_LIMIT):
            if isinstance(thing, (classmethod, staticmethod)):
                thing = thing.__func__
                continue
            kind = type(thing)
            if isinstance(thing, functools.partial):
                self._partial(thing)
                thing = thing.func
                continue
            if not self.name and isinstance(getattr(thing, "__qualname__", None), str):
                self.name = function_name(thing)
            if kind is MethodType:
                self._bound(thing.__self__)
                thing = thing.__func__
            elif kind is FunctionType:
                self.innermost = thing
                inner = thing.__dict__.get("__wrapped__")
                self.layer(thing, "", inner)
                if inner is None:
                    return
                thing = inner
            elif isinstance(thing, BuiltinFunctionType) or kind.__name__ == "method-wrapper":
                owner = getattr(thing, "__self__", None)
                if owner is not None and not isinstance(owner, ModuleType):
                    self._bound(owner)
                return
            elif (inner := getattr(thing, "__wrapped__", None)) is not None:
                self._proxy(thing, wrapped_by(thing)[0])
                thing = inner
            elif self.name and isinstance(getattr(thing, "__qualname__", None), str):
                self.captures.append(Capture(thing.__qualname__, thing))  # compiled: its name is all there is to see
                return
            else:
                self._bound(thing)
                call = getattr(kind, "__call__", None)  # noqa: B004  # the function is wanted, not the answer
                self.name = f"{class_name(kind)}.__call__"
                for each in functions_in(call):
                    self.innermost = each
                    self.layer(each, "", None)
                return

    def key(self, key: Any) -> None:
        """What makes the keys: under another template or callable one text means another call."""
        if isinstance(key, str):
            self.captures.append(Capture(KEY, encode_whole(key)))
        elif type(key) is FunctionType:
            self.layer(key, KEY, None)
        elif key is not None:
            self.captures.append(Capture(KEY, key))

    def attributes(self) -> None:
        """What was put on local functions (`helper.limit = 3`), as far as their code asks for something of that name."""
        known: set[tuple[int, str]] = set()
        number = -1
        while number != len(self.functions):  # one that is found so may hold, and ask for, more
            number = len(self.functions)
            asked = {name for each in self.functions for code in codes_within(each.__code__) for name in code.co_names}
            for function, path in list(zip(self.functions, self._paths)):
                for name in sorted(asked & vars(function).keys()) if made_inside(function) else ():
                    value = vars(function)[name]
                    if (id(function), name) not in known and value is not self.outermost and value is not function:
                        known.add((id(function), name))
                        self._captured(path + name + ATTRIBUTE, value)

    def layer(self, function: FunctionType, path: str, inner: Any) -> None:
        """A layer: its code, what it captured, and those of its defaults that no key holds."""
        if any(each is function for each in self.functions):
            return
        self.functions.append(function)
        self._paths.append(path)
        code = function.__code__
        namespace = function.__globals__
        if not _is_of_a_module(namespace, code):
            self.captures += _globals_used(function, path)
        for name, cell in zip(code.co_freevars, function.__closure__ or ()):
            try:
                value = cell.cell_contents
            except ValueError as error:
                if raised_by_handler(error):
                    raise
                # A function that calls itself: the variable is about to hold its decorated form.
                if name not in (code.co_name, function.__name__):
                    self.captures.append(Capture(path + name, cell, cell))
                continue
            counts = value is None and self.none_counts
            own = value is function or value is inner or value is self.outermost or _is_form_of(value, function)
            if own and not counts:
                continue
            self._captured(path + name, value, cell)
        defaults = function.__defaults__ or ()
        positional = code.co_varnames[: code.co_argcount][code.co_argcount - len(defaults) :]
        for name, value in (*zip(positional, defaults), *(function.__kwdefaults__ or {}).items()):
            if name not in self.counting:
                # The user said that this parameter does not count, so it is compared and not in the key.
                self.captures.append(Capture(path + name + DEFAULT, encode_whole(value) if is_plain(value) else value))
        if made_inside(function):
            for name, value in _from_class_body(function):
                self._captured(path + name, value)

    def _captured(self, label: str, value: Any, cell: Any = None) -> None:
        if is_plain(value):
            self.plain.append((label, encode_whole(value)))
        elif type(value) is MethodType:  # made anew each time it is asked for
            self.captures.append(Capture(f"{label}.__self__", value.__self__))
            self._captured(f"{label}.__func__", value.__func__, cell)
        elif type(value) is FunctionType and made_inside(value) and label.count(".") < _DEPTH_LIMIT:
            # A local function is made anew whenever the one around it runs: it is what it captured in turn.
            self.layer(value, f"{label}.", None)
        else:
            self.captures.append(Capture(label, value, cell))

    def _proxy(self, thing: Any, wrapper: Any) -> None:
        if type(wrapper) is FunctionType:
            self.layer(wrapper, "", None)
        elif wrapper is not None:
            self._captured("wrapper", wrapper)
        elif type(thing).__module__ != "functools" and not hasattr(type(thing), "cache_parameters"):
            # An object that wraps a function (not lru_cache's, not our own form): what it holds may change the answer.
            self.captures.append(Capture(type(thing).__qualname__, thing))

    def _partial(self, thing: Any) -> None:
        keywords = sorted(thing.keywords.items())
        for label, value in (*((f"argument {n}", v) for n, v in enumerate(thing.args, 1)), *keywords):
            if type(value).__name__ == "_PlaceholderType":
                self.plain.append((label, b"placeholder"))
            elif is_plain(value):
                self.plain.append((label, encode_whole(value)))
            else:
                self._live(
                    label,
                    value,
                    f"{self.title}: {label} of the functools.partial, of type {type_name(type(value))}, cannot be part of "
                    f"a key",
                    "Pass it at each call instead, or decorate a def that uses it.",
                )

    def _bound(self, owner: Any) -> None:
        kind = type_name(type(owner)) if not isinstance(owner, type) else f"class {type_name(owner)}"
        self._live(
            "self",
            owner,
            f"{self.title}: the object that it is bound to, a {kind}, cannot be part of a key",
            f"Give {kind} a __memover_key__() that returns what tells its objects apart, or decorate the function in the "
            f"class, with ignore=('self',) if the result does not depend on the object.",
        )

    def _live(self, label: str, value: Any, what: str, todo: str) -> None:
        try:
            encode_whole(value)
        except Unkeyable as refused:
            raise ConfigurationError(f"{what}: {refused.reason}. {todo}") from refused.__cause__
        except UnkeyableArgument as error:
            raise ConfigurationError(f"{what}: {error} {todo}") from error
        self.live.append((label, value))


def _is_form_of(value: Any, function: FunctionType) -> bool:
    """Whether this is an object that wraps the function, its own decorated form say."""
    return type(value) is not FunctionType and wrapped_by(value)[1] is function


def _is_of_a_module(namespace: dict[str, Any], code: CodeType) -> bool:
    """Whether these globals are the only ones that code of this module has: those of `exec` may be one dict of many."""
    module = sys.modules.get(namespace.get("__name__", ""))
    return (module is not None and vars(module) is namespace) or namespace.get("__file__") == code.co_filename


def _globals_used(function: FunctionType, path: str) -> Iterator[Capture]:
    """What a function, and the functions that it finds there, find in globals that are not the only ones of their module."""
    namespace = function.__globals__
    seen: set[str] = set()
    pending = [function]
    while pending:
        names = {name for code in codes_within(pending.pop().__code__) for name in code.co_names} - seen
        seen |= names
        for name in sorted(names):
            value = namespace.get(name, namespace)
            if is_plain(value):
                value = encode_whole(value)
            elif type(value) is FunctionType and value.__globals__ is namespace:
                pending.append(value)
                for label, held in _held(value):
                    yield Capture(f"{path}{name}.{label}{GLOBALS}", encode_whole(held) if is_plain(held) else held)
                value = repr(outline(value.__code__)).encode("utf-8", "surrogatepass")
            elif value is namespace and hasattr(builtins, name):
                continue
            yield Capture(path + name + GLOBALS, value)


def _held(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The defaults of a function and what it captured, except for itself."""
    for number, value in enumerate(function.__defaults__ or ()):
        yield f"__defaults__[{number}]", value
    yield from (function.__kwdefaults__ or {}).items()
    yield from ((name, value) for name, value in closure_of(function).items() if value is not function)


def made_inside(function: FunctionType) -> bool:
    """Whether a function was made by another one, or is a lambda: one source text may make many of it."""
    return bool(function.__code__.co_flags & CO_NESTED) or function.__code__.co_name == "<lambda>"


def is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a captured value is immutable and plain, and so part of the key."""
    kind = type(value)
    if kind in _PLAIN_TYPES:
        return True
    if kind is tuple or kind is frozenset:
        return depth < _DEPTH_LIMIT and all(is_plain(each, depth + 1) for each in value)
    if issubclass(kind, Enum):
        # Of an enum made inside a function there may be many, under one name and with other values.
        return "<locals>" not in kind.__qualname__ and _encodes(value)
    if type_name(kind) in _PLAIN_NAMES or type_name(kind).startswith("freezegun.api.Fake"):
        return getattr(value, "tzinfo", None) is None or _encodes(value)
    return False


def _encodes(value: Any) -> bool:
    try:
        encode_whole(value)
    except Unkeyable:
        return False
    return True


def _from_class_body(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What the body of a local class took from the functions around it, while that body is running."""
    owner, _, _ = function.__qualname__.rpartition(".")
    frame: Any = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        inside = frame.f_globals is function.__globals__ and not code.co_flags & CO_OPTIMIZED and code.co_freevars
        if inside and owner and frame.f_locals.get("__qualname__") == owner:
            break
        frame = frame.f_back
    if frame is None:
        return
    wanted = [
        name for name in frame.f_code.co_freevars if name not in function.__code__.co_freevars and name[:2] != "__"
    ]
    frame = frame.f_back
    while wanted and frame is not None:
        if frame.f_code.co_flags & CO_OPTIMIZED:
            held = frame.f_locals
            for name in [name for name in wanted if name in held]:
                wanted.remove(name)
                yield name, held[name]
        frame = frame.f_back
