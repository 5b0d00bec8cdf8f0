"""One call of one cached function: what it asks of the store, what it knows, and what it shares with other callers.

A `CachedCall` is made for a call that was not served at once; a hit makes none. The flows (`engine.load`, `engine.many`,
`engine.invalidate`) decide; the call carries their facts and turns each of their verbs into the store's.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from memover.engine.answers import Grant, Outcome, Reading
from memover.engine.judge import VERSION, Verdict, judge
from memover.engine.steps import POSTED, Send
from memover.engine.store import Request, StoredEntry
from memover.engine.tokens import parse
from memover.errors import StoreError
from memover.keys.names import transient
from memover.model import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from memover.engine.answers import Sealed
    from memover.engine.function import Collecting, Function
    from memover.engine.steps import Flow
    from memover.engine.store import Granted, Seen
    from memover.model import Key

__all__ = ["CachedCall"]


class CachedCall:
    """A call on its way. `key` changes as tokens are learned that its entry depends on.

    * `call_name`: this call's own token, b"" unless a load that tracks what it uses waits for the answer; `call_token` is
      what was read under it.
    * `usable`: the last reading that was stale. `shared`: what other callers get, where it is not the call's own outcome.
    * `token`: the lease it asked for last, `renewed` when that was last known to be prolonged (monotonic seconds); `tokens`:
      every lease token under which others of this process find it.
    * `presence`: whether its caller is still running it; `unleased`: it loads without a lease.
    * `ran`: its load has run, or an upgrade in its place. `left`: its caller was interrupted and does not count it any more;
      `counted`: it has been counted, or is no lookup.
    """

    __slots__ = (
        "__weakref__",
        "args",
        "call_name",
        "call_token",
        "collector",
        "counted",
        "flight",
        "function",
        "key",
        "kwargs",
        "left",
        "load_time",
        "max_age",
        "outcome",
        "presence",
        "ran",
        "refused",
        "renewed",
        "required",
        "shared",
        "token",
        "tokens",
        "unleased",
        "usable",
    )

    def __init__(
        self,
        function: Function,
        key: Key,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        flight: Any,
        collector: Collecting | None = None,
        max_age: float | None = None,
    ) -> None:
        self.function = function
        self.key = key
        self.args = args
        self.kwargs = kwargs
        self.flight = flight
        self.collector = collector
        self.max_age = max_age
        self.required = key.required
        self.call_name = b"" if collector is None else function.call_name(key)
        self.call_token: bytes | None = None
        self.usable: Reading | None = None
        self.shared: Outcome | None = None
        self.outcome: Outcome | None = None
        self.presence: Any = None
        self.token = ""
        self.tokens: tuple[str, ...] = ()
        self.renewed = 0.0
        self.unleased = False
        self.refused = False
        self.load_time = 0.0
        self.ran = self.left = self.counted = False

    # -- facts ----------------------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[bytes, ...]:
        """The tokens that an entry of this call must carry."""
        return self.key.names[: self.required]

    @property
    def spread(self) -> bool:
        """Whether its keys are on different nodes."""
        return self.function.store.spread

    @property
    def clock_name(self) -> bytes:
        """The tag clock, b"" unless tags may be known only from the result and one step can cover both."""
        return self.function.clock_name if self.function.late and not self.spread else b""

    def closed(self) -> bool:
        """Whether an invalidation that would concern this call has not been acknowledged by the store yet."""
        witness = self.function.witness
        return bool(witness.owed) and witness.owes(self.names, self.key.entry)

    def owing(self, names: Sequence[bytes]) -> bool:
        """Whether an invalidation of any of these names is pending; the coarse token stands for all there are."""
        owed = self.function.witness.owed
        return bool(owed) and (self.function.coarse_name in names or self.function.witness.owes(names))

    def found_nothing(self, reading: Reading) -> bool:
        """Whether a reading has no entry that could serve the call; then its tokens are noted, because a process that has
        seen a token can restore it (P5)."""
        if reading.header is not None:
            return False
        witness = self.function.witness
        if not witness.owed or not self.owing(reading.names):
            witness.trusts(reading.names, reading.tokens)
        return True

    def judge(self, reading: Reading) -> Verdict:
        """The verdict on a reading that is trusted."""
        function = self.function
        return judge(
            reading.header,
            reading.names,
            reading.tokens,
            function.now(),
            self.max_age,
            required=self.required,
            soft=function.soft_name,
            versions=function.witness.versions,
        )

    def too_old(self, outcome: Outcome) -> bool:
        """Whether a shared outcome is older than this call accepts."""
        if self.max_age is None or outcome.sealed is None or outcome.sealed.header is None:
            return False
        return self.function.now() - outcome.sealed.header.created_at > self.max_age

    @staticmethod
    def older(token: bytes, clock: bytes) -> bool:
        """Whether a tag's token was given before the tag clock stood at `clock`."""
        mark, limit = parse(token), parse(clock)
        return mark is not None and limit is not None and mark.number < limit.number

    @staticmethod
    def is_version(name: bytes) -> bool:
        """Whether a mark says which version of a function was used."""
        return name.startswith(VERSION)

    # -- the store's verbs ----------------------------------------------------------------------------------------------

    def read(self) -> Flow[Reading]:
        """Reads the entry with its tokens. The call's own token, if a load tracks this call, is read before the entry or with it."""
        if self.call_name and self.spread:
            (self.call_token,) = yield from self.ensure((self.call_name,))
        return self.reading((yield from self.function.store.read(self.asked())))

    def look(self) -> Flow[Reading]:
        """As `read`, with the lease."""
        return self.reading((yield from self.function.store.look(self.asked())))

    def acquire(self, token: str, *, force: bool = False) -> Flow[Grant]:
        """Asks for the lease. The call is registered under the token first: other callers of this process find it there, and
        the lease is given back if this call is interrupted."""
        request = self.request(token)
        granted = yield from self.function.store.acquire(request, force=force)
        return self.granted(granted)

    def request(self, token: str) -> Request:
        """Registers the call under a token, and returns the request for its lease."""
        function, key = self.function, self.key
        self.token = token
        function.share(self, token)
        function.hold(self, token)
        ensured: tuple[bytes, ...] = ()
        if self.call_name:
            ensured = (self.call_name,)
        if function.late and self.clock_name:
            ensured = (*ensured, self.clock_name)
        witness, floors = function.witness, []
        for name in (*key.names[: key.required], *ensured):
            floors.append(witness.floor(name))
        return Request(key, token, function.lease_ms, ensured, floors)

    def granted(self, granted: Granted) -> Grant:
        """What came of the request. The store has just put back what was behind, so what it answers is current."""
        if not granted.ours:
            self.function.let_go(self.token)
        return Grant(granted.ours, granted.holder, self.reading(granted.seen))

    def ensure(self, names: Sequence[bytes]) -> Flow[list[bytes]]:
        """The tokens of these names, put back where they are missing or behind."""
        function = self.function
        floors = [function.witness.floor(name) for name in names]
        return (yield from function.store.ensure(names, floors, function.new_token()))

    def store(self, token: str, sealed: Sealed) -> Flow[bool]:
        """Stores the entry if the token still holds the lease, and gives the lease back."""
        kept = yield from self.function.store.store(self.entry(token, sealed))
        self.kept(token, sealed, kept)
        return kept

    def post(self, token: str, sealed: Sealed) -> Flow[None]:
        """As `store`, but a store may answer after the call where nobody observes the cache. Whether the entry was kept
        changes nothing for the caller (rule 5 of `engine.load`): it is counted when it is known."""
        kept = yield from self.storing(token, sealed)
        if kept is POSTED:
            self.function.post(token)
        else:
            self.kept(token, sealed, kept)

    def storing(self, token: str, sealed: Sealed) -> Any:
        """The step that stores the entry. Its answer may come later where nobody observes the cache."""
        step: Any = self.function.store.store(self.entry(token, sealed))
        if step.__class__ is Send and self.function.quiet():
            step.posted = partial(self.answered, token, sealed, step.read)
        return step

    def answered(self, token: str, sealed: Sealed, read: Callable[[list[Any]], bool], answers: list[Any]) -> None:
        """The store's answer, after the call."""
        try:
            self.kept(token, sealed, read(answers))
        except StoreError as error:
            self.function.store_failed(self.key, error)
            self.function.withdraw(token)

    def entry(self, token: str, sealed: Sealed) -> StoredEntry:
        """What the store is given for a sealed result."""
        header = sealed.header if self.function.store.local else None  # which is read from the bytes
        names = tuple(name for name, _ in sealed.marks if transient(name)) if sealed.marks else ()
        return StoredEntry(
            self.key, token, sealed.raw, sealed.expire_ms, header, sealed.value, names, sealed.places, sealed.codec
        )

    def kept(self, token: str, sealed: Sealed, kept: bool) -> None:
        """The store has taken or refused the entry; either way the lease is not ours any more."""
        self.function.let_go(token)
        self.refused = not kept
        if kept and sealed.marks:
            self.learn([name for name, _ in sealed.marks])
        self.function.stored(self, kept, sealed)

    def release(self, token: str, *, failed: bool) -> Flow[None]:
        """Gives the lease back; `failed` leaves a mark for those who waited on it."""
        yield from self.function.store.release(self.key, token, failed)
        self.function.let_go(token)

    def asked(self) -> Key:
        """The key to read: with the call's own token, where a load that tracks what it uses waits for the answer."""
        if not self.call_name or self.spread:
            return self.key
        return self.key.asking((*self.key.names, self.call_name))

    def reading(self, seen: Seen) -> Reading:
        """What was read, its header parsed; damage is counted and read as absence."""
        names, tokens, raw, lease = seen
        header = None if raw is None else self.function.read_header(self.key, raw)
        return Reading(names, tokens, raw, header, lease)

    def learn(self, names: Sequence[bytes]) -> None:
        """From now on, read these tokens together with this key: its entries depend on them."""
        self.key = self.function.learn(self.key, names)

    # -- values ---------------------------------------------------------------------------------------------------------

    def opened(self, reading: Reading, source: Source) -> Outcome | None:
        """The outcome that a reading's entry holds; None when its payload is damaged."""
        return self.function.opened(self.key, reading, source)

    def own(self, outcome: Outcome | None) -> Outcome | None:
        """Another caller's outcome as this caller's own; None when there is nothing to share."""
        if outcome is None:
            return None
        error = outcome.error
        if error is not None:
            if outcome.outside:
                return None
            own = self.function.own_error(error).with_traceback(outcome.traceback)
            return Outcome(error=own, source=Source.WAITED, marks=outcome.marks)
        if self.too_old(outcome):
            return None
        return Outcome(self.function.own_copy(outcome), source=Source.WAITED, marks=outcome.marks)

    def hand_on(self, outcome: Outcome) -> None:
        """Tells the load that asked for this call what the answer stands under."""
        collector = self.collector
        if collector is None or outcome.source is Source.BYPASSED or not self.function.is_at(collector.home):
            return
        stale = outcome.source is Source.STALE or outcome.source is Source.STALE_IF_ERROR
        if outcome.marks is None or stale or self.call_token is None:
            collector.use(None)
        else:
            collector.use((*outcome.marks, (self.call_name, self.call_token), self.function.version_mark))
