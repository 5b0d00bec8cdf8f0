"""From a call to the text of its key, by a function compiled once per decorated function.

Canonical bytes of a call, which the default text digests (blake2b, 128 bits, hex):

    c <n> :  then for each parameter that counts, in the order of the signature
    p <name as str> <value>       an ordinary parameter, however it was passed, its default applied
    a <name as str> <tuple>       *args
    k <name as str> <dict>        **kwargs

Names are part of it, those of positional-only parameters too: renaming, adding, removing or reordering
parameters makes every call a miss, and never reads an old entry under a new meaning. Only the values that
`ignore=` names are left out, and with `key=` only what the key names counts.

A function that is one of many (a closure, a partial, a bound method: see `identity`) has a key part, which goes before
these bytes:

    g <n> : <part>                n bytes

To a text that is no digest it is appended as `~~` and 32 hex digits; no such text holds two tildes.

`compile` gives a function with exactly the wrapped function's signature, so that the interpreter binds the
arguments, applies the defaults and complains in the function's own words. It keeps a bounded memo from calls to
records. The memo holds only calls whose counting arguments are all exactly int, str, bytes, bool, None or
float, and not long; it is looked up by the types first and the values then, because 1 == True == 1.0; zeros
and nans of type float stay out, because 0.0 == -0.0. It needs no lock: each step is one operation of a dict,
and a step lost to another thread costs one entry of the memo. Calls keyed by a callable are never in it: the
callable may look at more than its arguments.
"""

from __future__ import annotations

import inspect
import sys
from enum import Enum
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

from memover.errors import ConfigurationError, UnkeyableArgument

from .canonical import Keyed, encode, forget_with
from .compiler import Compiler, digest
from .memo import CallMemo
from .names import shorten
from .template import last_segment, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .template import Template

__all__ = ["MEMO_LIMIT", "Binding"]

R = TypeVar("R")

MEMO_LIMIT = 4096
"""How many calls the memo of one function holds, some 500 bytes each."""

_LETTERS: dict[Any, bytes] = {inspect.Parameter.VAR_POSITIONAL: b"a", inspect.Parameter.VAR_KEYWORD: b"k"}


class LeftOut(Enum):
    """In a key, an argument that was left out and whose default is a bare `object()`. Its name here is part of such keys."""

    LEFT_OUT = "left out"


class Binding:
    """How the calls of one function become key texts.

    `function` is anything callable with a signature; `name` is what messages call it. `key` is a template over
    parameter names or a callable that takes the function's own arguments (or some of them, by name); `ignore` names
    parameters that do not count. `ConfigurationError` for a name that is no parameter, a template that cannot
    be read, a `key` callable that cannot take the arguments, or a function without a signature and without a
    `key` callable.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        key: str | Callable[..., Any] | None = None,
        ignore: Iterable[str] = (),
        name: str | None = None,
    ) -> None:
        self.function = function
        self.name = name or qualified_name(function)
        self.signature = self._signature(key)
        self.parameters = tuple(self.signature.parameters)
        self.ignore = self._ignored(ignore, key)
        self.key = key
        self.part: bytes | Callable[[], bytes] = b""
        """What `identity` says tells this function from others of its source; a callable is asked at each call."""
        self.template: Template | None = None
        counting = tuple(name for name in self.parameters if name not in self.ignore)
        if isinstance(key, str):
            self.template = parse(key, counting, self.name)
            named = self.template.names()
            counting = tuple(name for name in counting if name in named)
        elif key is not None and not callable(key):
            raise ConfigurationError(
                f"{self.name}: key= must be a template or a callable, not {key!r}; write key='{{user_id}}', say"
            )
        self.counting = counting
        """The parameters whose values make the key, in the order of the signature."""
        kinds = {name: parameter.kind for name, parameter in self.signature.parameters.items()}
        self._heads = tuple(_LETTERS.get(kinds[name], b"p") + encode(name) for name in counting)
        # `def f(x, default=MISSING)` with `MISSING = object()`: what the caller left out is a value of its own.
        self._left_out = {
            name: parameter.default
            for name, parameter in self.signature.parameters.items()
            if type(parameter.default) is object
        }
        self._compiler = Compiler(self.signature, qualified_name(function), counting)
        if callable(key):
            self._key_call = self._compiler.call_of(self._key_arguments(key))

    def _signature(self, key: object) -> inspect.Signature:
        if not callable(self.function):
            raise ConfigurationError(f"{self.function!r} is not callable; decorate a function")
        try:
            return _signature(self.function)
        except (ValueError, TypeError) as error:
            if callable(key):
                return _signature(lambda *args, **kwargs: None)
            raise ConfigurationError(
                f"{self.name} has no signature that Python can show ({error}), so its arguments have no "
                "names; pass a callable as key=, or wrap it in a def"
            ) from None

    def _ignored(self, ignore: Iterable[str], key: object) -> frozenset[str]:
        if isinstance(ignore, str):
            raise ConfigurationError(f"{self.name}: ignore= takes names; write ignore=({ignore!r},)")
        names = tuple(ignore)
        for name in names:
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                raise ConfigurationError(
                    f"{self.name}: ignore= names {name!r}, which is not a parameter; the parameters are: {known}"
                )
        if names and callable(key):
            raise ConfigurationError(
                f"{self.name}: ignore= has no effect on a key= callable; let the callable leave it out"
            )
        return frozenset(names)

    def _key_arguments(self, key: Callable[..., Any]) -> tuple[str, ...] | None:
        """None when the callable takes all arguments as the function does, else the names it asks for."""
        try:
            wanted = _signature(key)
        except (ValueError, TypeError):
            return None
        args: list[object] = []
        kwargs: dict[str, object] = {}
        for parameter in self.signature.parameters.values():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                args.append(None)
            elif parameter.kind is parameter.KEYWORD_ONLY:
                kwargs[parameter.name] = None
        try:
            wanted.bind(*args, **kwargs)
        except TypeError:
            names = tuple(wanted.parameters)
            named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
            fits = all(p.name in self.parameters and p.kind in named for p in wanted.parameters.values())
            if fits and names:
                return names
            raise ConfigurationError(
                f"{self.name}: the key= callable takes {wanted}, which the function's own arguments "
                f"{self.signature} do not fit; give it the same parameters, or some of them by the same names"
            ) from None
        return None

    def compile(self, make: Callable[[str], R], memo_size: int | None = None) -> Callable[..., R]:
        """A function with the wrapped function's signature that returns `make(text)` for a call.

        A repeated call of short simple arguments returns the record made before, without a digest; the memo
        holds at most `memo_size` records (0: no memo; None: `MEMO_LIMIT`). `make` must not return None.
        May be called from any thread. Raises the `TypeError` of the function itself for wrong arguments,
        `UnkeyableArgument`, and what a `__memover_key__()` or a `key=` callable raises.
        """
        if memo_size is None:
            memo_size = MEMO_LIMIT
        if callable(self.part):
            memo_size = 0
        if callable(self.key):
            return self._compiler.keyed(make, self.key, self._key_call, self._marked(self._key_text))
        if self.template is not None:
            return self._compiler.lookup(make, self._marked(self._template_text(self.template)), memo_size)
        return self._compiler.lookup(make, self._inline_digest, memo_size, late=True)

    def hot(
        self, body: list[str], names: dict[str, Any], *, awaited: bool
    ) -> tuple[Callable[..., Any], Callable[[], int]] | None:
        """A function with the wrapped function's signature around `body`, which keeps things by arguments: `Compiler.hot`.

        None where equal arguments need not have equal texts, so that `compile` remembers nothing either."""
        if callable(self.key) or callable(self.part):
            return None
        first = next(iter(self.parameters), "")
        keyed = first == "self" and self.key is None and first in self.counting[:1] and not self._left_out
        memo = CallMemo(MEMO_LIMIT, self._same_digest if keyed else None)
        if keyed:
            forget_with(memo)
        return self._compiler.hot(body, names, memo, awaited=awaited, keyed=keyed)

    def _same_digest(self, kind: type, part: Any, others: tuple[Any, ...], key: Any) -> bool:
        """Whether the key is that of an object of this class that says `part` of itself, and of these other arguments."""
        if len(others) != len(self.counting) - 1:  # *args or **kwargs among them
            return False
        try:
            text: str = self._digest(Keyed(kind, part), *others)
        except UnkeyableArgument:
            return False
        return bool(key.text.endswith(f":{text}"))

    def _marked(self, text: Callable[..., str]) -> Callable[..., str]:
        """A maker of texts with the key part after them."""
        if not self.part:
            return text

        def marked(*values: Any) -> str:
            part = blake2b(self._part(), digest_size=16).hexdigest()
            return shorten(f"{text(*values)}~~{part}")

        return marked

    def _part(self) -> bytes:
        return self.part() if callable(self.part) else self.part

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Parameter name to bound value, defaults applied, ignored ones left out.

        `*args` are under their parameter's name as a tuple, `**kwargs` as a dict.
        """
        bind = self.__dict__.get("_bind")
        if bind is None:
            names = tuple(name for name in self.parameters if name not in self.ignore)
            bind = self.__dict__["_bind"] = self._compiler.dict_of(names)
        arguments: dict[str, Any] = bind(*args, **kwargs)
        return arguments

    def _digest(self, *values: Any) -> str:
        """The default text the long way, for values of any type."""
        parts = [self._head(), b"c%d:" % len(values)]
        for head, name, value in zip(self._heads, self.counting, self._values(values), strict=True):
            parts += (head, encode(value, name, self.name))
        return blake2b(b"".join(parts), digest_size=16).hexdigest()

    def _inline_digest(self) -> Callable[..., str]:
        inline: Callable[..., str] | None = self.__dict__.get("_inline")
        if inline is None:
            # With a part that is asked at each call, the long way.
            inline = self._digest if callable(self.part) else digest(self._heads, self._digest, self._head())
            self.__dict__["_inline"] = inline
        return inline

    def _head(self) -> bytes:
        part = self._part()
        return b"g%d:%b" % (len(part), part) if part else b""

    def _template_text(self, template: Template) -> Callable[..., str]:
        def text(*values: Any) -> str:
            return template.text(dict(zip(self.counting, self._values(values), strict=True)), self.name)

        return text

    def _values(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self._left_out:
            return values
        return tuple(
            LeftOut.LEFT_OUT if name in self._left_out and value is self._left_out[name] else value
            for name, value in zip(self.counting, values, strict=True)
        )

    def _key_text(self, value: Any) -> str:
        return last_segment(value, self.name)


def qualified_name(function: Any) -> str:
    """What Python's own messages call a callable: `Class.method`, and `Class.__call__` for an instance."""
    name = getattr(function, "__qualname__", None)
    if isinstance(name, str):
        return name
    if isinstance(function, partial):
        return qualified_name(function.func)
    return f"{type(function).__qualname__}.__call__"


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):  # annotations may name what is imported for type checkers only
        from annotationlib import Format

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)
