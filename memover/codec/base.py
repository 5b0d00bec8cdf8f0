"""What a codec is: two methods that users may implement, and the name under which entries remember it; and which is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from memover.classes.naming import class_name
from memover.errors import ConfigurationError
from memover.later import later

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from memover.codec.mv1 import codec as mv1
else:
    mv1 = later(__name__, "memover.codec.mv1.codec", "mv1")

__all__ = ["Codec", "codec_name", "resolve_codec"]

NAME_LIMIT_BYTES = 255


@runtime_checkable
class Codec(Protocol):
    """Turns results into bytes and back, so that a hit equals the miss in value and type.

    A codec may carry a `name` (short, ASCII); without one it goes by its class's qualified name. The name is
    stored with each entry, and an entry of another codec is a miss. Both methods are called from any thread.
    """

    def encode(self, value: Any) -> bytes:
        """Returns the bytes of `value`; raises `UnencodableValue` for what would not come back as it was."""
        ...

    def decode(self, data: bytes | memoryview) -> Any:
        """Returns the value of `data`; raises `DamagedEntry` for bytes that `encode` did not write."""
        ...


def codec_name(codec: Codec) -> str:
    """The name that entries of this codec carry in their header."""
    name = getattr(codec, "name", None)
    if isinstance(name, str) and name:
        return name
    return class_name(type(codec)).replace(":", ".")


def resolve_codec(
    spec: Any, function: Callable[..., Any] | None = None, *, types: Iterable[type] = (), name_for_errors: str = ""
) -> Codec:
    """The codec that a `codec=` option asks for.

    `None` and `"msgpack"` are the default codec for the results of `function`; anything else must be a `Codec`.
    `types` and `name_for_errors` go to the default codec. Raises `ConfigurationError` for anything else.
    """
    if spec is None or spec == "msgpack":
        return mv1.ValueCodec(function, types=types, name_for_errors=name_for_errors)
    if spec == "pickle":
        raise ConfigurationError(
            "codec='pickle' is not taken, because unpickling runs code: use "
            "codec=memover.codec.pickle.PickleCodec(keys=[secret]), which signs what it stores."
        )
    if isinstance(spec, type):
        raise ConfigurationError(f"codec= takes an object, not the class {spec.__qualname__}; call it first.")
    if not (callable(getattr(spec, "encode", None)) and callable(getattr(spec, "decode", None))) or isinstance(
        spec, str
    ):
        raise ConfigurationError(
            f"codec={spec!r} is not a codec: give None, 'msgpack', or an object with the methods "
            "encode(value) -> bytes and decode(data) -> value."
        )
    name = codec_name(spec)
    if not name.isascii() or len(name) > NAME_LIMIT_BYTES:
        raise ConfigurationError(
            f"The codec's name {name!r} must be ASCII and at most {NAME_LIMIT_BYTES} characters; set `name` on it."
        )
    codec: Codec = spec
    return codec
