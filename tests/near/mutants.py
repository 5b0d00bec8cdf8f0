"""Broken near caches, each with one line of the protocol taken out. A history's processes call them by name, tests too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from memover.runtime import heart, near
from memover.runtime.heart import Heart
from memover.stores.near import Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["MUTANTS"]


def fence_from_receive_time(_: int = 0) -> Callable[[], None]:
    """The fence is when the answer came."""
    real = Heart._beat

    def beat(self: Any, run: Any, feed: Any) -> None:
        real(self, run, feed)
        if self.tier.fence > -math.inf:
            self.tier.fence = heart.boottime()

    Heart._beat = beat  # type: ignore[method-assign]
    return lambda: setattr(Heart, "_beat", real)


def fill_without_tokens(_: int = 0) -> Callable[[], None]:
    """What was read comes in, whatever has been heard of since the read was sent."""
    real = Tier.fill

    def fill(self: Any, ticket: Any, item: Any, name: bytes) -> bool:
        now = self.ticket(ticket.cell.name) if ticket is not None else None
        return real(self, ticket if now is None else now, item, name)

    Tier.fill = fill  # type: ignore[method-assign]
    return lambda: setattr(Tier, "fill", real)


def own_invalidation_by_message_only(_: int = 0) -> Callable[[], None]:
    """The tier hears of this process's invalidations from the server alone."""
    import memover.runtime.invalidations
    import memover.runtime.operations
    import memover.runtime.state

    modules = (memover.runtime.invalidations, memover.runtime.operations, memover.runtime.state)
    real = memover.runtime.invalidations.moved

    def nothing(names: Sequence[bytes]) -> None:
        return None

    for module in modules:
        module.moved = nothing  # type: ignore[attr-defined]

    def undo() -> None:
        for module in modules:
            module.moved = real  # type: ignore[attr-defined]

    return undo


def fence_kept_over_a_fork(_: int = 0) -> Callable[[], None]:
    """A child goes on with the parent's fence."""
    real = Heart.after_fork
    Heart.after_fork = lambda self: None  # type: ignore[method-assign, assignment]
    return lambda: setattr(Heart, "after_fork", real)


def fence_never_falls(_: int = 0) -> Callable[[], None]:
    """A hit is served however long ago the store was last heard of."""
    real = near.boottime
    near.boottime = lambda: -math.inf  # type: ignore[assignment]
    return lambda: setattr(near, "boottime", real)


def the_token_of_all_is_not_looked_at(_: int = 0) -> Callable[[], None]:
    """A beat that is answered raises the fence, whatever the answer says."""
    real = Heart._beat

    def beat(self: Any, run: Any, feed: Any) -> None:
        if run.known is None:
            real(self, run, feed)
            return
        sent = heart.boottime()
        feed.pulse()
        self.tier.fence = sent

    Heart._beat = beat  # type: ignore[method-assign]
    return lambda: setattr(Heart, "_beat", real)


def without_the_call_s_token(_: int = 0) -> Callable[[], None]:
    """An entry stands under the tokens in its header alone, which an invalidation of one call does not move."""
    real = Tier.ticket

    def ticket(self: Any, name: bytes) -> Any:
        return real(self, b"memover:gen:any@call0")

    Tier.ticket = ticket  # type: ignore[method-assign]
    return lambda: setattr(Tier, "ticket", real)


MUTANTS = (
    fence_from_receive_time,
    fill_without_tokens,
    own_invalidation_by_message_only,
    fence_kept_over_a_fork,
    fence_never_falls,
    the_token_of_all_is_not_looked_at,
    without_the_call_s_token,
)
