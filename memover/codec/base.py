"""What a codec is: two methods that users may implement, and the name under which entries remember it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from memover.classes.naming import class_name

__all__ = ["Codec", "codec_name"]

NAME_LIMIT_BYTES = 255


@runtime_checkable
class Codec(Protocol):
    """Turns results into bytes and back, so that a hit equals the miss in value and type.

    A codec may carry a `name` (short, ASCII); without one it goes by its class's qualified name. The name is
    stored with each entry, and an entry of another codec is a miss. Both methods are called from any thread.
    """

    def encode(self, value: Any) -> bytes:
        """Return the bytes of `value`; raise `UnencodableValue` for what would not come back as it was."""
        ...

    def decode(self, data: bytes | memoryview) -> Any:
        """Return the value of `data`; raise `DamagedEntry` for bytes that `encode` did not write."""
        ...


def codec_name(codec: Codec) -> str:
    """Return the name that entries of this codec carry in their header."""
    name = getattr(codec, "name", None)
    if isinstance(name, str) and name:
        return name
    return class_name(type(codec)).replace(":", ".")
