"""The cached call itself, as long as nothing else must happen: a hit has no generator, no lock and no event.

Both ways to a hit are here, and `engine.load.get` says the same as a flow; a test holds them together.

* `cached_call` and `acached_call` take any call: arguments to key, this process's tier (a memory store, or a near cache),
  then one read of the store, judged and decoded. What is not served goes on in `hit`.
* `hot.hot_call` is made for one function, when its tier has answered for the first time, and is then the decorated object's own
  `__call__`. It has the function's parameters, and a dictionary from arguments to items of the tier. It asks what a hit must
  ask, in one frame, and leaves everything else to the calls above.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from memover.clocks import wall
from memover.codec.envelope import pack_marks, read_header, read_plain
from memover.engine.answers import Reading
from memover.engine.judge import FRESH, is_fresh, judge
from memover.engine.store import Kept
from memover.errors import DamagedEntry, StoreError
from memover.model import MISSING
from memover.runtime.again import again, decoded
from memover.runtime.dependencies import INSIDE, UNDER_WAY
from memover.runtime.direct import direct_miss
from memover.runtime.hit import aabsent, absent, ageneral, general, inside_a_load, settled
from memover.runtime.hot import hot_call
from memover.runtime.near import fill, ticket_of
from memover.runtime.stepwise import Stepwise
from memover.runtime.tiers import tier_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.codec.envelope import Header
    from memover.engine.call import CachedCall
    from memover.engine.store import Seen
    from memover.model import Key
    from memover.runtime.function import Function
    from memover.runtime.tiers import FunctionTier
    from memover.stores.near import Ticket

__all__ = ["acached_call", "cached_call"]


class Bare:
    """What the calls of a `def` and of an `async def` function share: the tier before the store, and what a read comes to."""

    def __init__(self, function: Function, tier: FunctionTier | None, warmed: Callable[[], None]) -> None:
        self.function = function
        self.tier = tier
        self.memory = function.state.memory if function.simple else None
        self.unkept = self.memory is None and function.last_answers is None
        """Whether nothing but its value is kept of an entry that was read."""
        self.warmed: Callable[[], None] | None = warmed

    def at_hand(self, key: Key) -> Any:
        """What the tier has for a caller, else MISSING. After the first hit of all, `warmed` is called."""
        tier = self.tier
        if tier is None:
            return MISSING
        item = tier.find(key)
        value = MISSING if item is None else tier.serve(item)
        if value is not MISSING:
            counters = self.function.counters
            counters.own_hits += 1
            if tier.near:
                counters.own_near_hits += 1
            if self.warmed is not None:
                self.warm()
        return value

    def warm(self) -> None:
        """To be called when the tier has answered, or could have: from now on generated code asks it."""
        warmed, self.warmed = self.warmed, None
        if warmed is not None:
            warmed()

    def served(self, key: Key, seen: Seen, forgotten: int, ticket: Ticket | None) -> Any:
        """The value of an entry that was read, MISSING where it is not plainly to be served. It comes into the tier."""
        function, witness = self.function, self.function.witness
        names, tokens, raw, _ = seen
        if raw is None or not witness.trusts(names, tokens):
            return MISSING
        form = function.form
        if form is not None and ticket is None and self.unkept:
            # Nobody wants the header, and the marks are to be those that would be stamped now. `call` below has the same for an
            # entry without marks written out, because a frame is a twentieth of a hit in a file.
            current: Any = tokens  # they are trusted, so they are there
            generation = current[0]
            if type(seen) is Kept:
                value = again(seen, form, generation)
                if value is not MISSING:
                    if self.warmed is not None and len(names) == 1:
                        self.warm()
                    function.counters.own_hits += 1
                    return value
            marks = pack_marks([*zip(names[1:], current[1:])]) if len(names) > 1 else b""
            plain = read_plain(raw, form, generation, key.entry, marks)
            if plain is not None and is_fresh(generation, plain[0], generation, wall()):
                try:
                    value = function.decode_payload(plain[1])
                except DamagedEntry:
                    return MISSING
                if type(seen) is Kept:
                    decoded(function, seen, generation, *plain, value)
                function.counters.own_hits += 1
                return value
        try:
            header = fresh_header(function, key, names, tokens, raw, wall())
            if header is None:
                return MISSING
            value = function.decode(raw, header)
        except DamagedEntry:
            return MISSING  # `absent` reads the header once more, and counts it there
        if self.memory is not None:
            self.memory.decoded(key.text, raw, partial(function.decode, raw, header))
        elif function.last_answers is not None:
            function.keep_answer(key, Reading(names, tokens, raw, header), forgotten)
        if ticket is not None:
            fill(function, ticket, key, raw, header, value)
        function.counters.own_hits += 1
        return value


def fresh_header(
    function: Function, key: Key, names: Sequence[bytes], tokens: Sequence[bytes | None], raw: bytes, now: float
) -> Header | None:
    """The header of an entry that is plainly to be served, None for any other. Raises `DamagedEntry`."""
    header, versions = read_header(raw, key.entry), function.witness.versions
    required, soft = key.required, function.soft_name
    fresh = FRESH is judge(header, names, tokens, now, required=required, soft=soft, versions=versions)
    return header if fresh and not header.kind else None


def cached_call(
    function: Function, lookup: Callable[..., Key], install: Callable[[Callable[..., Any]], None] | None = None
) -> Callable[..., Any]:
    """The cached call of a `def` function. `install(call)` is called once, when there is a `hot_call` to be used instead."""
    observers, witness, under_way = function.observers, function.witness, UNDER_WAY
    inside, fetch, tier = INSIDE.get, function.state.store.fetch, tier_of(function)

    def nested(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Stepwise, CachedCall, float] | None:
        # Run by the caller: a function that calls itself is to have as little as can be on the stack between two of its calls.
        if observers.busy or inside() is None or (near and witness.owed):
            return None
        began, this = perf_counter(), function.call(lookup(*args, **kwargs), args, kwargs)
        return Stepwise(inside_a_load(this), this), this, began

    def warmed() -> None:
        if install is not None and tier is not None:
            hot = hot_call(function, lookup, tier, general, answered, nested)
            if hot is not None:
                install(hot)

    bare, miss, direct = Bare(function, tier, warmed), direct_miss(function), function.state.store.direct()
    presumed = direct.presumed if direct is not None and miss is not None else None
    at_hand, served = bare.at_hand, bare.served
    near, whole = function.near is not None, function.whole
    tiered = tier is not None and not tier.kept_read and not whole
    straight, last, counters = not tiered and bare.unkept and not whole, witness.last, function.counters

    def call(*args: Any, **kwargs: Any) -> Any:
        if observers.busy or (near and witness.owed) or (under_way and inside() is not None):
            load = nested(args, kwargs)
            if load is None:
                return general(function, lookup, args, kwargs)
            stepwise, this, began = load
            try:
                while (step := stepwise.advance()) is not None:
                    try:
                        stepwise.answer = step.function(*step.args, **step.kwargs)
                    except BaseException as error:
                        stepwise.error = error
            finally:
                stepwise.end()
            return settled(stepwise.done, this, began)
        return answered(lookup(*args, **kwargs), args, kwargs)

    def at_once(key: Key, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if witness.owed or function.learned:
            return answer(key, args, kwargs)
        # What `answer` and `served` come to where there is nothing to ask before the store, for an entry that carries its generation
        # alone.
        began = perf_counter()
        if presumed is not None and miss is not None:
            likely = presumed(key, last(key.names[0]))
            if likely is not None:
                value = miss(key, args, kwargs, likely, began, True)
                if value is not MISSING:
                    return value
        try:
            seen = fetch(key)
        except StoreError as error:
            return absent(function, key, args, kwargs, error, None, began)
        names, tokens, raw, _ = seen
        if raw is None:
            if miss is not None:
                return miss(key, args, kwargs, seen, began)
            return absent(function, key, args, kwargs, None, seen, began)
        form, token = function.form, tokens[0]
        if form is not None and len(names) == 1 and token is not None and last(names[0]) == token:
            if type(seen) is Kept:
                value = again(seen, form, token)
                if value is not MISSING:
                    if bare.warmed is not None:
                        bare.warm()
                    counters.own_hits += 1
                    return value
            plain = read_plain(raw, form, token, key.entry)
            if plain is not None and is_fresh(token, plain[0], token, wall()):
                try:
                    value = function.decode_payload(plain[1])
                except DamagedEntry:
                    return absent(function, key, args, kwargs, None, seen, began)
                if type(seen) is Kept:
                    decoded(function, seen, token, *plain, value)
                counters.own_hits += 1
                return value
        value = served(key, seen, function.forgotten, None)
        return value if value is not MISSING else absent(function, key, args, kwargs, None, seen, began)

    def answer(key: Key, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if tiered:
            value = at_hand(key)
            if value is not MISSING:
                return value
        if whole or witness.owed:
            return general(function, lookup, args, kwargs)
        ticket = ticket_of(function, key) if near else None
        if function.learned:
            key = function.known_key(key)
        began, forgotten = perf_counter(), function.forgotten
        try:
            seen = fetch(key)
        except StoreError as error:
            return absent(function, key, args, kwargs, error, None, began)
        if seen.raw is None and miss is not None:
            return miss(key, args, kwargs, seen, began)
        value = served(key, seen, forgotten, ticket)
        return value if value is not MISSING else absent(function, key, args, kwargs, None, seen, began)

    answered = at_once if straight else answer
    return call


def acached_call(
    function: Function, lookup: Callable[..., Key], install: Callable[[Callable[..., Any]], None] | None = None
) -> Callable[..., Any]:
    """As `cached_call`, of an `async def` function."""
    observers, witness, under_way = function.observers, function.witness, UNDER_WAY
    inside, store, tier = INSIDE.get, function.state.store, tier_of(function)
    fetch, afetch = (store.fetch if store.local else None), store.afetch

    def warmed() -> None:
        if install is not None and tier is not None:
            hot = hot_call(function, lookup, tier, ageneral, answer, None)
            if hot is not None:
                install(hot)

    bare = Bare(function, tier, warmed)
    at_hand, served = bare.at_hand, bare.served
    near, whole = function.near is not None, function.whole
    tiered = tier is not None and not tier.kept_read and not whole
    straight = not tiered and not whole and fetch is None

    async def call(*args: Any, **kwargs: Any) -> Any:
        if observers.busy or (under_way and inside() is not None) or (near and witness.owed):
            return await ageneral(function, lookup, args, kwargs)
        key = lookup(*args, **kwargs)
        if not straight or witness.owed or function.learned:
            return await answer(key, args, kwargs)
        # What is left of `answer` without a tier, here, so that a hit needs a coroutine less.
        began, forgotten = perf_counter(), function.forgotten
        try:
            seen = await afetch(key)
        except StoreError as error:
            return await aabsent(function, key, args, kwargs, error, None, began)
        value = served(key, seen, forgotten, None)
        return value if value is not MISSING else await aabsent(function, key, args, kwargs, None, seen, began)

    async def answer(key: Key, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if tiered:
            value = at_hand(key)
            if value is not MISSING:
                return value
        if whole or witness.owed:
            return await ageneral(function, lookup, args, kwargs)
        ticket = ticket_of(function, key) if near else None
        if function.learned:
            key = function.known_key(key)
        began, forgotten = perf_counter(), function.forgotten
        try:
            seen = await afetch(key) if fetch is None else fetch(key)
        except StoreError as error:
            return await aabsent(function, key, args, kwargs, error, None, began)
        value = served(key, seen, forgotten, ticket)
        return value if value is not MISSING else await aabsent(function, key, args, kwargs, None, seen, began)

    return call
