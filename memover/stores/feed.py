"""How a near tier learns of changes in its store. Each store that can have a near tier implements `Feed`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Feed"]


class Feed(Protocol):
    """A connection to the store for one tier, used by its thread alone. Every method raises `StoreError`.

    `commands` is how many `pulse` sends."""

    commands: int

    def pulse(self) -> bytes | None:
        """The token that moves with every invalidation, None where it is missing. One round trip."""
        ...

    def tokens(self, names: Sequence[bytes]) -> list[bytes | None]:
        """The tokens of these names, read after the last `pulse` was answered."""
        ...

    def keep(self, names: Sequence[bytes]) -> None:
        """Prolongs these transient tokens by the usual margin."""
        ...

    def pushed(self) -> tuple[list[bytes], bool]:
        """Names that the server says have changed since the last time, and whether everything may have. Does not wait."""
        ...

    def waiting(self) -> bool:
        """Whether `pushed` has something to give without anything more being received."""
        ...

    def sources(self) -> list[Any]:
        """What to wait on for `pushed`: sockets."""
        ...

    def close(self) -> None:
        """Closes it. May be repeated."""
        ...
