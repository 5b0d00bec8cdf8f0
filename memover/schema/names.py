"""Names in the text of a shape while it is being made: numbered until all are known, because two classes may share one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from memover.schema.shape import Definition, Field, Shape

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["numbered", "plain", "settled", "split"]

_NUMBER = re.compile(r"⟦\d+⟧")


def numbered(name: str, number: int) -> str:
    """A name that no other class has."""
    return f"{name}⟦{number}⟧"


def plain(text: str) -> str:
    """A text without the numbers of its names."""
    return _NUMBER.sub("", text)


def settled(root: str, definitions: Mapping[str, Definition]) -> Shape:
    """The shape under final names: equal classes of one name become one, others are told apart by a number."""
    reachable: dict[str, Definition] = {}
    pending = [root]
    while pending:
        text = pending.pop()
        for name, each in definitions.items():
            if name not in reachable and name in text:
                reachable[name] = each
                pending.extend(field.type for field in each.fields)
    by_name: dict[str, dict[str, list[str]]] = {}
    for name, each in reachable.items():
        by_name.setdefault(plain(name), {}).setdefault(plain(each.text()), []).append(name)
    final: dict[str, str] = {}
    for name, variants in by_name.items():
        for number, (_, same) in enumerate(sorted(variants.items()), 1):
            final.update(dict.fromkeys(same, name if number == 1 else f"{name}#{number}"))

    def rename(text: str) -> str:
        # Longest first: the names of generic classes contain others.
        for name in sorted(final, key=len, reverse=True):
            text = text.replace(name, final[name])
        return plain(text)

    found = {
        final[name]: Definition(
            each.kind,
            final[name],
            tuple(Field(f.name, f.type if each.kind == "enum" else rename(f.type), f.optional) for f in each.fields),
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
