"""From a `codec=` option to a codec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.codec.base import NAME_LIMIT_BYTES, Codec, codec_name
from memover.errors import ConfigurationError
from memover.later import later

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from memover.codec.mv1 import codec as mv1
else:
    mv1 = later(__name__, "memover.codec.mv1.codec", "mv1")

__all__ = ["resolve_codec"]


def resolve_codec(
    spec: Any,
    function: Callable[..., Any] | None = None,
    *,
    types: Iterable[type] = (),
    name_for_errors: str = "",
) -> Codec:
    """Return the codec that a `codec=` option asks for.

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
