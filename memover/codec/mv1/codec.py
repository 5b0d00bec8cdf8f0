"""The default codec, "mv1": a hit equals the miss in value and type, to any depth, or the value is refused.

`format` says what the bytes are, `known` which classes they may make, `records`, `containers`, `scalars`, `arrays`
and `frames` how each kind is kept, `writer` and `reader` go through a value and a payload. This module joins them: it finds the
way for each class, and turns whatever goes wrong into the two errors of a codec.

What is decided here once for all kinds:

* An object that occurs twice in a value is stored twice, and comes back as two equal objects. A value that
  contains itself is refused.
* A value nested deeper than msgpack's packer takes (511 levels, 1,024 in newer versions) is refused.
* A subclass never passes for its base: it comes back as itself, or it is refused.
* A class that is defined again under its name is read anew: what was stored comes back as instances of the class that
  the name leads to now, and an instance of the earlier class is refused.
* `faults` says which exceptions become `UnencodableValue` and `DamagedEntry`; all others go on to the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from memover.classes.annotations import innermost
from memover.classes.places import moved, place_of
from memover.classes.registered import family_of, registered, registrations
from memover.codec.faults import FAULTS, from_outside
from memover.codec.mv1 import arrays, containers, frames
from memover.codec.mv1 import format as f
from memover.codec.mv1.format import Mark, Unencodable
from memover.codec.mv1.known import KnownClasses
from memover.codec.mv1.limits import OBJECTS_FREE, OBJECTS_RATIO, SLOW_OBJECTS, few_objects
from memover.codec.mv1.plain import plain_mark
from memover.codec.mv1.reader import PayloadReader
from memover.codec.mv1.records import serializer_for
from memover.codec.mv1.refusal import explain, refusal_of
from memover.codec.mv1.scalars import encoder_for
from memover.codec.mv1.serializer import read_definition
from memover.codec.mv1.writer import KEEP_LIMIT_BYTES, PayloadWriter, open_buffers
from memover.errors import DamagedEntry, UnencodableValue, raised_beneath, raised_by_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from memover.classes.places import NamedClass
    from memover.codec.mv1.serializer import Serializer

__all__ = ["ValueCodec"]


_REFUSALS: tuple[type[Exception], ...] = (Unencodable, RuntimeError, *FAULTS)
_DAMAGES: tuple[type[Exception], ...] = (RecursionError, *FAULTS)


class ValueCodec:
    """The codec that keeps values and types, for the results of one function.

    `function` is the decorated function: its return annotation and its module name the classes that stored bytes
    may rebuild. `types` names further ones, and `register_value` names them for all functions. `name_for_errors`
    stands in messages instead of the function's qualified name.
    """

    name = "mv1"

    def __init__(
        self, function: Callable[..., Any] | None = None, *, types: Iterable[type] = (), name_for_errors: str = ""
    ) -> None:
        self._known = KnownClasses(function, types)
        inner = None if function is None else innermost(function)
        self._label: str = name_for_errors or getattr(inner, "__qualname__", "")
        self._writers: list[PayloadWriter] = []
        self._registrations = registrations()
        self._handlers: dict[type, Callable[[Any, Any], Any]] = dict(containers.WRITERS)
        self._serializers: dict[type, Serializer] = {}
        self._definitions: dict[bytes, Mark] = {}
        self._places: list[NamedClass] = []
        self._reader = PayloadReader()

    def __repr__(self) -> str:
        return f"ValueCodec({self._label})"

    def encode(self, value: Any) -> bytes:
        """The payload of `value`.

        Raises `UnencodableValue`, with the function and the path, for anything that `decode` would not give back
        with the same value and types. Any thread may call.
        """
        if self._registrations != registrations() or moved(self._places):
            self._forget()
        try:
            writer = self._writers.pop()
        except IndexError as error:
            if raised_beneath(error):
                raise
            writer = PayloadWriter(self._find, self._handlers)
        payload = b""
        try:
            payload = writer.write(value)
        except UnencodableValue:
            raise
        except _REFUSALS as error:
            # Of the RuntimeErrors only the bare one: "dictionary changed size during iteration".
            odd = isinstance(error, RuntimeError) and type(error) not in (RuntimeError, NotImplementedError)
            if odd or from_outside(error):
                raise
            raise explain(value, error, self._children, self._label) from error
        finally:
            # A packer keeps the room of its largest output.
            if 0 < len(payload) < KEEP_LIMIT_BYTES:
                self._writers.append(writer)
            else:
                writer.close()
        return payload

    def decode(self, data: bytes | memoryview) -> Any:
        """The value of a payload.

        Raises `DamagedEntry` for any bytes that `encode` did not write: "unknown-class" and "other-fields" are its
        reasons for classes that this program does not name or that changed, "damaged" for the rest. Never imports,
        calls or makes anything else than `known` admits. Any thread may call.
        """
        if self._registrations != registrations() or (self._places and moved(self._places)):
            self._forget()
        try:
            if data[0] != f.MARKED:
                return self._reader.read_plain(data)
            return self._reader.read_marked(memoryview(data), self._definitions, self._define)
        except DamagedEntry:
            raise
        except _DAMAGES as error:
            if not _of_equal_keys(error) and from_outside(error):
                raise
            raise _damaged(error) from error

    @staticmethod
    def check_objects(data: bytes | memoryview, stored_bytes: int) -> None:
        """Raises `DamagedEntry`, "too-large", for a payload of more objects than may be stored in so many bytes.

        To be called before a payload is stored compressed, and before one that was expanded is decoded. Any thread may call.
        """
        limit = max(OBJECTS_FREE, OBJECTS_RATIO * stored_bytes)
        if len(data) * SLOW_OBJECTS <= 3 * limit:
            return
        try:
            few = few_objects(open_buffers(memoryview(data))[0] if data[0] == f.MARKED else data, limit)
        except FAULTS as error:
            if from_outside(error):
                raise
            raise _damaged(error) from error
        if not few:
            raise DamagedEntry(
                f"The entry holds more than {limit:,} objects in {stored_bytes:,} bytes, which no writer stores so. "
                "It counts as a miss.",
                reason="too-large",
            )

    def plain(self, data: bytes | memoryview, make: Callable[..., Any] | None = None) -> Any:
        """The value of a payload with dicts in place of instances: no class is looked up or made.

        What each kind of class becomes is in `plain`; `make` replaces it. Raises `DamagedEntry`."""
        try:
            if data[0] != f.MARKED:
                return self._reader.read_plain(data)
            return self._reader.read_marked(memoryview(data), {}, lambda definition: plain_mark(definition, make))
        except DamagedEntry:
            raise
        except _DAMAGES as error:
            if not _of_equal_keys(error) and from_outside(error):
                raise
            raise _damaged(error) from error

    def _define(self, data: bytes) -> Mark:
        _, name, _ = read_definition(data)
        cls = self._known.find(name)
        if cls is None:
            raise DamagedEntry(
                f"The stored bytes name the class {name!r}, which {self._label or 'this codec'} does not know. "
                "The entry counts as a miss; name the class in the return annotation, or register_value() it.",
                reason="unknown-class",
            )
        serializer = self._serializer(cls)
        mark = None if serializer is None else serializer.marks.get(data)
        if mark is None:
            raise DamagedEntry(
                f"The stored bytes hold a {name!r} of another shape than the class has now. "
                "The entry counts as a miss; bump the version when a class changes.",
                reason="other-fields",
            )
        self._definitions[data] = mark
        return mark

    def _find(self, kind: type) -> Callable[[Any, Any], Any]:
        """The handler of a class; raises `Unencodable`; called once for each class, then remembered."""
        handler = None
        registration = registered(kind)
        if registration is None or registration.encode is None:
            handler = encoder_for(kind) or arrays.writer_for(kind) or frames.writer_for(kind)
        if handler is None:
            serializer = self._serializer(kind)
            if serializer is None:
                family = family_of(kind)
                serializer = None if family is None else self._serializer(family)
                if serializer is not None:
                    return serializer.write  # not remembered: such classes are as many as their objects
                raise refusal_of(kind)
            if not self._known.admits(kind):
                raise Unencodable(
                    f"a {kind.__qualname__}, a class that the program does not name to "
                    f"{self._label or 'this codec'} as its result's, so that stored bytes may not make one",
                    f"name {kind.__module__}.{kind.__qualname__} in the return annotation, "
                    "or call memover.register_value() on it",
                )
            handler = serializer.write
        self._handlers[kind] = handler
        return handler

    def _serializer(self, kind: type) -> Serializer | None:
        serializer = self._serializers.get(kind)
        if serializer is None:
            serializer = serializer_for(kind, registered(kind))
            if serializer is not None:
                self._places.extend(place_of(kind))
                self._serializers[kind] = serializer
        return serializer

    def _children(self, value: Any) -> tuple[list[Any], Callable[[int], str] | None]:
        """What a value is written as, and how a path names the places in it; for error messages only."""
        kind = type(value)
        handler = self._handlers.get(kind) or self._find(kind)
        made = handler(value, PayloadWriter(self._find, self._handlers))
        serializer = self._serializers.get(kind)
        if type(made) is not list:
            return [], None
        # Of an instance written as a map of attributes, the map's keys are the labels.
        as_map = serializer is not None and msgpack.unpackb(made[0].data)[0] == "open"
        return made, (lambda place: "") if as_map else None if serializer is None else serializer.labels

    def _forget(self) -> None:
        # Replaced rather than cleared: another thread may be using them. What makes this happen is
        # reset last, so that one who is interrupted in between does it again.
        current = registrations()
        self._writers = []
        self._handlers = dict(containers.WRITERS)
        self._serializers = {}
        self._definitions = {}
        self._known.forget()
        self._places = []
        self._registrations = current


def _damaged(error: Exception) -> DamagedEntry:
    return DamagedEntry(
        f"The stored bytes are not a value of codec mv1: {type(error).__name__}: {error}. The entry counts as a miss.",
        reason="damaged",
    )


def _of_equal_keys(error: Exception) -> bool:
    """Whether two keys of one hash were compared that are nested as deep as the stack: what is written has no equal keys."""
    return isinstance(error, RecursionError) and "in comparison" in str(error) and not raised_by_handler(error)
