"""Human keys: `key="{user_id}:{region}"`, and `key=` a callable.

A human key is for people who read the store. It is injective all the same: two calls have the same text iff
the values that the template names are the same, type included.

    value                        text
    ---------------------------  -----------------------------------------------------------------
    int below 2**64              its decimal digits: 7
    True, False, None            True, False, None
    str                          itself, escaped; with `~s` in front if it is empty or reads as one of the above
    float                        ~f and its repr: ~f1.5
    bytes                        ~b and itself, escaped
    UUID, date                   ~u and ~d and their usual text
    anything else                ~x and 32 hex digits: the digest of its canonical bytes
    a text over 200 characters   ~h and 32 hex digits, in place of the last_segment text

Escaping is that of `names.escape`: printable ASCII other than `%{}~` stands for itself, the rest is percent-encoded.
In a template with several fields one character of each text between two fields is its separator, and is
percent-encoded in values as well: `"{a}:{b}"` of ("x:y", "z") is `x%3Ay:z`. So a reader meets the first
separator where the first value ends, and the text splits one way only. The separator is the first character
between the fields that is neither letter nor digit; a template without one is refused.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from string import Formatter
from typing import Any, NamedTuple

from memover.errors import ConfigurationError, raised_by_handler

from .canonical import encode_whole
from .names import PLAIN, escape, shorten
from .refusal import Unkeyable, type_name

__all__ = ["Template", "parse", "last_segment"]

_STEP = r"\.([^.\[\]]+)|\[([^\]]+)\]"


class TemplateField(NamedTuple):
    """One `{name.attribute[item]}` of a template."""

    name: str
    steps: tuple[tuple[str, Any], ...]
    source: str


class Template(NamedTuple):
    """A checked template: `literals` has one text more than `fields`; `separators` are escaped in values."""

    literals: tuple[str, ...]
    fields: tuple[TemplateField, ...]
    separators: str

    def names(self) -> tuple[str, ...]:
        """The parameters that the template names, each once, in order of appearance."""
        return tuple(dict.fromkeys(field.name for field in self.fields))

    def text(self, arguments: dict[str, Any], function: str) -> str:
        """The last segment of the entry key for these arguments; raises `UnkeyableArgument`."""
        parts = [self.literals[0]]
        for field, literal in zip(self.fields, self.literals[1:], strict=True):
            try:
                parts.append(render(_walk(arguments[field.name], field), self.separators))
            except Unkeyable as refused:
                raise refused.unkeyable(function, field.name, field.source) from refused.__cause__
            parts.append(literal)
        return shorten("".join(parts))


def _walk(value: Any, field: TemplateField) -> Any:
    for kind, name in field.steps:
        try:
            value = getattr(value, name) if kind == "." else value[name]
        except (AttributeError, LookupError, TypeError) as error:
            if raised_by_handler(error):
                raise
            raise Unkeyable(value, f"it has no {name!r}, which the key template asks for") from error
    return value


def render(value: Any, separators: str = "") -> str:
    """One value as the module's table says; raises `Unkeyable`."""
    kind = type(value)
    if kind is str:
        bare = escape(value, separators)
        if not value or value in ("True", "False", "None") or value.removeprefix("-").isdecimal():
            return "~s" + bare
        return bare
    if kind is bool or value is None:
        return str(value)
    if kind is int and -(2**64) < value < 2**64:
        return escape(str(value), separators)
    if kind is float:
        return "~f" + escape(repr(value), separators)
    if kind is bytes:
        return "~b" + escape(value, separators)
    if type_name(kind) == "uuid.UUID":
        return "~u" + escape(str(value), separators)
    if type_name(kind) in ("datetime.date", "freezegun.api.FakeDate"):
        return "~d" + escape(value.isoformat(), separators)
    return "~x" + blake2b(encode_whole(value), digest_size=16).hexdigest()


def last_segment(value: Any, function: str) -> str:
    """What a `key=` callable returned, as the last segment of the entry key; raises `UnkeyableArgument`."""
    try:
        if value is None:
            raise Unkeyable(value, "it looks like a forgotten return")
        return shorten(render(value))
    except Unkeyable as refused:
        raise refused.unkeyable(function, "", "what key= returned") from refused.__cause__


def parse(template: str, parameters: tuple[str, ...], function: str) -> Template:
    """A template checked against the function's parameters; raises `ConfigurationError`."""

    def wrong(why: str) -> ConfigurationError:
        return ConfigurationError(f"{function}: key={template!r} {why}")

    literals, fields, literal = [], [], ""
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise wrong(f"is not a template ({error}); write key='{{user_id}}:{{region}}', say") from None
    for text, field, spec, conversion in pieces:
        for char in text:
            if char not in PLAIN:
                raise wrong(f"holds {char!r}; between the fields use printable ASCII other than % {{ }} ~")
        literal += text
        if field is None:
            continue
        if spec or conversion:
            raise wrong("uses a conversion or format; name the parameter alone, or pass a callable as key=")
        fields.append(_field(field, parameters, wrong))
        literals.append(literal)
        literal = ""
    literals.append(literal)
    if not fields:
        raise wrong(
            "names no parameter, so all calls would share one entry; write key='{name}', "
            "or ignore every parameter with ignore= if that is what you want"
        )
    separators = ""
    for between in literals[1:-1]:
        mark = next((char for char in between if not char.isalnum()), None)
        if mark is None:
            raise wrong("has two fields without a separator; put one between them, as in '{user_id}:{region}'")
        separators += mark
    return Template(tuple(literals), tuple(fields), separators)


def _field(source: str, parameters: tuple[str, ...], wrong: Any) -> TemplateField:
    name = re.split(r"[.\[]", source, maxsplit=1)[0]
    if name not in parameters:
        known = ", ".join(parameters) or "none"
        raise wrong(f"names {name!r}, which is not a parameter; the parameters are: {known}")
    rest, steps, at, step = source[len(name) :], [], 0, re.compile(_STEP)
    while at < len(rest):
        match = step.match(rest, at)
        if match is None:
            raise wrong(f"has a field {source!r} that cannot be read; write {{user.id}} or {{options[page]}}")
        attribute, item = match.groups()
        if attribute is not None:
            steps.append((".", attribute))
        else:
            steps.append(("[", int(item) if item.isdecimal() else item))
        at = match.end()
    return TemplateField(name, tuple(steps), source)
