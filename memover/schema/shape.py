"""Shapes: what the stored bytes of a result mean, and nothing else, as text that a reviewer reads.

    list[Profile]                     the result, as an expression over names

    class Profile                     then every name that has parts, sorted
      email?: str
      name: str

A name's kind says how its instances are stored:

    kind        what it is                             its lines
    ----------  -------------------------------------  --------------------------------------------
    class       dataclass or attrs class               field: type, sorted
    model       pydantic or Django model               field: type, sorted (`field?` is not always stored)
    struct      msgspec struct                         field: type, sorted
    namedtuple  named tuple                            field: type, in order: the order is stored
    typeddict   a plain dict with known keys           key: type, sorted (`key?` may be absent)
    enum        enumeration                            MEMBER = value, sorted
    subclass    a class of one's own below a builtin   = the builtin
    alias       a type alias that contains itself      = its value
    registered  known to `register_value`              none
    plain       any other class                        what its annotations say

Names of classes are part of a shape because they are part of the stored bytes; modules are not. Names of typed dicts
and aliases are for the reader alone. A name that begins with `?` could not be known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "FINGERPRINT_BYTES", "NO_FINGERPRINT", "ORDERED", "UNNAMED", "ShapeDefinition", "ShapeField", "Shape", "numbered",
    "parse", "with_final_names", "split", "without_numbers",
]  # fmt: skip

FINGERPRINT_BYTES = 8
NO_FINGERPRINT = bytes(FINGERPRINT_BYTES)
"""Of a result of which nothing is known."""

ORDERED = frozenset({"namedtuple"})
UNNAMED = frozenset({"typeddict", "alias"})
"""Kinds whose names are not stored: renaming one changes no shape."""

_QUOTED = r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\""
_UNKNOWN = re.compile(rf"{_QUOTED}|(\?[\w.]*)")
_NOTHING_KNOWN = ("?", "Any", "object")


@dataclass(frozen=True)
class ShapeField:
    """One line of a definition; `optional` is a key or field that is not always stored."""

    name: str
    type: str
    optional: bool = False

    def line(self, kind: str) -> str:
        """The line as it stands in the text."""
        if kind == "enum":
            return f"{self.name} = {self.type}"
        return f"{self.name}{'?' if self.optional else ''}: {self.type}" if self.name else f"= {self.type}"


@dataclass(frozen=True)
class ShapeDefinition:
    """A name with its parts, the fields sorted unless their order is stored."""

    kind: str
    name: str
    fields: tuple[ShapeField, ...] = ()

    def text(self) -> str:
        """The definition as it stands in the shape's text."""
        return "\n".join([f"{self.kind} {self.name}", *(f"  {field.line(self.kind)}" for field in self.fields)])


@dataclass(frozen=True)
class Shape:
    """A root expression and the definitions of the names in it, sorted by name."""

    root: str
    definitions: tuple[ShapeDefinition, ...] = ()

    def __str__(self) -> str:
        return "\n\n".join([self.root, *(each.text() for each in self.definitions)]) + "\n"

    @cached_property
    def fingerprint(self) -> bytes:
        """8 bytes, the same in every process for the same meaning; zeros when nothing is known of the result."""
        if not self.known:
            return NO_FINGERPRINT
        return blake2b(self.canonical.encode("utf-8", "surrogatepass"), digest_size=FINGERPRINT_BYTES).digest()

    @property
    def known(self) -> bool:
        """Whether anything is known of the result."""
        return self.root not in _NOTHING_KNOWN

    @property
    def unknown(self) -> tuple[str, ...]:
        """The names that could not be known, sorted; `?` for a missing annotation."""
        places = [self.root, *(field.type for each in self.definitions for field in each.fields if each.kind != "enum")]
        found = {name for place in places for name in _UNKNOWN.findall(place) if name}
        return tuple(sorted(found | ({"?" + self.root.lstrip("?")} if not self.known else set())))

    @cached_property
    def canonical(self) -> str:
        """The text without what is there for the reader alone; equal for equal meanings."""
        # Each name that is not stored is replaced by a digest of its parts, those of the names in them included: as
        # many rounds as there are such names carry every difference to every place it can be seen from.
        unnamed = [each for each in self.definitions if each.kind in UNNAMED]
        digests = {each.name: each.kind for each in unnamed}
        for _ in unnamed:
            digests = {each.name: _digest(_replaced(_body(each), digests)) for each in unnamed}
        parts = {_replaced(f"{each.kind} {each.name}\n{_body(each)}", digests) for each in self.definitions}
        return "\n\n".join([_replaced(self.root, digests), *sorted(parts)])


def parse(text: str) -> Shape:
    """The shape of a text that `str(shape)` wrote; raises ValueError for any other."""
    root, *blocks = text.strip("\n").split("\n\n")
    definitions = []
    for block in blocks:
        head, *lines = block.split("\n")
        kind, _, name = head.partition(" ")
        if not name or any(not line.startswith("  ") for line in lines):
            raise ValueError(f"no shape: {head!r}")
        definitions.append(ShapeDefinition(kind, name, tuple(_field(kind, line[2:]) for line in lines)))
    if not root or "\n" in root:
        raise ValueError("no shape: it begins with one line that is the result's type")
    return Shape(root, tuple(definitions))


def _field(kind: str, line: str) -> ShapeField:
    if line.startswith("= "):
        return ShapeField("", line[2:])
    name, separator, type_ = line.partition(" = " if kind == "enum" else ": ")
    if not separator:
        raise ValueError(f"no line of a shape: {line!r}")
    optional = kind != "enum" and name.endswith("?")
    return ShapeField(name.removesuffix("?") if optional else name, type_, optional)


def _body(each: ShapeDefinition) -> str:
    return "\n".join(field.line(each.kind) for field in each.fields)


def _digest(text: str) -> str:
    return "~" + blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _replaced(text: str, names: dict[str, str]) -> str:
    if not names:
        return text
    longest_first = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    pattern = rf"{_QUOTED}|(?<![\w.?])({longest_first})(?![\w.\[])"
    return re.sub(pattern, lambda found: names[found[1]] if found[1] else found[0], text)


# -- names while a shape is being made: numbered until all are known, because two classes may share one ---------------------

_NUMBER = re.compile(r"⟦\d+⟧")


def numbered(name: str, number: int) -> str:
    """A name that no other class has."""
    return f"{name}⟦{number}⟧"


def without_numbers(text: str) -> str:
    """A text without the numbers of its names."""
    return _NUMBER.sub("", text)


def with_final_names(root: str, definitions: Mapping[str, ShapeDefinition]) -> Shape:
    """The shape under final names: equal classes of one name become one, others are told apart by a number."""
    reachable: dict[str, ShapeDefinition] = {}
    pending = [root]
    while pending:
        text = pending.pop()
        for name, each in definitions.items():
            if name not in reachable and name in text:
                reachable[name] = each
                pending.extend(field.type for field in each.fields)
    by_name: dict[str, dict[str, list[str]]] = {}
    for name, each in reachable.items():
        by_name.setdefault(without_numbers(name), {}).setdefault(without_numbers(each.text()), []).append(name)
    final: dict[str, str] = {}
    for name, variants in by_name.items():
        for number, (_, same) in enumerate(sorted(variants.items()), 1):
            final.update(dict.fromkeys(same, name if number == 1 else f"{name}#{number}"))

    def rename(text: str) -> str:
        # Longest first: the names of generic classes contain others.
        for name in sorted(final, key=len, reverse=True):
            text = text.replace(name, final[name])
        return without_numbers(text)

    found = {
        final[name]: ShapeDefinition(
            each.kind,
            final[name],
            tuple(
                ShapeField(f.name, f.type if each.kind == "enum" else rename(f.type), f.optional) for f in each.fields
            ),
        )
        for name, each in reachable.items()
    }
    return Shape(rename(root), tuple(sorted(found.values(), key=lambda each: each.name)))


def split(text: str, separator: str = " | ") -> list[str]:
    """The members of a union's text: the separators outside brackets and quotes."""
    parts, depth, start, at = [], 0, 0, 0
    quote = ""
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\":
                at += 1
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char in "[(":
            depth += 1
        elif char in "])":
            depth -= 1
        elif depth == 0 and text.startswith(separator, at):
            parts.append(text[start:at])
            at += len(separator)
            start = at
            continue
        at += 1
    parts.append(text[start:])
    return parts
