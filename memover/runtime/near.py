"""The tier before the store, for functions with `near=`: what may be served from it, and what comes into it.

Calls under a pending invalidation go to the store, and so does whatever is not plainly FRESH; a test holds the short form
here to `engine.judge`. So do calls inside a load: what a load makes of them is stored for processes, and for functions, that
promise more (P1).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from memover.clocks import boottime, is_real, wall
from memover.codec.copier import Same, copier_of
from memover.codec.sharing import moved, places_of
from memover.engine.answers import Outcome, Sealed
from memover.engine.judge import FRESH, is_fresh, judge
from memover.engine.reading import early
from memover.errors import DamagedEntry
from memover.model import MISSING, Source
from memover.runtime.dependencies import INSIDE
from memover.runtime.footprint import memory_of
from memover.stores.near_items import NearItem

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.codec.envelope import Header
    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow
    from memover.model import Key
    from memover.runtime.function import Function
    from memover.stores.near import Ticket

__all__ = ["behind_tier", "fill", "fill_from", "in_use", "handed_out", "near", "standing", "ticket_of"]


def in_use(function: Function) -> bool:
    """Whether calls of this function may be answered by the tier here and now."""
    return not (
        function.near is None or function.observers.disabled() or INSIDE.get() is not None or function.witness.owed
    )


def behind_tier(call: CachedCall, flow: Callable[[CachedCall], Flow[Any]]) -> Flow[Any]:
    """A call's flow with the tier before it; what it has read fresh comes into the tier."""
    function: Any = call.function
    if not in_use(function):
        return (yield from flow(call))
    found = near(function, call.key, call.max_age)
    if found is not None:
        return found
    ticket = ticket_of(function, call.key)
    outcome = yield from flow(call)
    if outcome is not None:
        fill_from(function, ticket, call.key, outcome)
    return outcome


def near(function: Function, key: Key, max_age: float | None = None) -> Outcome | None:
    """The tier's answer to a call, None where it has none. With `max_age` the entry must be young enough as well: both bounds
    hold."""
    item = standing(function, key)
    if item is None:
        return None
    marks = ((key.names[0], item.header.generation), *item.header.marks)
    if max_age is not None:
        names, tokens = zip(*marks)  # its tokens are current, or it would not stand
        if judge(item.header, names, tokens, wall(), max_age) is not FRESH:
            return None
    beta = function.policy.beta
    if beta and early(item.header, wall(), beta, function.chance()):
        return None  # elected: the store's entry says whether anybody else was
    value = handed_out(function, item)
    if value is MISSING:
        return None
    return Outcome(value, source=Source.NEAR, sealed=Sealed(item.raw, header=item.header), marks=marks)


def standing(function: Function, key: Key) -> NearItem | None:
    """The item of a call that may be served now."""
    tier, staleness = function.near, function.policy.near
    assert tier is not None and staleness is not None, "it has a near cache"
    item, round_, now = tier.items.get(key.text), tier.round, boottime()
    if (
        item is None
        or function.witness.owed  # asked in a round that ends when something comes to be owed
        or not item.stands()
        or not is_fresh(item.first.token, item.fresh_until, item.header.generation, wall())
        or not now - tier.fence <= staleness
        or not item.of_versions(function.witness.versions)
        or item.header.fingerprint != function.fingerprint
    ):
        return None
    tier.served = True
    if is_real():  # else every hit asks the clock that is in its place
        item.until = now + item.fresh_until - wall()
        item.round = round_  # last: whoever sees the round sees its end too
    return item


def ticket_of(function: Function, key: Key) -> Ticket | None:
    """The right to bring in what is read from now on. Wakes the heartbeat where it has something to do."""
    tier, heart = function.near, function.state.heart
    assert tier is not None and heart is not None, "it has a near cache"
    tier.asked = True
    ticket = tier.ticket(function.call_name(key))
    if ticket is None or boottime() - tier.fence > heart.staleness:
        heart.wake()
    return ticket


def fill(function: Function, ticket: Ticket | None, key: Key, raw: bytes, header: Header, value: Any) -> None:
    """Brings an entry in that was read under the ticket and judged FRESH."""
    tier = function.near
    if ticket is None or tier is None:
        return
    places = places_of(value)
    if places is None:
        item = NearItem(key.text, header, MISSING, partial(function.decode, raw, header), (), len(raw))
    else:
        make = Same(value) if places else None
        item = NearItem(key.text, header, MISSING if places else value, make, places, memory_of(value))
    if function.auditor is not None:
        item.raw = raw  # what an audit compares
        item.cost += len(raw)
    tier.fill(ticket, item, key.names[0])


def fill_from(function: Function, ticket: Ticket | None, key: Key, outcome: Outcome) -> None:
    """Brings in the entry that a call was answered from, if that was read fresh under the ticket."""
    sealed = outcome.sealed
    if outcome.source is Source.FRESH and outcome.error is None and sealed is not None and sealed.header is not None:
        fill(function, ticket, key, sealed.raw, sealed.header, outcome.value)


def handed_out(function: Function, item: NearItem) -> Any:
    """What one more caller gets of an item that stands; MISSING where it cannot be read. From the second hit on it is copied,
    where `copier_of` knows how."""
    value, make = item.value, item.make
    if value is MISSING:
        if make is None or (item.places and moved(item.places)):
            return MISSING
        try:
            value = make()
            if isinstance(make, partial):
                item.decodes += 1
                if item.decodes == 2 and function.near is not None:
                    original = make()
                    copier = copier_of(original)
                    # What is copied takes more room than its bytes. Where there is not so much, it is decoded each time.
                    if copier is not None and function.near.grow(item, memory_of(original) + len(item.raw)):
                        item.places, item.make = copier.places, copier.copy
        except DamagedEntry:
            if function.near is not None:
                function.near.forget(item)
            return MISSING
    item.visited = True
    return value
