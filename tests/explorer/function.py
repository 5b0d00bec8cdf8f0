"""The function of the explorer's world, as the engine calls it: what `runtime.function` and `runtime.state` are otherwise.

All that a flow learns from its process without waiting (who has a flight, what has come of one, how many have arrived) goes
through `Means.observe`, so that a history of answers and observations makes a flow do again what it did.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from memover.engine.answers import Outcome, Sealed
from memover.engine.call import CachedCall
from memover.engine.judge import VERSION
from memover.engine.steps import Step as EngineStep
from memover.errors import StoreError
from memover.model import Key, Source
from memover.runtime.dependencies import TokenCollector
from tests.explorer.state import (
    CALL,
    CHILD,
    CLOCK,
    COARSE,
    OLDER,
    OTHER,
    PARENT,
    SOFT,
    TAG,
    VERSION_MARK,
    header_in,
    key_of,
    raw_of,
    value_in,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from memover.engine.answers import Marks, Reading
    from memover.engine.tokens import Witness
    from tests.explorer.state import FlightName, Process
    from tests.explorer.world import Rules, Scenario

__all__ = [
    "BROKEN",
    "PATIENCE_SECONDS",
    "Behind",
    "Boom",
    "Loading",
    "Means",
    "WorldFlight",
    "WorldFunction",
    "made_again",
    "value_of",
]

BROKEN = "the function failed"
PATIENCE_SECONDS = 10.0


class Boom(Exception):
    """What a wrapped function raises."""


# -- steps that only the world has ------------------------------------------------------------------------------------------


class Loading(EngineStep[Any]):
    """The function runs: it reads the truth when it begins. Answer: (value, error)."""

    __slots__ = ("unleased",)

    def __init__(self, *, unleased: bool) -> None:
        self.unleased = unleased


class Behind(EngineStep[bool]):
    """A refresh behind the caller. Answer: whether it runs."""

    __slots__ = ("since",)

    def __init__(self, since: float) -> None:
        self.since = since


# -- what flows share -------------------------------------------------------------------------------------------------------


class Means:
    """What one flow has: its process as it is now (or, while it is run again, what it observed then), a witness, a monotonic
    clock that moves only when a wait of it runs out, and nonces that are the same each time."""

    def __init__(self, actor: int, witness: Witness) -> None:
        self.actor = actor
        self.witness = witness
        self.seconds = 0.0
        self.process: Process | None = None
        self.observed: list[Any] = []
        self.ended: list[tuple[FlightName, Any]] = []
        self.sharing = True
        self.repeats: dict[bytes, Any] = {}
        self._replayed: list[Any] = []
        self._count = 0
        self._calls = 0

    def live(self, process: Process) -> None:
        """From now on, its process is this one."""
        self.process, self.observed, self.ended = process, [], []

    def replay(self, observed: Sequence[Any]) -> None:
        """It observes again what it did."""
        self.process, self._replayed = None, list(observed)

    def observe(self, look: Any) -> Any:
        """What `look` sees of the process, now or then."""
        if self.process is None:
            return self._replayed.pop(0)
        seen = look(self.process)
        self.observed.append(seen)
        return seen

    def change(self, **changes: Any) -> None:
        """Change the process, where this is not run again."""
        if self.process is not None:
            self.process = self.process._replace(**changes)

    def end(self, name: FlightName, outcome: Any) -> None:
        """A call of this actor is over."""
        process = self.process
        if process is None:
            return
        self.ended.append((name, outcome))
        self.process = process._replace(
            flights=frozenset(flight for flight in process.flights if flight[1] != name),
            unleased=tuple(None if load is not None and load[0] == name else load for load in process.unleased),
        )

    def next_call(self) -> FlightName:
        self._calls += 1
        return (self.actor, self._calls)

    def monotonic(self) -> float:
        return self.seconds

    def nonce(self) -> str:
        self._count += 1
        return f"{self.actor + 1:08x}{self._count:08x}"

    # -- the ledger of `engine.invalidate`; what is owed is repeated by the writer's own flow ---------------------------------

    def owing(self, names: Sequence[bytes]) -> dict[bytes, Any]:
        return {name: self.witness.owed[name] for name in names if name in self.witness.owed}

    def owe(self, name: bytes, repeat: Any) -> None:
        self.repeats[name] = repeat
        self.witness.owed[name] = owed_to(self.actor)

    def settled(self, before: dict[bytes, Any]) -> None:
        for name, repeat in before.items():
            if self.witness.owed.get(name) is repeat:
                del self.witness.owed[name]

    coarse_name = COARSE


class Owed:
    """What repeats an owed invalidation: in the explorer, the flow of the actor that owes it."""

    def __init__(self, actor: int) -> None:
        self.actor = actor


_owed: dict[int, Owed] = {}


def owed_to(actor: int) -> Any:
    return _owed.setdefault(actor, Owed(actor))


class WorldFlight:
    """A call as others of its process see it."""

    abandon = None
    ended = False
    finished = False

    def __init__(self, means: Means, name: FlightName) -> None:
        self.means = means
        self.name = name
        self.number = 0

    @property
    def outcome(self) -> Outcome | None:
        return made_again(self.means.observe(lambda process: dict(process.landed).get(self.name)))


# -- the function -------------------------------------------------------------------------------------------------------------


class WorldFunction:
    """`engine.function.Function` for the calls that one flow makes of one function."""

    call_kind: type[CachedCall] = CachedCall
    wait_seconds = PATIENCE_SECONDS
    lease_ms = 1000
    clock_name = CLOCK
    coarse_name = COARSE

    def __init__(self, scenario: Scenario, rules: Rules, means: Means, which: int, store: Any) -> None:
        self.scenario = scenario
        self.flows: Any = rules.flows
        self.rules = rules
        self.means = means
        self.which = which
        self.store = store
        self.witness = means.witness
        self.late = scenario.tag == "late" and which != PARENT
        self.soft_name = SOFT if scenario.stale and which != PARENT else None
        self.version_mark = VERSION_MARK
        self.policy: Any = SimpleNamespace(
            on_store_error="load",
            beta=0.0,
            stale_while_revalidate=1.0 if scenario.stale else 0.0,
            stale_if_error=0.0,
            soft_timeout=None,
            keeps=lambda error: False,
        )

    # -- calls ------------------------------------------------------------------------------------------------------------

    def call(self, which: int | None = None, collector: Any = None) -> Any:
        """A new call, which knows what its process has learned of its entry."""
        which = self.which if which is None else which
        key = key_of(which, self.scenario.required(which))
        learned = self.means.observe(lambda process: process.learned[which])
        if learned:
            key = key.asking(learned)
        flight = WorldFlight(self.means, self.means.next_call())
        kind: Any = self.rules.call
        return kind(self, key, (), {}, flight=flight, collector=collector)

    def which_of(self, key: Key) -> int:
        return next(which for which in (CHILD, PARENT, OTHER, OLDER) if key_of(which, ()).text == key.text)

    def call_name(self, key: Key) -> bytes:
        return CALL

    def is_at(self, home: object) -> bool:
        return True

    def older_keys(self, key: Key) -> Sequence[tuple[int, Key]]:
        if not self.scenario.upgrades or key.text != key_of(CHILD, ()).text:
            return ()
        return [(1, key_of(OLDER, self.scenario.required(CHILD)))]

    def learn(self, key: Key, names: Sequence[bytes]) -> Key:
        lesson = tuple(name for name in names if not name.startswith(VERSION))
        process = self.means.process
        if process is not None:
            which = self.which_of(key)
            self.means.change(learned=(*process.learned[:which], lesson, *process.learned[which + 1 :]))
        return key.asking(lesson)

    def read_header(self, key: Key, raw: bytes | None) -> Any:
        return None if raw is None else header_in(raw, key.entry)

    def opened(self, key: Key, reading: Reading, source: Source) -> Outcome | None:
        header = reading.header
        assert reading.raw is not None and header is not None, "nothing there to open"
        marks = ((key.names[0], header.generation), *header.marks)
        return Outcome(value_in(reading.raw), source=source, marks=marks)

    def own_copy(self, outcome: Outcome) -> Any:
        return outcome.value

    def own_error(self, error: BaseException) -> BaseException:
        return type(error)(*error.args)

    def seal(self, call: CachedCall, outcome: Outcome, marks: Marks) -> Sealed | None:
        if outcome.error is not None:
            return None
        raw = raw_of(outcome.value, marks)
        return Sealed(raw, 0, header_in(raw, call.key.entry), outcome.value)

    def late_names(self, call: CachedCall, outcome: Outcome) -> list[bytes] | None:
        return [TAG] if self.late else []

    def last_answer(self, call: CachedCall) -> Outcome | None:
        return None

    def stored(self, call: CachedCall, kept: bool, sealed: Sealed) -> None: ...
    def store_failed(self, key: Key | None, error: BaseException) -> None: ...
    def hold(self, call: CachedCall, token: str) -> None: ...
    def quiet(self) -> bool:
        return False

    def post(self, token: str) -> None: ...
    def withdraw(self, token: str) -> None: ...
    def let_go(self, token: str) -> None: ...
    def abandon(self, token: str) -> None: ...

    def orphan(self, token: str) -> bool:
        return False

    # -- flights ------------------------------------------------------------------------------------------------------------

    def share(self, call: CachedCall, token: str) -> WorldFlight:
        own: WorldFlight = call.flight
        name = self.means.observe(lambda process: dict(process.flights).get(token))
        if name is not None and name != own.name:
            return WorldFlight(self.means, name)
        if self.means.process is not None:
            self.means.change(flights=self.means.process.flights | {(token, own.name)})
        return own

    def arrive(self) -> int:
        if not self.means.sharing:
            return 0  # nobody could tell the difference
        number: int = self.means.observe(lambda process: process.counted + 1)
        self.means.change(counted=number)
        return number

    def load_unleased(self, call: CachedCall) -> WorldFlight:
        own: WorldFlight = call.flight
        which = self.which_of(call.key)
        running = self.means.observe(lambda process: process.unleased[which])
        if running is not None and running[0] != own.name:
            other = WorldFlight(self.means, running[0])
            other.number = running[1]
            return other
        call.unleased = True
        process = self.means.process
        if process is not None:
            count = process.counted + 1 if self.means.sharing else 0
            unleased = (*process.unleased[:which], (own.name, count), *process.unleased[which + 1 :])
            self.means.change(counted=count, unleased=unleased)
        return own

    def begin_wait(self, call: CachedCall, flight: WorldFlight) -> bool:
        return True

    def end_wait(self, call: CachedCall, flight: WorldFlight) -> None: ...

    def finish(self, call: CachedCall, outcome: Outcome | None) -> None:
        if call.flight.finished:
            return
        call.flight.finished = True
        shared = call.shared if call.shared is not None and outcome is not None else outcome
        self.means.end(call.flight.name, value_of(shared))

    # -- loading --------------------------------------------------------------------------------------------------------------

    def load(self, call: CachedCall) -> Generator[Any, Any, Outcome]:
        if self.which == PARENT:
            return (yield from self.load_by_use())
        value, error = yield from Loading(unleased=call.unleased)
        return Outcome(value, Boom(error) if error else None, marks=())

    def load_by_use(self) -> Generator[Any, Any, Outcome]:
        """The load of `p` is a call of `f`, whose answer it hands on."""
        used = self.rules.function(self.scenario, self.rules, self.means, CHILD, self.store)
        collector = TokenCollector("world")
        call = used.call(collector=collector)
        child: Outcome | None = None
        try:
            child = yield from self.flows.get(call)
            call.hand_on(child)
        finally:
            used.finish(call, child)
        assert child is not None, "it was answered"
        return Outcome(child.value, child.error, marks=collector.result())

    def upgrade(self, call: CachedCall, version: int, reading: Reading) -> Generator[Any, Any, Outcome | None]:
        header = reading.header
        assert reading.raw is not None and header is not None, "there is something to upgrade"
        outcome = Outcome(value_in(reading.raw), source=Source.UPGRADED)
        outcome.marks = ((call.key.names[0], header.generation), *header.marks)
        outcome.sealed = self.seal(call, outcome, outcome.marks)
        return outcome
        yield  # between the read before and the store after it, anything can happen as it is

    def refresh_behind(self, call: CachedCall, seconds: float, since: float) -> Generator[Any, Any, bool]:
        return (yield from Behind(since))

    # -- clocks -----------------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return self.means.monotonic()

    def chance(self) -> float:
        return 1.0

    def new_token(self) -> str:
        return self.means.nonce()


# -- from one form to another -------------------------------------------------------------------------------------------------


def value_of(outcome: Outcome | None) -> Any:
    """An outcome as a value that compares; None for one that nobody shares."""
    if outcome is None or isinstance(outcome.error, StoreError):
        return None
    return (outcome.value, BROKEN if outcome.error else None, outcome.source.value, outcome.marks)


def made_again(value: Any) -> Outcome | None:
    """The outcome of such a value."""
    if value is None:
        return None
    answer, error, source, marks = value
    return Outcome(answer, Boom(error) if error else None, Source(source), marks=marks)
