"""Where a stored value does not fit a shape, as far as its bytes show it: for messages, never for decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from memover.schema.shape import split

if TYPE_CHECKING:
    from memover.schema.shape import Shape, ShapeDefinition

__all__ = ["Stored", "mismatch"]

_DEPTH_LIMIT = 60
_SCALARS = frozenset(
    {
        "int", "str", "float", "bool", "bytes", "None", "datetime", "date", "time", "timedelta", "Decimal", "UUID", "complex",
    }
)  # fmt: skip
_CONTAINERS = {"list": list, "set": set, "frozenset": frozenset, "tuple": tuple, "dict": dict}


class Stored(NamedTuple):
    """An instance of a class of the application as it is stored: the kind of the class, its name, and what the instance holds."""

    kind: str
    name: str
    content: Any

    @property
    def shown(self) -> str:
        """The name as shapes have it: without its module, and without the function that it was made in."""
        return self.name.partition(":")[2].rpartition("<locals>.")[2] or self.name

    def __repr__(self) -> str:
        if self.kind == "enum" and isinstance(self.content, str):
            return f"{self.shown}.{self.content}"
        inside = repr(self.content)
        if isinstance(self.content, dict) and self.kind not in ("subclass", "registered"):
            inside = ", ".join(f"{name}={value!r}" for name, value in self.content.items())
        return f"{self.shown}({inside})"

    def __hash__(self) -> int:
        return hash(repr(self))  # what it holds may be a list or a dict


def mismatch(value: Any, shape: Shape) -> str:
    """The first place where a value, read with `Stored` in place of instances, is not of this shape; "" for none."""
    definitions = {each.name.partition("[")[0]: each for each in shape.definitions}
    return _mismatch(value, shape.root, definitions, "the result", 0)


def _mismatch(value: Any, expression: str, definitions: dict[str, ShapeDefinition], where: str, depth: int) -> str:
    if depth > _DEPTH_LIMIT:
        return ""
    members = split(expression)
    problems = [_member(value, each, definitions, where, depth) for each in members]
    if "" in problems:
        return ""
    serious = [each for each, member in zip(problems, members) if member != "None"]
    if value is not None and len(serious) == 1:
        return serious[0]
    return f"{where} is {_kind(value)} in it, and {expression} now"


def _member(value: Any, expression: str, definitions: dict[str, ShapeDefinition], where: str, depth: int) -> str:
    wrong = f"{where} is {_kind(value)} in it, and {expression} now"
    name, _, rest = expression.partition("[")
    arguments = split(rest[:-1], ", ") if rest else []
    definition = definitions.get(name)
    if definition is not None:
        return _instance(value, definition, definitions, where, depth, wrong)
    if name in _SCALARS:
        here = _type_of(value)
        fits = here == name or (here not in _SCALARS and not isinstance(value, (Stored, *_CONTAINERS.values())))
        return "" if fits else wrong
    if name == "Literal":
        return "" if any("." in each for each in arguments) or repr(value) in arguments else wrong
    kind = _CONTAINERS.get(name)
    if kind is None:
        return ""
    if type(value) is not kind:
        return wrong
    content: Any = value  # of the very type `kind`
    if kind is dict:
        pairs = [(each, argument) for pair in content.items() for each, argument in zip(pair, arguments)]
    elif kind is tuple and (not arguments or arguments[-1] != "..."):
        if arguments == ["()"]:
            return "" if not value else wrong
        if len(value) != len(arguments):
            return f"{where} has {len(value)} items in it, and is {expression} now"
        pairs = list(zip(value, arguments))
    else:
        pairs = [(each, arguments[0]) for each in value] if arguments else []
    for each, argument in pairs:
        problem = _mismatch(each, argument, definitions, f"an item of {where}" if depth == 0 else where, depth + 1)
        if problem:
            return problem
    return ""


def _instance(
    value: Any, definition: ShapeDefinition, definitions: dict[str, ShapeDefinition], where: str, depth: int, wrong: str
) -> str:
    own = definition.name.partition("[")[0]
    if definition.kind == "alias":
        return _mismatch(value, definition.fields[0].type, definitions, where, depth + 1)
    if definition.kind == "typeddict":
        content = value
    elif not isinstance(value, Stored) or value.shown.partition("[")[0] != own.partition("#")[0]:
        return wrong
    else:
        content = value.content
    if definition.kind == "enum":
        gone = isinstance(content, str) and all(field.name != content for field in definition.fields)
        return f"{own}.{content} is in it, and no member now" if gone else ""
    if definition.kind in ("subclass", "registered", "plain") or getattr(value, "kind", "") == "registered":
        return ""
    if not isinstance(content, dict):
        return wrong
    fields = {field.name: field for field in definition.fields}
    missing = [each for each in definition.fields if each.name not in content and not each.optional]
    if missing:
        return f"{own}.{missing[0].name} ({missing[0].type}) is not in it"
    more = [name for name in content if name not in fields and "*" not in fields]
    if more:
        return f"{own}.{more[0]} is in it, and no longer in {own}"
    for name, each in content.items():
        if name in fields:
            problem = _mismatch(each, fields[name].type, definitions, f"{own}.{name}", depth + 1)
            if problem:
                return problem
    return ""


def _kind(value: Any) -> str:
    return value.shown if isinstance(value, Stored) else _type_of(value)


def _type_of(value: Any) -> str:
    return "None" if value is None else type(value).__name__
