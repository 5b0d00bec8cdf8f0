"""The plain miss of a `def` function on a store that performs its steps in the calling thread: no generator, two steps.

It is what `engine.load` says of a call without windows, observers or an enclosing load that found no entry: take the
lease, load, store. The rules are the same, and so are the parts that keep them: the flight and the lease are noted before
the lease is asked for, the load is marked in its context, the lease holder alone stores, and the entry carries the
tokens read before its load. Where anything else turns out (the lease is another's, an entry has come, the load raised or
used cached results, the store failed), the flow goes on from there. Tests hold the two together.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from memover.clocks import wall
from memover.codec.envelope import read_header, seal
from memover.engine import load as flows
from memover.engine.answers import Outcome, Reading, Sealed
from memover.engine.call import CachedCall
from memover.engine.marks import captured
from memover.engine.steps import POSTED
from memover.errors import StoreError, UnencodableValue
from memover.latch import FramePresence
from memover.model import MISSING, Source
from memover.runtime.dependencies import INSIDE, enter, leave
from memover.runtime.entries import limit_ms
from memover.runtime.flights import Flight
from memover.runtime.hit import absent, settled
from memover.runtime.results import evaluated, is_lazy
from memover.runtime.run import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memover.engine.store import Granted, Seen
    from memover.model import Key
    from memover.runtime.function import Function

    class Direct(Protocol):
        """The two steps of a plain miss, without a generator; see `stores.sqlite.direct` and `stores.redis.direct`."""

        most: int
        """The greatest number of tokens that an entry may be stored under."""

        def take(self, call: CachedCall, token: str, seen: Seen) -> Granted | None:
            """Ask for the lease; None where it is to be asked for the whole way. Raises `StoreError`."""

        def put(
            self, key: Key, token: str, sealed: Sealed, heard: Callable[[Callable[[], bool]], None] | None
        ) -> bool | None:
            """Store an entry under one token and give the lease back. None where it is to be stored the whole way. Where there is `heard` the
            answer may be POSTED: it is called with what answers, or raises the `StoreError`, when that is known."""

    Missed = Callable[[Key, tuple[Any, ...], Mapping[str, Any], Seen, float], Any]

__all__ = ["missed"]

LOADED = Source.LOADED


def missed(function: Function) -> Missed:
    """What follows a read that was answered and did not serve a call of this function."""
    make: Callable[[], Direct | None] | None = getattr(function.state.store, "direct", None)
    direct = None if make is None else make()

    def whole(key: Key, args: tuple[Any, ...], kwargs: Mapping[str, Any], seen: Seen, began: float) -> Any:
        return absent(function, key, args, kwargs, None, seen, began)

    if direct is None or function.soft_name is not None or function.near is not None or function.whole:
        return whole
    return _plainly(function, direct, whole)


class _Unread(Sealed):
    """A value sealed for the store, whose header is read from its bytes only when somebody wants it."""

    __slots__ = ("_entry",)

    def __init__(self, raw: bytes, expire_ms: int, entry: bytes) -> None:
        self.raw = raw
        self.expire_ms = expire_ms
        self.value = MISSING
        self.error = self.codec = None
        self.places = ()
        self._entry = entry

    def __getattr__(self, name: str) -> Any:
        if name != "header":
            raise AttributeError(name)
        header = self.header = read_header(self.raw, self._entry)
        return header


def _sealing(function: Function) -> Callable[[CachedCall, Outcome], Sealed | None]:
    """As the function's `seal`, for a value that is stored as it is encoded, with the generation alone and a fixed ttl; None
    for any other, which `seal` then looks at."""
    state, policy, codec, encode = function.state, function.policy, function.codec_name, function.encode
    fresh_for = state.default_ttl if policy.ttl is None else policy.ttl

    def sealed(call: CachedCall, done: Outcome) -> Sealed | None:
        try:
            payload = encode(done.value)
        except UnencodableValue:
            return None
        size = len(payload)
        if size >= state.compress_from_bytes or size > state.max_entry_bytes or size > state.expanded_bytes_limit:
            return None
        now, entry = wall(), call.key.entry
        assert done.marks is not None and not callable(fresh_for), "see the callers"
        raw = seal(
            payload,
            key=entry,
            generation=done.marks[0][1],
            codec=codec,
            created_at=now,
            load_time=done.load_time,
            fresh_until=now + fresh_for,
            usable_until=now + fresh_for,
            fingerprint=function.fingerprint or function.own_fingerprint(),
        )
        return _Unread(raw, expire_ms, entry)

    if callable(fresh_for) or fresh_for <= 0 or policy.cache_if is not None or policy.jitter:
        return lambda call, done: None
    expire_ms = limit_ms(fresh_for)
    return sealed


def _plainly(function: Function, direct: Direct, whole: Missed) -> Missed:
    state, observers, witness, inside = function.state, function.observers, function.witness, INSIDE.get
    counters, plainly_sealed, most = function.counters, _sealing(function), direct.most
    load, tracks = function.function, function.policy.track_dependencies

    def call(key: Key, args: tuple[Any, ...], kwargs: Mapping[str, Any], seen: Seen, began: float) -> Any:
        names, tokens, raw, _ = seen
        if (
            raw is not None
            or not len(names) == key.required <= most
            or observers.busy
            or function.late
            or function.upgrades
            or witness.owed
            or inside() is not None
            or not witness.trusts(names, tokens)
        ):
            return whole(key, args, kwargs, seen, began)
        this = CachedCall(function, key, args, kwargs, flight=Flight())
        this.presence = this.flight.presence = presence = FramePresence()
        value = error = None
        done: Outcome | None = None
        try:
            arrival = function.arrive()
            token = function.new_token()
            granted: Granted | None = None
            try:
                granted = direct.take(this, token, seen)
            except StoreError as failure:
                function.abandon(token)
                done = run(flows.storeless(this, failure, arrival))
            if granted is not None and granted.ours and granted.seen.raw is None:
                names, tokens, _, _ = granted.seen
                if not witness.owed:
                    witness.trusts(names, tokens)
                entered = enter((this,), state, tracks)
                started = perf_counter()
                try:
                    value = load(*args, **kwargs)
                    if is_lazy(value):
                        value = evaluated(value)
                except BaseException as raised:
                    error = raised
                finally:
                    seconds = perf_counter() - started
                    leave(entered)
                done = function.loaded(this, value, error, seconds, entered[0].collector)
                reading = Reading(names, tokens, None, None)
                if done.error is not None or done.marks != () or done.declared or not done.keep:
                    done = run(flows.conclude(this, token, reading, done))
                else:
                    done.marks = captured(this, reading)
                    done = stored(this, token, done)
            elif granted is not None:
                deadline = function.monotonic() + function.wait_seconds
                done = run(flows.granted(this, this.granted(granted), token, arrival, deadline))
            elif done is None:
                function.let_go(token)  # it was not given
                done = run(flows.miss(this))
        finally:
            function.finish(this, done)
            presence.forget()
            error = None  # its traceback refers to this frame
        assert done is not None, "it came to something"
        if done.error is None and done.source is LOADED and not observers.busy:
            counters.misses += 1
            return done.value
        try:
            return settled(done, this, began)
        finally:
            del done

    def stored(this: CachedCall, token: str, done: Outcome) -> Outcome:
        # The end of `engine.load.conclude`.
        assert done.marks is not None, "its tokens"
        sealed = plainly_sealed(this, done) if len(done.marks) == 1 else None
        if sealed is None:
            sealed = function.seal(this, done, done.marks)
        if sealed is None or sealed.error is not None or this.closed():
            return run(flows.keep(this, token, done, sealed))
        done.sealed = sealed
        heard = partial(answered, this, token, sealed) if function.quiet() else None
        try:
            kept = direct.put(this.key, token, sealed, heard) if len(done.marks) == 1 else None
            if kept is None:
                kept = run(this.storing(token, sealed))
            if kept is POSTED:
                function.post(token)
            else:
                counted(this, token, sealed, kept)
        except StoreError as error:
            run(flows.not_stored(this, token, error))
        return done

    def answered(this: CachedCall, token: str, sealed: Sealed, answer: Callable[[], bool]) -> None:
        # The store's answer, after the call.
        try:
            counted(this, token, sealed, answer())
        except StoreError as error:
            function.store_failed(this.key, error)
            function.withdraw(token)

    def counted(this: CachedCall, token: str, sealed: Sealed, kept: bool) -> None:
        if kept and not observers.busy and function.last_answers is None and not function.unreadable:
            function.let_go(token)
            counters.stores += 1
        else:
            this.kept(token, sealed, kept)

    return call
