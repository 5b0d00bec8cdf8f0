"""The source of a binding's functions, generated and executed once per decorated function.

Every function made here has the wrapped function's own parameters, its defaults being the same objects, and its
qualified name, so that wrong arguments raise the interpreter's own `TypeError` in the function's own words.
Names of the generated code begin with a prefix that no parameter begins with.

What `lookup` makes for `def profile(user_id, region="eu")`, its names shortened:

    def profile(user_id, region=default1):
        try: known = memo.get((type(user_id), type(region)))
        except TypeError: known = None                       # a class whose metaclass cannot be hashed
        if known is not None:
            record = known.get((user_id, region))
            if record is not None: return record
        return keep((type(user_id), type(region)), (user_id, region), (user_id, region),
                    make(text(user_id, region)))

`digest` makes the text, for as many values:

    def digest(v0, v1):
        kind = type(v0)
        if kind is str: p0 = f"s{len(v0)}:{v0}"              # the simple rows of canonical's table as text,
        elif kind is int: p0 = f"i{hex(v0)};"                # encoded once for all
        elif v0 is None: p0 = "N"
        elif kind is bool: p0 = "T" if v0 else "F"
        elif kind is float: p0 = f"f{v0.hex()};"
        else: return slow(v0, v1)
        ...
        data = f"c2:ps7:user_id{p0}ps6:region{p1}".encode("utf-8", "surrogatepass")
        return blake2b(data, digest_size=16).hexdigest()

It is generated at the first call that needs it: doing so takes longer than all the rest of a decoration.
"""

from __future__ import annotations

import inspect
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

from .memo import noting

if TYPE_CHECKING:
    from collections.abc import Callable

    from .memo import CallMemo

__all__ = ["Compiler", "digest"]

R = TypeVar("R")

_STARS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


class Compiler:
    """Writes functions with one signature and qualified name.

    `counting` are the parameters whose values make the key.
    """

    def __init__(self, signature: inspect.Signature, name: str, counting: tuple[str, ...]) -> None:
        self.parameters = tuple(signature.parameters.values())
        self.name = name
        self.counting = counting
        prefix = "_m"
        while any(parameter.name.startswith(prefix) for parameter in self.parameters):
            prefix = "_" + prefix
        self.prefix = prefix
        self.args = next((p.name for p in self.parameters if p.kind is p.VAR_POSITIONAL), None)
        self.kwargs = next((p.name for p in self.parameters if p.kind is p.VAR_KEYWORD), None)

    # -------------------------------------------------------------- functions

    def lookup(
        self, make: Callable[[str], R], text: Callable[..., Any], memo_size: int, late: bool = False
    ) -> Callable[..., R]:
        """Returns `make(text(*values))` for the counting parameters' values, from the memo where it can.

        With `late`, `text()` is called once, when it is first needed, and returns the function to use.
        """
        p, values = self.prefix, ", ".join(self.counting)
        scope: dict[str, Any] = {}

        def first(*values: Any) -> str:
            scope[f"{p}text"] = made = text()
            return made(*values)  # type: ignore[no-any-return]

        names = {"make": make, "text": first if late else text}
        if not memo_size:
            return self._function([f"return {p}make({p}text({values}))"], names, scope)
        memo: dict[Any, dict[Any, R]] = {}
        types, known = _tuple_of(self._kinds()), _tuple_of(self._values())
        body = [
            f"try: {p}known = {p}memo.get({types})",
            # A type whose own type cannot be hashed. What Python code raised is not that: a signal handler's, say (P17).
            f"except {p}TypeError as {p}error:",
            f"    if {p}error.__traceback__.tb_next is not None: raise",
            f"    {p}known = None",
            f"if {p}known is not None:",
            f"    {p}record = {p}known.get({known})",
            f"    if {p}record is not None: return {p}record",
            f"return {p}keep({types}, {known}, {self._flat()}, {p}make({p}text({values})))",
        ]
        return self._function(body, {**names, "memo": memo, "keep": noting(memo, memo_size)}, scope)

    def keyed(
        self, make: Callable[[str], R], key: Callable[..., Any], call: str, text: Callable[[Any], str]
    ) -> Callable[..., R]:
        """Returns `make(text(key(...)))`, where `call` is the source of the arguments (see `call_of`)."""
        p = self.prefix
        return self._function([f"return {p}make({p}text({p}key({call})))"], {"make": make, "key": key, "text": text})

    def dict_of(self, names: tuple[str, ...]) -> Callable[..., dict[str, Any]]:
        """Returns the values of these parameters by name."""
        return self._function(["return {" + ", ".join(f"{name!r}: {name}" for name in names) + "}"], {})

    def call_of(self, names: tuple[str, ...] | None) -> str:
        """The source of arguments that hand on all parameters, or these by name."""
        if names is not None:
            return ", ".join(f"{name}={name}" for name in names)
        parts = []
        for parameter in self.parameters:
            stars = _STARS.get(parameter.kind, "")
            named = f"{parameter.name}=" if parameter.kind is parameter.KEYWORD_ONLY else ""
            parts.append(f"{stars}{named}{parameter.name}")
        return ", ".join(parts)

    def hot(
        self, body: list[str], names: dict[str, Any], memo: CallMemo, *, awaited: bool, keyed: bool
    ) -> tuple[Callable[..., Any], Callable[[], int]]:
        """A function with the parameters of the wrapped one, and the function that returns its number of `hits`.

        `body` is source in which `{p}` stands before every name of `names`; `{known}` is what `memo` kept for these
        arguments (or raises KeyError or TypeError), `{keep}` the statement that has it keep `item`; `{call}` hands on all
        parameters, `{args}` and `{kwargs}` are their tuple and dict. With `keyed`, the first parameter counts by its
        `__memover_key__()`.
        """
        p, kinds, values = self.prefix, self._kinds(), self._values()
        if keyed:
            own = self.counting[0]
            others = f"{_row(kinds[1:])}, {_row(values[1:])}, {self._flat(1)}"
            keep = f"{p}keep_keyed({own}, {others}, {p}item, {p}key)"
            kinds[:1] = [f"{p}type({own})", f"{p}type(({p}part := {own}.__memover_key__()))"]
            values[0] = f"{p}part"
        else:
            keep = f"{p}keep({_row(kinds)}, {_tuple_of(values)}, {self._flat()}, {p}item)"
        known = f"{p}known" + "".join(f"[{kind}]" for kind in kinds) + f"[{_tuple_of(values)}]"
        given, named = [], []
        for parameter in self.parameters:
            stars = _STARS.get(parameter.kind, "")
            if parameter.kind is parameter.KEYWORD_ONLY:
                named.append(f"{parameter.name!r}: {parameter.name}")
            elif stars == "**":
                named.append(f"**{parameter.name}")
            else:
                given.append(f"{stars}{parameter.name}")
        terms = {
            "p": p, "known": known, "keep": keep, "call": self.call_of(None),
            "args": _row(given), "kwargs": "{" + ", ".join(named) + "}",
        }  # fmt: skip
        scope = self._scope({**names, "known": memo.known, "keep": memo.keep, "keep_keyed": memo.keep_keyed})
        head = f"{'async ' if awaited else ''}{self._head(scope)}"
        # Variables of an enclosing function: they are read quicker than globals, and one of them is the counter.
        lines = [
            f"def {p}made({', '.join(scope)}):",
            f"    {p}hits = 0",
            f"    {head}",
            f"        nonlocal {p}hits",
            *("        " + line.format(**terms) for line in body),
            f"    def {p}counted(): return {p}hits",
            f"    return {p}call, {p}counted",
        ]
        call, counted = self._executed(lines, {})[f"{p}made"](**scope)
        return self._named(call), counted

    # -------------------------------------------------------------- source

    def _kinds(self) -> list[str]:
        """The sources of the types of what counts, a tuple of types for `*args` and `**kwargs`."""
        p, kinds = self.prefix, []
        for name in self.counting:
            if name in (self.args, self.kwargs):
                each = f"{name}.values()" if name == self.kwargs else name
                kinds.append(f"{p}tuple({p}map({p}type, {each})) if {name} else ()")
            else:
                kinds.append(f"{p}type({name})")
        return kinds

    def _values(self) -> list[str]:
        """The sources of the values of what counts, as they can be looked up."""
        p = self.prefix
        return [
            f"{p}tuple({name}.items()) if {name} else ()" if name == self.kwargs else name for name in self.counting
        ]

    def _flat(self, first: int = 0) -> str:
        """The source of one tuple of all that counts, from the parameter `first` on."""
        stars = {self.args: "*{}", self.kwargs: "*{}.values()"}
        return _row([stars.get(name, "{}").format(name) for name in self.counting[first:]])

    def _function(
        self, body: list[str], names: dict[str, Any], scope: dict[str, Any] | None = None
    ) -> Callable[..., Any]:
        """A function with the wrapped one's parameters; its globals are `names` under their prefix, and are put into `scope`."""
        scope = {} if scope is None else scope
        scope |= self._scope(names)
        head = self._head(scope)
        return self._named(self._executed([head, *("    " + line for line in body)], scope)[f"{self.prefix}call"])

    def _scope(self, names: dict[str, Any]) -> dict[str, Any]:
        """What generated code refers to: `names`, and the builtins that it uses, which parameters may hide."""
        used: tuple[Any, ...] = (type, tuple, map, TypeError, KeyError)
        names = {**names, **{value.__name__: value for value in used}}
        return {f"{self.prefix}{name}": value for name, value in names.items()}

    def _head(self, scope: dict[str, Any]) -> str:
        """The `def` with the wrapped function's parameters, whose defaults are put into `scope`."""
        p, signature = self.prefix, []
        last: Any = None
        for index, parameter in enumerate(self.parameters):
            kind = parameter.kind
            if last is parameter.POSITIONAL_ONLY and kind is not last:
                signature.append("/")
            if kind is parameter.KEYWORD_ONLY and last not in (kind, parameter.VAR_POSITIONAL):
                signature.append("*")
            stars = _STARS.get(kind, "")
            default = ""
            if parameter.default is not parameter.empty:
                scope[f"{p}default{index}"] = parameter.default
                default = f"={p}default{index}"
            signature.append(f"{stars}{parameter.name}{default}")
            last = kind
        if last is inspect.Parameter.POSITIONAL_ONLY:
            signature.append("/")
        return f"def {p}call({', '.join(signature)}):"

    def _executed(self, lines: list[str], scope: dict[str, Any]) -> dict[str, Any]:
        # The source is made of the parameters' names and this module's text; no value becomes code.
        exec(compile("\n".join(lines), f"<memover binding of {self.name}>", "exec"), scope)  # noqa: S102
        return scope

    def _named(self, call: Any) -> Callable[..., Any]:
        call.__name__ = self.name.rpartition(".")[2]
        call.__qualname__ = self.name
        return call  # type: ignore[no-any-return]


def _tuple_of(parts: list[str]) -> str:
    """The source of one part, or of the tuple of several."""
    return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"


def _row(parts: list[str]) -> str:
    """The source of a tuple, of one part too."""
    return "(" + "".join(f"{part}, " for part in parts) + ")"


def digest(heads: tuple[bytes, ...], slow: Callable[..., str], first: bytes = b"") -> Callable[..., str]:
    """The function from the values of a call to its text; `slow` does the same for any values. `first` is digested first."""
    names = [f"v{index}" for index in range(len(heads))]
    slowly = f"return slow({', '.join(names)})"
    body, text = [], f"c{len(heads)}:"
    for index, (name, head) in enumerate(zip(names, heads, strict=True)):
        text += head.decode("utf-8") + f"{{p{index}}}"
        body += [
            f"kind = type({name})",
            f'if kind is str: p{index} = f"s{{len({name})}}:{{{name}}}"',
            f'elif kind is int: p{index} = f"i{{hex({name})}};"',
            f'elif {name} is None: p{index} = "N"',
            f'elif kind is bool: p{index} = "T" if {name} else "F"',
            f'elif kind is float: p{index} = f"f{{{name}.hex()}};"',
        ]
        if head.startswith((b"a", b"k")):  # *args and **kwargs, mostly empty
            empty = "t0:" if head.startswith(b"a") else "d0:"
            body += [f'elif not {name}: p{index} = "{empty}"']
        body += [f"else: {slowly}"]
    body += [
        f'data = f"{text}".encode("utf-8", "surrogatepass")',
        "return blake2b(first + data, digest_size=16).hexdigest()"
        if first
        else "return blake2b(data, digest_size=16).hexdigest()",
    ]
    scope: dict[str, Any] = {"slow": slow, "blake2b": blake2b, "first": first}
    source = "\n".join([f"def digest({', '.join(names)}):", *("    " + line for line in body)])
    exec(compile(source, "<memover digest>", "exec"), scope)  # noqa: S102 - as above
    return scope["digest"]  # type: ignore[no-any-return]
