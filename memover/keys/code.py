"""What a function does, read off the code that runs and not off its source.

A file may have been edited since it was imported, and a cell of a notebook has none; the code object is what answers.
Comments, layout, docstrings, annotations and line numbers do not count. Code differs between
Python versions, so a fingerprint is good for processes of one version.

`fingerprint` follows what a function calls: functions and classes of its own top-level package (its own module, for a
program or a notebook), found by name through globals, closures, modules, classes with their bases, and `self`. Not seen: values
of globals, functions of other packages, what is only found at run time (an argument, an element of a dict), compiled functions.
"""

from __future__ import annotations

import functools
import re
import sys
from bisect import bisect_left
from hashlib import blake2b
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, CO_VARARGS, CO_VARKEYWORDS
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from memover.classes.annotations import closure_of
from memover.classes.naming import function_name, module_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["codes_within", "fingerprint", "found_under", "functions_in", "outline", "same_codes", "wrapped_by"]

_SILENT = frozenset({"CACHE", "COPY_FREE_VARS", "EXTENDED_ARG", "MAKE_CELL", "NOP", "PRECALL", "PUSH_NULL", "RESUME"})
"""Instructions that say nothing of what the code does, or that layout may add."""

_NAMED = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"})
_KINDS = CO_VARARGS | CO_VARKEYWORDS | CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR
_HALVES = re.compile("LOAD_FAST|STORE_FAST")
_DEPTH_LIMIT = 100


def same_code(one: CodeType, other: CodeType) -> bool:
    """Whether two code objects do the same."""
    return one is other or outline(one) == outline(other)


def same_codes(one: Sequence[CodeType], other: Sequence[CodeType]) -> bool:
    """Whether these do the same, one by one."""
    return len(one) == len(other) and all(map(same_code, one, other))


def outline(code: CodeType) -> tuple[Any, ...]:
    """What counts of a code object, as nested tuples of texts and numbers."""
    import dis  # not needed by most programs

    jumps = {*dis.hasjrel, *dis.hasjabs}
    texts = {*dis.hasname, *dis.haslocal, *dis.hasfree}
    offsets: list[int] = []
    steps: list[tuple[str, Any]] = []
    for each in dis.get_instructions(code):
        name, what = each.opname, each.argval
        if name in _SILENT:
            continue
        if "_FAST_" in name and isinstance(what, tuple):  # two in one, where they stand on one line: 3.13 and later
            for half, local in zip(_HALVES.findall(name), what):
                offsets.append(each.offset)
                steps.append((half, local))
            continue
        if each.opcode in dis.hasconst:
            what = _constant(what)
        elif each.opcode not in jumps and each.opcode not in texts:
            what = each.arg
        # The name of an inner function, up to 3.10, and the line of an inner class, from 3.13 on, are constants.
        if steps and (what == "__firstlineno__" or (name == "MAKE_FUNCTION" and (steps[-1][1] or ("",))[0] == "str")):
            steps[-1] = (steps[-1][0], None)
        offsets.append(each.offset)
        steps.append((name.replace("_BORROW", ""), what))

    def place(offset: int) -> int:
        return bisect_left(offsets, offset)

    steps = [(name, place(what)) if dis.opmap.get(name) in jumps else (name, what) for name, what in steps]
    # Where exceptions go is beside the code from 3.11 on.
    parse: Any = getattr(dis, "_parse_exception_table", None)
    handlers = [] if parse is None else [tuple(each) for each in parse(code)]
    parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return (
        parameters,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags & _KINDS,
        tuple(tuple(map(place, each[:3])) + each[3:] for each in handlers),
        tuple(steps),
    )


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return outline(value)
    if isinstance(value, tuple):
        return ("tuple", *map(_constant, value))
    if isinstance(value, frozenset):
        return ("frozenset", *sorted((_constant(each) for each in value), key=repr))
    return (type(value).__name__, repr(value))


def codes_within(code: CodeType) -> Iterator[CodeType]:
    """A code object and those of the functions and classes inside it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from codes_within(each)


def functions_in(thing: Any) -> Iterator[FunctionType]:
    """The plain functions that a callable is made of, outermost first: through wrappers, partials, methods and proxies.

    Asks the object itself for nothing: what a program's globals hold may be proxies that load something when asked."""
    for _ in range(_DEPTH_LIMIT):
        kind = type(thing)
        if issubclass(kind, (functools.partial, functools.partialmethod, functools.cached_property)):
            thing = thing.func
        elif issubclass(kind, (classmethod, staticmethod, MethodType)):
            thing = thing.__func__
        elif issubclass(kind, property):
            thing = thing.fget
        else:
            wrapper, inner = wrapped_by(thing)
            if kind is FunctionType:
                yield thing
            elif type(wrapper) is FunctionType:
                yield wrapper
            if inner is None:
                return
            thing = inner


def wrapped_by(thing: Any) -> tuple[Any, Any]:
    """The wrapper of a wrapt proxy, and what a proxy or anything else with `__wrapped__` wraps; None for neither."""
    proxies = getattr(sys.modules.get("wrapt"), "BaseObjectProxy", None)
    if proxies is not None and issubclass(type(thing), proxies):
        return getattr(thing, "_self_wrapper", None), thing.__wrapped__
    try:
        own = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return None, None
    return None, own.get("__wrapped__") if type(own) is dict else None


def fingerprint(function: Any, *layers: FunctionType) -> str:
    """8 hex digits of what a function and the functions of its own package that it calls do, as they are now.

    `layers` are further functions that it is made of: wrappers, local functions that it captured."""
    roots = list(functions_in(function))
    if not roots:
        roots = list(functions_in(getattr(type(function), "__call__", None)))  # noqa: B004  # the function is wanted
    packages = {module_of(each).partition(".")[0] for each in roots[-1:]}
    roots += [each for each in layers if each not in roots]
    parts = {f"{index}": repr(outline(each.__code__)) for index, each in enumerate(roots)}
    seen = set(roots)
    pending = list(roots)
    while pending:
        for each in _called(pending.pop()):
            if each not in seen and module_of(each).partition(".")[0] in packages:
                seen.add(each)
                pending.append(each)
                name = function_name(each).partition(":")[2]
                # Functions of one name (overloads, closures) count together.
                parts[name] = "\n".join(sorted({*parts.get(name, "").splitlines(), repr(outline(each.__code__))}))
    whole = "\n".join(f"{name} {text}" for name, text in sorted(parts.items()))
    return blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def _called(function: FunctionType) -> Iterator[FunctionType]:
    """The plain functions that the names in a function's code lead to."""
    code = function.__code__
    # A variable of a function around it that is not assigned yet is no global either.
    names = {**function.__globals__, **dict.fromkeys(code.co_freevars), **closure_of(function)}
    owner = names.get("__class__") or _owner(function)
    receiver = code.co_varnames[0] if owner is not None and code.co_argcount else ""
    for each in codes_within(code):
        yield from _loaded(each, names, owner, receiver, own=each is code)


def _loaded(code: CodeType, names: dict[str, Any], owner: Any, receiver: str, own: bool) -> Iterator[FunctionType]:
    import dis

    found: Any = None
    for each in dis.get_instructions(code):
        kind, name = each.opname, each.argval
        if kind in _SILENT:
            continue
        if kind in _NAMED:
            found = owner if name == receiver and kind != "LOAD_GLOBAL" else names.get(name)
        elif kind.startswith("LOAD_FAST"):
            found = owner if own and receiver and (name[-1] if isinstance(name, tuple) else name) == receiver else None
        elif kind in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR"):
            found = _attribute(found, name)
        elif kind.startswith("LOAD_SUPER"):
            found = _attribute(owner, name, 1)
        else:
            found = None
        yield from _functions_of(found)


def _attribute(thing: Any, name: Any, skip: int = 0) -> Any:
    if thing is None or type(thing) is FunctionType or not isinstance(name, str):
        return None
    if isinstance(thing, ModuleType):
        return vars(thing).get(name)
    kind = thing if isinstance(thing, type) else type(thing)
    return next((vars(base)[name] for base in kind.__mro__[skip:] if name in vars(base)), None)


def _functions_of(thing: Any) -> Iterator[FunctionType]:
    if isinstance(thing, type):  # which of its methods are called on its instances is not known, its bases' among them
        for base in thing.__mro__:
            for each in vars(base).values():
                if not isinstance(each, type):
                    yield from _functions_of(each)
    elif issubclass(type(thing), property):
        for each in (thing.fget, thing.fset, thing.fdel):
            yield from functions_in(each)
    elif thing is not None and not isinstance(thing, ModuleType):
        yield from functions_in(thing)
        yield from functions_in(_attribute(thing, "__call__"))


def _owner(function: FunctionType) -> type | None:
    """The class in whose body a function stands, if its module leads to it by name."""
    found = found_under(function.__globals__, function.__qualname__.rpartition(".")[0])
    return found if isinstance(found, type) else None


def found_under(namespace: Mapping[str, Any], qualname: str) -> Any:
    """What a module's dict holds under a qualified name, through its classes; None if that is nothing."""
    first, *rest = qualname.split(".")
    found: Any = namespace.get(first)
    for name in rest:
        found = vars(found).get(name) if isinstance(found, type) else None
    return found
