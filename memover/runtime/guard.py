"""The guard of one function at run time: its own fingerprint, and what is said when an entry has another.

A forgotten bump must not reach a reader: an entry of another shape under the same version is a miss, counted, and told
once, with the field as far as the stored bytes show it.
"""

from __future__ import annotations

import logging
import sys
from _thread import allocate_lock, start_new_thread
from typing import TYPE_CHECKING, Any

from memover.codec.envelope import KIND_VALUE, NO_FINGERPRINT
from memover.codec.faults import from_outside
from memover.errors import raised_beneath
from memover.keys.names import entry_key

# With the decorator, and not at the first load: a process that forks while a thread imports leaves its child a lock.
from memover.schema.derive import read_shape, shape_of
from memover.schema.shape import Shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.codec.envelope import Header
    from memover.keys.ownership import Claimed
    from memover.policy import Policy

__all__ = ["ShapeGuard"]

logger = logging.getLogger("memover")


class ShapeGuard:
    """Compares the entries of one function on one cache with what the function returns."""

    def __init__(self, function: Callable[..., Any], name: str, policy: Policy, prefix: str, claimed: Claimed) -> None:
        self._function = function
        self._name = name
        self._policy = policy
        self._prefix = prefix
        self._claimed = claimed
        self._shape: Shape | None = None
        self._seen: tuple[bytes, float] | None = None
        self._warned = False

    def fingerprint(self) -> bytes:
        """The fingerprint of the result's shape; b"" while its module is still being imported and names are missing."""
        try:
            shape = read_shape(self._function)
        except RecursionError:
            shape = _on_a_stack_of_its_own(self._function)
        # A missing annotation ("?") will not be there later either.
        if any(each != "?" for each in shape.unknown) and _under_way(self._function):
            return b""
        self._shape = shape
        return shape.fingerprint

    def differs(self, header: Header, own: bytes) -> bool:
        """Whether an entry of this version has another shape than the function returns. False where either is unknown."""
        return (
            header.fingerprint != own
            and header.fingerprint != NO_FINGERPRINT
            and own not in (NO_FINGERPRINT, b"")
            and header.kind == KIND_VALUE
            # `f.at(version)` reads what other versions stored, in shapes of their own.
            and header.key.startswith(self._entries())
        )

    def _entries(self) -> bytes:
        version = self._claimed.version(self._policy.version)
        return entry_key(self._prefix, version, self._policy.namespace, "").encode()

    def first_sight(self, header: Header) -> bool:
        """Whether this entry was not the last one found wanting: one call may look at it twice."""
        seen = (header.key, header.created_at)
        if seen == self._seen:
            return False
        self._seen = seen
        return True

    def warn(self, codec: Any, payload: Callable[[], Any]) -> None:
        """Says once for the function what is missing."""
        if self._warned:
            return
        self._warned = True
        logger.warning(
            "%s: an entry in the namespace %r has another shape than the function returns, and the same version %d: %s. "
            "It counts as a miss. Was the version not bumped when the result changed? `memover bump %s` does it.",
            self._name,
            self._policy.namespace,
            self._policy.version,
            self._difference(codec, payload) or "which field it is, the entry does not show",
            self._policy.namespace,
        )

    def _difference(self, codec: Any, payload: Callable[[], Any]) -> str:
        plain = getattr(codec, "plain", None)
        if plain is None or self._shape is None:
            return ""
        from memover.schema.mismatch import Stored, mismatch

        try:
            return mismatch(plain(payload(), Stored), self._shape)
        except Exception as error:
            if from_outside(error):
                raise
            return ""


def _on_a_stack_of_its_own(function: Callable[..., Any]) -> Shape:
    """The shape of a function's result, read in another thread: the caller's stack is used up, and what is found here is kept."""
    found: list[Shape] = []
    ended = allocate_lock()
    ended.acquire()

    def work() -> None:
        try:
            found.append(shape_of(function))
        finally:
            ended.release()

    try:
        start_new_thread(work, ())
    except RuntimeError as error:
        if raised_beneath(error):
            raise
        return Shape("?")  # the system gives no more threads
    ended.acquire()
    return found[0] if found else Shape("?")


def _under_way(function: Any) -> bool:
    spec = getattr(sys.modules.get(getattr(function, "__module__", None) or ""), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))
