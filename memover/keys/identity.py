"""Who is the same function: its name, its code, and what it holds on to.

Two callables that can answer differently never share an entry, and the same function keeps its entries when it is
imported, reloaded, pickled or started as a program. Two things see to that: the key part, made here, and the claim on a
namespace, in `ownership`. What a function holds on to is found in `captures`, which run of its module made it in `execution`.

The key part (`Identity.part`) tells apart, in every process, what one source text makes many of. It enters the digest of
every call. It is empty for a plain named function.

    made by                          what is in the key part
    -------------------------------  -------------------------------------------------------------------------
    closure, lambda, local class     the immutable plain values captured, as they are when it is decorated: None, bool,
                                     int, float, complex, Decimal, Fraction, str, bytes, date, time, datetime, timedelta,
                                     UUID, enum members, tuples and frozensets of these; with those that the body of its
                                     local class, or a local function that it captured, took in, and those put on local functions
                                     as attributes that are asked for
    functools.partial                its arguments, as they are at each call
    bound method, `__call__`         the object, as `self` would be: at each call

Everything else that a function holds on to is a `Capture`: compared, by identity, with what another function of the same
code holds on to. So are the defaults of parameters that are in no key.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from .canonical import encode
from .captures import Gathered, made_inside
from .code import functions_in
from .execution import execution_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FunctionType

    from .captures import Capture

__all__ = ["Identity", "label"]


class Identity:
    """What tells one decorated function from another: made in the decorator's own thread, kept by the decorated form.

    `title` is what messages call the function, `key` is what makes its keys (a template, a callable or None), `counting` names
    the parameters whose values are in the key already.

    `name` is "module:qualname", `where` is "file:line" ("" for compiled functions). `part` is the key part: bytes, or a
    callable that gives them at each call and raises `UnkeyableArgument`. `function` is the plain function inside all wrappers
    (None: compiled), `functions` are all whose code may answer: its wrappers, the local functions it captured, what makes its keys.

    Raises `ConfigurationError` for a partial whose arguments, or a bound method or callable whose object, cannot be part of
    a key.
    """

    __slots__ = (
        "__weakref__", "captures", "execution", "follow_code", "function", "functions", "local", "marks", "name", "part", "plain",
        "serial", "title", "warned", "where",
    )  # fmt: skip

    def __init__(
        self, function: Any, title: str, *, key: Any = None, counting: tuple[str, ...] = (), follow_code: bool = False
    ) -> None:
        self.title = title
        self.follow_code = follow_code
        self.serial = next(_serials)
        self.marks: dict[Any, int] = {}
        self.warned = False
        gathered = Gathered(title, counting)
        gathered.walk(function)
        gathered.key(key)
        gathered.attributes()
        self.function = gathered.innermost
        self.functions: tuple[FunctionType, ...] = tuple(gathered.functions)
        self.captures: tuple[Capture, ...] = tuple(gathered.captures)
        self.local = self.function is not None and made_inside(self.function)
        self.name = gathered.name or f"{type(function).__module__}:{type(function).__qualname__}"
        code = None if self.function is None else self.function.__code__
        self.where = "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"
        self.execution = execution_of(self.function)
        self.plain = _joined(gathered.plain)
        self.part: bytes | Callable[[], bytes] = self.plain
        if gathered.live:
            live, plain = tuple(gathered.live), tuple(gathered.plain)

            def part() -> bytes:
                return _joined([*plain, *((label, encode(value, label, title)) for label, value in live)])

            self.part = part

    @property
    def codes(self) -> tuple[CodeType, ...]:
        """The code of every function it is made of, as it is now: a debugger or `%autoreload` may put
        other code into a function."""
        return tuple(each.__code__ for each in self.functions)

    def __repr__(self) -> str:
        return f"<Identity {self.name} {self.where}>"


_serials = count(1)


def _joined(parts: list[tuple[str, bytes]]) -> bytes:
    """Labels and values, each with its length, so that no two lists join alike; b"" for none."""
    named = [(label.encode("utf-8", "surrogatepass"), value) for label, value in parts]
    return b"".join(b"%d:%b%d:%b" % (len(name), name, len(value), value) for name, value in named)


def label(function: Any) -> str:
    """One text for each function, for listings: equal for a function decorated again, or imported under two names."""
    plain = [function, *functions_in(function)][-1]
    code = getattr(plain, "__code__", None)
    name = getattr(plain, "__qualname__", type(plain).__qualname__)
    return f"{getattr(plain, '__module__', None)}.{name}" if code is None else f"{name} ({code.co_filename})"
