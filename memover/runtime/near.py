"""The cached call of a function with `near=`: the tier first, then what `hit` does, and what was read comes into the tier.

A hit is one look into a dictionary, flags, and two clocks: no lock, no generator, nothing sent. Calls inside a load, under a
pending invalidation or with `max_age` go to the store, and so does whatever is not plainly FRESH; a test holds the short
form here to `engine.judge`.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from memover.clocks import boottime, wall
from memover.codec.copier import copier_of
from memover.codec.envelope import read_header
from memover.codec.sharing import moved, places_of
from memover.engine import load as flows
from memover.engine.answers import Outcome, Reading, Sealed
from memover.engine.judge import FRESH, is_fresh, judge
from memover.engine.load import early
from memover.errors import DamagedEntry, StoreError
from memover.model import MISSING, Source
from memover.runtime.dependencies import INSIDE
from memover.runtime.hit import aabsent, absent, adrive, ageneral, drive, general, result_of
from memover.runtime.run import arun
from memover.stores.near import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memover.codec.envelope import Header
    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow
    from memover.model import Key
    from memover.runtime.function import Function
    from memover.stores.near import Ticket

__all__ = ["acached_call_near", "cached_call_near"]

_PER_BYTE = 8
"""A value in memory takes about so many times its encoded bytes."""


# -- the bare paths -----------------------------------------------------------------------------------------------------------


def cached_call_near(function: Function, lookup: Callable[..., Key]) -> Callable[..., Any]:
    """The cached call of a `def` function."""
    tier, heart, staleness = function.near, function.state.heart, function.policy.near
    assert tier is not None and heart is not None and staleness is not None, "it has a near cache"
    observers, witness, counters = function.observers, function.witness, function.counters
    inside = INSIDE.get
    soft, versions = function.soft_name, witness.versions
    fetch = function.store.fetch
    find = tier.items.get

    def call(*args: Any, **kwargs: Any) -> Any:
        if observers.busy or inside() is not None or witness.owed or function.whole:
            return general_near(function, lookup, args, kwargs)
        key = lookup(*args, **kwargs)
        item = find(key.text)
        if (
            item is not None
            and item.first.alive
            and item.second.alive
            and (not item.more or item.stands())
            and is_fresh(item.first.token, item.fresh_until, item.header.generation, time.time())
            and boottime() - tier.fence <= staleness
            and (not item.versions or item.of_versions(versions))
            and item.header.fingerprint == function.fingerprint
            and not (item.places and moved(item.places))
        ):
            if item.make is None:
                counters.hits += 1
                counters.near_hits += 1
                item.visited = True
                return item.value
            value = made(function, item)
            if value is not MISSING:
                counters.hits += 1
                counters.near_hits += 1
                item.visited = True
                return value
        ticket = ticket_of(function, key)
        if function.learned:
            key = function.known_key(key)
        began, forgotten = perf_counter(), function.forgotten
        try:
            seen = fetch(key)
        except StoreError as error:
            return absent(function, key, args, kwargs, error, None, began)
        names, tokens, raw, _ = seen
        if raw is not None and witness.trusts(names, tokens):
            try:
                header = read_header(raw, key.entry)
                if not header.kind and FRESH is judge(
                    header, names, tokens, wall(), required=key.required, soft=soft, versions=versions
                ):
                    value = function.decode(raw, header)
                    if function.last_answers is not None:
                        function.keep_answer(key, Reading(names, tokens, raw, header), forgotten)
                    fill(function, ticket, key, raw, header, value)
                    counters.hits += 1
                    return value
            except DamagedEntry:
                pass  # `absent` reads the header once more, and counts it there
        return absent(function, key, args, kwargs, None, seen, began)

    return call


def acached_call_near(function: Function, lookup: Callable[..., Key]) -> Callable[..., Any]:
    """The cached call of an `async def` function; see `cached_call_near`."""
    tier, heart, staleness = function.near, function.state.heart, function.policy.near
    assert tier is not None and heart is not None and staleness is not None, "it has a near cache"
    observers, witness, counters = function.observers, function.witness, function.counters
    inside = INSIDE.get
    soft, versions = function.soft_name, witness.versions
    afetch = function.store.afetch
    find = tier.items.get

    async def call(*args: Any, **kwargs: Any) -> Any:
        if observers.busy or inside() is not None or witness.owed or function.whole:
            return await ageneral_near(function, lookup, args, kwargs)
        key = lookup(*args, **kwargs)
        item = find(key.text)
        if (
            item is not None
            and item.first.alive
            and item.second.alive
            and (not item.more or item.stands())
            and is_fresh(item.first.token, item.fresh_until, item.header.generation, time.time())
            and boottime() - tier.fence <= staleness
            and (not item.versions or item.of_versions(versions))
            and item.header.fingerprint == function.fingerprint
            and not (item.places and moved(item.places))
        ):
            if item.make is None:
                counters.hits += 1
                counters.near_hits += 1
                item.visited = True
                return item.value
            value = made(function, item)
            if value is not MISSING:
                counters.hits += 1
                counters.near_hits += 1
                item.visited = True
                return value
        ticket = ticket_of(function, key)
        if function.learned:
            key = function.known_key(key)
        began, forgotten = perf_counter(), function.forgotten
        try:
            seen = await afetch(key)
        except StoreError as error:
            return await aabsent(function, key, args, kwargs, error, None, began)
        names, tokens, raw, _ = seen
        if raw is not None and witness.trusts(names, tokens):
            try:
                header = read_header(raw, key.entry)
                if not header.kind and FRESH is judge(
                    header, names, tokens, wall(), required=key.required, soft=soft, versions=versions
                ):
                    value = function.decode(raw, header)
                    if function.last_answers is not None:
                        function.keep_answer(key, Reading(names, tokens, raw, header), forgotten)
                    fill(function, ticket, key, raw, header, value)
                    counters.hits += 1
                    return value
            except DamagedEntry:
                pass  # `aabsent` reads the header once more, and counts it there
        return await aabsent(function, key, args, kwargs, None, seen, began)

    return call


# -- observed, or refreshed early -----------------------------------------------------------------------------------------------


def general_near(
    function: Function, lookup: Callable[..., Key], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """As `hit.general`, with the tier before it."""
    if function.observers.disabled() or INSIDE.get() is not None or function.witness.owed:
        return general(function, lookup, args, kwargs)
    if function.observers.spanning:
        with function.span("lookup", lookup(*args, **kwargs).text):
            return _looked_up(function, lookup, args, kwargs)
    return _looked_up(function, lookup, args, kwargs)


def _looked_up(function: Function, lookup: Callable[..., Key], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    began = perf_counter()
    key = lookup(*args, **kwargs)
    call = function.call(key, args, kwargs)
    found = near(function, key)
    if found is not None:
        function.looked_up(call, found, perf_counter() - began)
        return found.value
    return drive(filling(flows.get(call), function, call, ticket_of(function, key)), call, began)


async def ageneral_near(
    function: Function, lookup: Callable[..., Key], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """As `hit.ageneral`, with the tier before it. Only what is not served at once gets a task of its own."""
    if function.observers.disabled() or INSIDE.get() is not None or function.witness.owed:
        return await ageneral(function, lookup, args, kwargs)
    if function.observers.spanning:
        with function.span("lookup", lookup(*args, **kwargs).text):
            return await _alooked_up(function, lookup, args, kwargs)
    return await _alooked_up(function, lookup, args, kwargs)


async def _alooked_up(
    function: Function, lookup: Callable[..., Key], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    began = perf_counter()
    key = lookup(*args, **kwargs)
    call = function.call(key, args, kwargs)
    found = near(function, key)
    if found is not None:
        function.looked_up(call, found, perf_counter() - began)
        return found.value
    if call.closed():
        return await adrive(flows.get(call), call, began)
    try:
        served = await arun(filling(flows.served(call), function, call, ticket_of(function, key)))
    except StoreError as error:
        return await adrive(flows.storeless(call, error, function.arrive()), call, began)
    if served is None:
        return await adrive(flows.miss(call), call, began)
    function.looked_up(call, served, perf_counter() - began)
    return result_of(served)


def filling(flow: Flow[Any], function: Function, call: CachedCall, ticket: Ticket | None) -> Flow[Any]:
    """A call's flow; what it has read fresh comes into the tier."""
    outcome = yield from flow
    if outcome is not None and outcome.source is Source.FRESH and outcome.error is None and outcome.sealed is not None:
        sealed = outcome.sealed
        if sealed.header is not None:
            fill(function, ticket, call.key, sealed.raw, sealed.header, outcome.value)
    return outcome


def near(function: Function, key: Key) -> Outcome | None:
    """The tier's answer to a call, None where it has none; the conditions are those of the bare paths."""
    tier, staleness = function.near, function.policy.near
    assert tier is not None and staleness is not None, "it has a near cache"
    item = tier.items.get(key.text)
    if (
        item is None
        or not item.stands()
        or not is_fresh(item.first.token, item.fresh_until, item.header.generation, wall())
        or not boottime() - tier.fence <= staleness
        or not item.of_versions(function.witness.versions)
        or item.header.fingerprint != function.fingerprint
        or (item.places and moved(item.places))
    ):
        return None
    beta = function.policy.beta
    if beta and early(item.header, wall(), beta, function.chance()):
        return None  # elected: the store's entry says whether anybody else was
    value = item.value if item.make is None else made(function, item)
    if value is MISSING:
        return None
    item.visited = True
    marks = ((key.names[0], item.header.generation), *item.header.marks)
    return Outcome(value, source=Source.NEAR, sealed=Sealed(header=item.header), marks=marks)


# -- in and out of the tier -----------------------------------------------------------------------------------------------------


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
    """Bring an entry in that was read under the ticket and judged FRESH."""
    tier = function.near
    if ticket is None or tier is None:
        return
    places = places_of(value)
    if places is not None:
        cost = sys.getsizeof(value) if isinstance(value, (str, bytes, int, float)) else _PER_BYTE * len(raw)
        item = Item(key.text, header, value, None, places, cost)
    else:
        item = Item(key.text, header, MISSING, partial(function.decode, raw, header), (), len(raw))
    tier.fill(ticket, item, key.names[0])


def made(function: Function, item: Item) -> Any:
    """A value for one more caller; MISSING where it cannot be read. From the second hit on it is copied, where
    `copier_of` knows how."""
    make = item.make
    assert make is not None, "the value itself is not to be handed out"
    try:
        value = make()
        item.decodes += 1
        if item.decodes == 2:
            copier = copier_of(make())
            if copier is not None:
                item.places, item.make = copier.places, copier.copy
        return value
    except DamagedEntry:
        if function.near is not None:
            function.near.forget(item)
        return MISSING
