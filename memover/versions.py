"""What `f.at(version)` returns: a function's entries under another schema version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, ParamSpec

from memover.keys.names import check_version
from memover.runtime import operations
from memover.runtime.invalidations import invalidate_call
from memover.runtime.run import arun, run

if TYPE_CHECKING:
    from memover.definition import Definition
    from memover.engine.call import CachedCall
    from memover.model import Entry

__all__ = ["AsyncVersionView", "VersionView"]

P = ParamSpec("P")


class BaseView(Generic[P]):
    """A function's entries under another schema version."""

    def __init__(self, definition: Definition, prefix: tuple[Any, ...], version: int) -> None:
        self._definition = definition
        self._prefix = prefix
        self.version = check_version(version)

    def key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """The entry's full key under that version. No round trip."""
        return self._definition.key_at(self.version, (*self._prefix, *args), kwargs).text

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CachedCall:
        args = (*self._prefix, *args)
        key = self._definition.key_at(self.version, args, kwargs)
        return self._definition.now().function.call(key, args, kwargs)


class VersionView(BaseView[P]):
    """What `f.at(version)` returns."""

    def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> Entry | None:
        """The fresh entry of that version, or None. One round trip. Its value is decoded as this version's would be."""
        return run(operations.peek(self._call(args, kwargs), self.version))

    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """That version's entry is gone everywhere when it returns. One round trip. Raises `InvalidationFailed`."""
        run(invalidate_call(self._call(args, kwargs)))


class AsyncVersionView(BaseView[P]):
    """What `f.at(version)` returns for an `async def` function."""

    async def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> Entry | None:
        """As `VersionView.peek`."""
        return await arun(operations.peek(self._call(args, kwargs), self.version))

    async def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """As `VersionView.invalidate`."""
        await arun(invalidate_call(self._call(args, kwargs)))
