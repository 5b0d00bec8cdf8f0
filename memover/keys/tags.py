"""Tags of a decorated function: from templates and callables to the names they have in the store.

A template such as `"user:{user_id}"` takes parameter names, with attributes and items (`{user.id}`); a callable takes the
`Call` and, if it has a second parameter, the result. What a template inserts must have a text of its own: an object
that only has `object`'s would put its address into the tag.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from string import Formatter
from typing import TYPE_CHECKING, Any

from memover.errors import ConfigurationError, UnkeyableArgument, raised_beneath, raised_by_handler
from memover.keys.names import tag_key

if TYPE_CHECKING:
    from memover.keys.binding import Binding
    from memover.model import Call

__all__ = ["TAGS_LIMIT", "Tags", "TooManyTags"]

TAGS_LIMIT = 16
"""Tags of one entry; each is one more token in every read."""


class TooManyTags(ConfigurationError):
    """More tags on one result than an entry can carry."""


class Tags:
    """What a function declared as `tags=`.

    `early` are known from the arguments, `late` only from the result. `stable` is True when equal keys have equal
    early tags, so that they can be remembered with the key. Raises `ConfigurationError` for a tag that cannot be made.
    """

    def __init__(self, declared: Any, binding: Binding, function: str) -> None:
        self._function = function
        self._templates: list[str] = []
        self._early: list[Callable[[Call], Iterable[str]]] = []
        self._late: list[Callable[[Call, Any], Iterable[str]]] = []
        roots: set[str] = set()
        if isinstance(declared, str) or callable(declared):
            declared = (declared,)
        for tag in declared:
            if isinstance(tag, str):
                roots |= self._check(tag, binding)
                self._templates.append(tag)
            elif callable(tag):
                callback: Any = tag
                if _positional(callback) >= 2:
                    self._late.append(callback)
                else:
                    self._early.append(callback)
            else:
                raise ConfigurationError(
                    f"{function}: tags= takes templates such as 'user:{{user_id}}' and callables, not {tag!r}."
                )
        if len(self._templates) > TAGS_LIMIT:
            raise ConfigurationError(
                f"{function}: {len(self._templates)} tags are more than {TAGS_LIMIT}; declare fewer."
            )
        self.early = bool(self._templates or self._early)
        self.late = bool(self._late)
        self.stable = not self._early and roots <= set(binding.counting) and not callable(binding.key)

    def _check(self, template: str, binding: Binding) -> set[str]:
        try:
            roots = set(_roots(template))
        except ValueError as error:
            raise ConfigurationError(f"{self._function}: the tag {template!r} cannot be read: {error}.") from None
        unknown = roots - set(binding.parameters)
        if unknown or not template:
            known = ", ".join(binding.parameters) or "none"
            raise ConfigurationError(
                f"{self._function}: the tag {template!r} names {sorted(unknown)}; the parameters are: {known}."
            )
        ignored = sorted(roots & set(binding.ignore))
        if ignored:
            raise ConfigurationError(
                f"{self._function}: the tag {template!r} names {ignored}, which ignore= leaves out: calls that differ in nothing else "
                f"have one entry, with the tags of the first of them."
            )
        return roots

    def early_names(self, prefix: str, call: Call, arguments: Mapping[str, Any]) -> tuple[bytes, ...]:
        """The store's names of the tags known from the arguments."""
        tags = [_Texts(self._function, each).vformat(each, (), arguments) for each in self._templates]
        for callback in self._early:
            tags.extend(self._answered(callback(call)))
        return self.names(prefix, tags)

    def late_names(self, prefix: str, call: Call, result: Any) -> tuple[bytes, ...]:
        """The store's names of the tags known only from the result."""
        tags: list[str] = []
        for callback in self._late:
            tags.extend(self._answered(callback(call, result)))
        return self.names(prefix, tags)

    def names(self, prefix: str, tags: Iterable[str]) -> tuple[bytes, ...]:
        names = tuple(dict.fromkeys(tag_key(prefix, tag).encode() for tag in tags))
        if len(names) > TAGS_LIMIT:
            raise TooManyTags(
                f"{self._function}: {len(names)} tags on one result are more than {TAGS_LIMIT}: tag what is invalidated "
                f"together with one common tag."
            )
        return names

    def _answered(self, tags: Any) -> Iterable[str]:
        if isinstance(tags, str):
            return (tags,)
        if tags and not isinstance(tags, Iterable):
            raise ConfigurationError(
                f"{self._function}: a callable in tags= answered with one {type(tags).__name__}; let it return text, or a list of it."
            )
        return tags or ()


class _Texts(Formatter):
    """Fills one template, and refuses what would be written by `object.__str__`, at whatever depth it was found."""

    def __init__(self, function: str, template: str) -> None:
        self._function = function
        self._template = template

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        try:
            value, first = super().get_field(field_name, args, kwargs)
        except (AttributeError, LookupError, TypeError) as error:
            if raised_by_handler(error):
                raise
            root = _root(field_name)
            kind = type(kwargs[root])
            raise UnkeyableArgument(
                f"{self._function}: the tag {self._template!r} asks for {field_name!r}, which the argument {root} of type "
                f"{kind.__qualname__} does not have ({type(error).__name__}: {error}). Correct the template, give an argument that "
                f"has it, or give tags= a callable.",
                function=self._function,
                parameter=root,
                path=field_name,
                kind=f"{kind.__module__}.{kind.__qualname__}",
            ) from error
        kind = type(value)
        if _texts_of(kind) == _texts_of(object):
            raise UnkeyableArgument(
                f"{self._function}: the tag {self._template!r} would write {field_name!r} as an address, because "
                f"{kind.__qualname__} has no text of its own: name an attribute of it ({{{field_name}.id}}), or give tags= a "
                f"callable.",
                function=self._function,
                parameter=str(first),
                path=field_name,
                kind=f"{kind.__module__}.{kind.__qualname__}",
            )
        return value, first

    def format_field(self, value: Any, format_spec: str) -> Any:
        return self._written(format, value, format_spec)

    def convert_field(self, value: Any, conversion: Any) -> Any:
        write = _CONVERSIONS.get(conversion)
        return super().convert_field(value, conversion) if write is None else self._written(write, value)

    def _written(self, write: Callable[..., str], *what: Any) -> str:
        """What `write`, a function of C, answers; an int of more digits than `sys.set_int_max_str_digits` says cannot be written."""
        try:
            return write(*what)
        except (TypeError, ValueError) as error:
            if raised_beneath(error):
                raise  # by the value's own `__format__`, or by a signal handler
            kind = type(what[0])
            raise UnkeyableArgument(
                f"{self._function}: the tag {self._template!r} cannot be written: {error}. Correct the template, let it name something "
                f"shorter, or give tags= a callable.",
                function=self._function,
                kind=f"{kind.__module__}.{kind.__qualname__}",
            ) from error


_texts_of = attrgetter("__str__", "__format__", "__repr__")
_CONVERSIONS: dict[Any, Callable[[Any], str]] = {"s": str, "r": repr, "a": ascii}


def _root(field: str) -> str:
    """The parameter that a field of a template begins with."""
    return field.partition(".")[0].partition("[")[0]


def _roots(template: str, depth: int = 2) -> Iterator[str]:
    """The parameters that a template names, those in the formats of its fields (`{price:.{digits}f}`) included. Raises ValueError
    for one that cannot be filled, whatever the arguments."""
    if depth < 0:
        raise ValueError("its formats are nested too deep")
    for _, field, form, conversion in _READER.parse(template):
        if field is not None:
            _READER.get_field(field, (), {})
            _READER.convert_field("", conversion)
            yield _root(field)
            yield from _roots(form or "", depth - 1)


class _Anything:
    """Has every attribute and every item."""

    def __getattr__(self, name: str) -> _Anything:
        return self

    def __getitem__(self, key: object) -> _Anything:
        return self


class _Reader(Formatter):
    """Reads a template that is not filled yet."""

    def get_value(self, key: Any, args: Any, kwargs: Any) -> Any:
        return _Anything()


_READER = _Reader()


def _positional(callback: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError):
        return 1
    return sum(
        parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD) for parameter in parameters
    )
