"""Whole processes in the explorer's world: the real code, from the cached call to the commands of the store, with the
heartbeat of the near tier, the leases and the background tasks.

Every caller, writer, heartbeat and background task is a greenlet that runs until it has to wait: for the server, for its
load, for a push. What happens next is the choice of a schedule: the server performs a command, an answer or a push arrives,
time passes by one second, a connection is cut, a caller is interrupted. A schedule is replayed from the beginning, since
real objects cannot be copied; two schedules are at the same moment when everything that anybody can still see is equal
(`Run.digest`).

Nothing but the edges is replaced: the clock, the threads, the sockets, and the server, which is `explorer.server`.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from greenlet import GreenletExit, getcurrent, greenlet

import memover.cache
import memover.clocks
import memover.runtime.direct
import memover.runtime.heart
import memover.runtime.hit
import memover.runtime.loading
import memover.runtime.near
import memover.runtime.nonce
import memover.runtime.run
import memover.runtime.tiers
import memover.stores.near
from memover import Cache
from memover.engine.steps import Await, Sleep
from memover.errors import StoreTimeout
from memover.keys.names import coarse_key, entry_key, generation_key, lease_key, stripe_key, tag_clock_key, tag_key
from memover.runtime.flights import Flights, UnleasedLoads
from memover.runtime.near import near
from memover.runtime.run import run as run_flow
from memover.stores.near_items import NearItem
from memover.stores.redis import scripts
from memover.stores.redis.commands import Command, RedisCommands
from memover.stores.redis.direct import Direct
from memover.stores.redis.feed import RedisFeed
from memover.stores.redis.resp import PureReader
from tests.explorer.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from memover.engine.store import Seen
    from memover.model import Key

__all__ = ["BOUND", "Choice", "Interrupted", "Run", "Script", "Violated", "Whole", "world"]

PREFIX, NAMESPACE, TAG = "w", "f", "t"
BOUND = 1.0
"""`near=`, in seconds; the clock of this world shows whole ones."""
WALL = 1_000_000.0
AFTERWARDS_SECONDS = 20


class Interrupted(BaseException):
    """An exception from outside, at any moment."""


class Violated(Exception):
    """A promise that does not hold."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(promise, what)
        self.promise = promise
        self.what = what


class Choice(NamedTuple):
    """Something that may happen next: in words and commands, and what it does."""

    what: tuple[Any, ...]
    happen: Callable[[], None]

    def __str__(self) -> str:
        return " ".join(part if isinstance(part, str) else said(part) for part in self.what)


Script = "Callable[[Run, Process], None]"


@dataclass(frozen=True)
class Whole:
    """A scenario of whole processes.

    `actors` are pairs of a process (0, 1, ...) and what somebody does there. Process 0 has the entry of the first truth near
    when it begins, if `warm`, or has had it, if `evicted`. `faults` happen once each, at any moment: "cut:<process>" and "silence:<process>" (its
    heartbeat's connection, which then is half open), "late:<place>" (a command, or its answer, of the actor at this place of the list is
    lost), "interrupt:<place>", "fork:<process>", "flush", "eviction:<name>". `seconds` may pass. `pushes` says whether the server has any; `spread` is a
    cluster, whose nodes perform the commands of one step in any order. Where loads are `slow`, others act during them. Background
    tasks, which have nothing to do before something fails, run then.
    """

    name: str
    promise: str
    actors: tuple[tuple[int, Any], ...]
    faults: tuple[str, ...] = ()
    seconds: int = 2
    pushes: bool = False
    spread: bool = False
    tagged: bool = False
    warm: bool = True
    evicted: bool = False
    near: bool = True
    slow: bool = False
    returns: bool = True
    """Whether the tier must be served from again, when everything has come to rest."""

    def process(self, at: int) -> Process:
        return Process(self, at)

    def run(self, processes: Sequence[Process]) -> Run:
        return Run(self, processes)


# -- what an actor waits for --------------------------------------------------------------------------------------------------


class Ready(NamedTuple):
    """Nothing: it may go on at any moment."""

    what: str


class Until(NamedTuple):
    """A condition of its own process or of what it can see."""

    what: str
    holds: Callable[[], bool]


class Idle(NamedTuple):
    """The heartbeat: its bell, something to read, or a moment."""

    process: Process
    until: float


class Receiving(NamedTuple):
    """The heartbeat: something to read."""

    line: Line


class Request:
    """Commands on the store's own connections, and the answers so far."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self.commands = commands
        self.answers: dict[int, Any] = {}

    def unserved(self) -> list[int]:
        return [at for at in range(len(self.commands)) if at not in self.answers]


class Actor:
    """A greenlet with a name. `history` is all that it was answered, and the state of its process then."""

    def __init__(self, run: Run, index: int, name: str, process: Process, work: Callable[[], Any]) -> None:
        self.index = index
        self.place = -1
        """Its place in the scenario's list."""
        self.saw: Any = None
        """What the server held when it performed the actor's last command."""
        self.name = name
        self.process = process
        self.waits: Any = Ready("begins")
        self.history: list[Hashable] = []
        self.moves: list[object] = []
        self.ended = False
        self.begun = False
        self.nonces = 0
        self.greenlet = greenlet(work, run.hub)

    def digest(self, run: Run) -> Hashable:
        if self.ended:
            return None
        waits = self.waits
        if isinstance(waits, Request):
            at: Hashable = tuple(sorted((at, repr(answer)) for at, answer in waits.answers.items()))
        elif isinstance(waits, Idle):
            return ("idle", max(waits.until - run.time, 0.0))
        else:
            at = type(waits).__name__
        # A ticket that it may hold is good while the tier has not replaced its moves.
        if isinstance(waits, Until):
            at = (at, waits.holds())
        return at, tuple(self.history), tuple({moves is self.process.tier.moves for moves in self.moves})


# -- processes ----------------------------------------------------------------------------------------------------------------


class Line:
    """The connection of a heartbeat: a socket as far as `RedisFeed` uses one, and the server's end of it."""

    def __init__(self, run: Run, process: Process) -> None:
        self.run = run
        self.process = process
        self.reader = PureReader()
        self.sent: list[tuple[bytes, ...]] = []
        self.coming: list[bytes] = []
        self.buffer = b""
        self.open = True
        self.silent = False
        self.prefixes: tuple[bytes, ...] = ()

    def settimeout(self, seconds: float) -> None: ...

    def sendall(self, data: bytes) -> None:
        if not self.open:
            raise ConnectionError("the connection was cut")
        self.reader.feed(data)
        while isinstance(command := self.reader.gets(), list):
            if command[0] == b"HELLO":
                self.buffer += b"%1\r\n$5\r\nproto\r\n:3\r\n"
            elif command[0] == b"CLIENT":
                if self.run.scenario.pushes:
                    self.prefixes = tuple(command[5::2])
                self.buffer += b"+OK\r\n" if self.run.scenario.pushes else b"-NOPERM not for you\r\n"
            elif not self.silent:
                self.sent.append(tuple(command))

    def recv(self, size: int) -> bytes:
        if not self.buffer and self.open:
            self.run.wait(Receiving(self))
        data, self.buffer = self.buffer, b""
        return data

    def readable(self) -> bool:
        return bool(self.buffer) or not self.open

    def close(self) -> None:
        self.open = False
        self.sent, self.coming, self.prefixes = [], [], ()
        if self in self.run.lines:
            self.run.lines.remove(self)

    def digest(self) -> Hashable:
        return tuple(self.sent), tuple(self.coming), self.buffer, self.open, self.silent, self.prefixes


class Bell:
    """Both ends of the pair that wakes a heartbeat."""

    def __init__(self) -> None:
        self.rung = False

    def setblocking(self, flag: bool) -> None: ...
    def close(self) -> None: ...

    def send(self, data: bytes) -> None:
        self.rung = True

    def recv(self, size: int) -> bytes:
        if not self.rung:
            raise BlockingIOError
        self.rung = False
        return b"!"


class Background:
    """`runtime.background.Background`, whose tasks run when the schedule says so."""

    def __init__(self) -> None:
        self.tasks: list[Callable[[], float | None]] = []

    running = True

    def later(self, seconds: float, task: Callable[[], float | None]) -> Any:
        self.tasks.append(task)
        return SimpleNamespace(cancel=lambda: None)

    def digest(self) -> Hashable:
        return tuple(sorted(getattr(task, "func", task).__qualname__ for task in self.tasks))


class WholeStore(RedisCommands):
    """The real commands; what is sent is answered by the world."""

    local = False
    address = "world"

    def __init__(self, process: Process, *, spread: bool) -> None:
        self.spread = spread
        self._shards_seen = {}
        self.link: Any = SimpleNamespace(
            exchange=lambda step: process.run.ask(step.commands),
            topology=None,
            complete=run_flow,
            servers=SimpleNamespace(
                sentinel=False,
                open=lambda node, seconds: process.new_line(),
                forget_map=lambda: None,
                forget_primary=lambda: None,
            ),
        )

    def fetch(self, key: Key) -> Seen:
        return run_flow(self.read(key))

    async def afetch(self, key: Key) -> Seen:
        raise AssertionError("nobody awaits here")

    def rereads(self) -> None:
        """Every read is done."""

    def direct(self) -> Direct | None:
        store: Any = self
        return None if self.spread else Direct(store)

    def identity(self) -> str:
        return "world"

    def feed(self, coarse: bytes, prefixes: Sequence[bytes], seconds: float) -> RedisFeed:
        store: Any = self
        return RedisFeed(store, coarse, prefixes, seconds)

    def after_fork(self) -> None: ...
    def close(self) -> None: ...


class Warm(NamedTuple):
    """What there is when an entry has come near."""

    held: Any
    header: Any
    value: int
    places: Any
    cells: list[tuple[bytes, bytes]]
    seen: dict[bytes, Any]
    known: bytes | None


class Process:
    """One process: a cache with one function, its tier and its background."""

    run: Run

    def __init__(self, scenario: Whole, at: int) -> None:
        self.letter = chr(65 + at)
        self.at = at
        self.tiers: WeakSet[Any] = WeakSet()
        self.background = Background()
        self.heart_actor: Actor | None = None
        self.warm: Warm | None = None
        store = self.store(scenario)
        memover.stores.near._tiers = self.tiers
        memover.cache.open_store = lambda *args, **options: store
        self.cache = Cache("redis://world", prefix=PREFIX, ttl=None)
        state = self.cache._state
        state.background = state.leases._background = self.background  # type: ignore[assignment]
        options: Any = {"tags": (TAG,)} if scenario.tagged else {}
        self.f = self.cache.versioned(namespace=NAMESPACE, ttl=None, near=BOUND if scenario.near else None, **options)(
            loads
        )
        self.f.key(1)
        (self.function,) = [each for each in state.functions if each.policy.namespace == NAMESPACE]
        self.state = state
        self.key = self.function.lookup()(1)

    def store(self, scenario: Whole) -> Any:
        return WholeStore(self, spread=scenario.spread)

    def remember(self, held: Any) -> None:
        """Remember what there is when the entry is near."""
        (life,), tier = self.lives(), self.tier
        item = tier.items[self.key.text]
        cells = [(name, cell.token) for name, cell in tier.cells.items()]
        self.warm = Warm(held, item.header, item.value, item.places, cells, dict(self.state.witness._seen), life.known)

    def come_near(self) -> None:
        """Be as when `remember` was called, with a heartbeat that has nothing to do."""
        warm, heart, tier = self.warm, self.state.heart, self.tier
        assert warm is not None and heart is not None, "it was near before"
        self.state.witness._seen.update(warm.seen)
        tier.ready = True
        tier.know([name for name, _ in warm.cells], [token for _, token in warm.cells])
        ticket = tier.ticket(self.function.call_name(self.key))
        item = NearItem(self.key.text, warm.header, warm.value, None, warm.places, 0)
        assert ticket is not None and tier.fill(ticket, item, self.function.generation_name), "it comes in"
        heart.wake()
        (life,) = self.lives()
        life.feed, life.known, life.due, life.keep_at = heart._open(BOUND), warm.known, 1e9, 1e9

    def begin(self, run: Run) -> None:
        """As new, for one more schedule: to decorate a function takes longer than most schedules."""
        self.run, state, function = run, self.state, self.function
        self.background.tasks.clear()
        self.heart_actor = None
        state.witness._seen.clear()
        state.witness.owed.clear()
        state.leases.after_fork()
        state.flights, state.unleased, state._repeating, state._rounds = Flights(), UnleasedLoads(), False, 0
        function.learned.clear()
        function.forgotten = function.counters.own_near_hits = 0
        if state.heart is not None:
            state.heart._runs, state.heart._fell = {}, False
            self.tier.reset()
            self.tier.asked = self.tier.served = False

    @property
    def tier(self) -> Any:
        return self.function.near if self.function.near is not None else _NO_TIER

    def new_line(self) -> Line:
        line = Line(self.run, self)
        self.run.lines.append(line)
        return line

    def readable(self) -> bool:
        return any(line.process is self and line.readable() for line in self.run.lines)

    def rung(self) -> bool:
        return any(bell.rung for life in self.lives() for bell in life.bell[:1])

    def lives(self) -> list[Any]:
        heart = self.state.heart
        return [] if heart is None else list(heart._runs.values())

    def near_digest(self) -> Hashable:
        """The tier and its heartbeat."""
        heart, tier = self.state.heart, self.tier
        return (
            tuple(sorted((text, item.value, item.header.generation, item.header.marks, item.stands(), item.round is tier.round)
                         for text, item in tier.items.items())),
            tuple(sorted((name, cell.token, cell.uses > 0) for name, cell in tier.cells.items())),
            tuple(sorted(tier.wanted)), tier.fence, tier.ready, tier.asked, tier.served,
            heart is not None and heart._fell,
            tuple((life.feed is None, life.known, life.due, life.retry_at, tuple(sorted(life.unused)),
                   life.active, life.stopped, life.starting is None, life.keep_at,
                   any(bell.rung for bell in life.bell[:1])) for life in self.lives()),
        )  # fmt: skip

    def digest(self) -> Hashable:
        """What else its calls share."""
        state = self.state
        witness, leases = state.witness, state.leases
        return (
            tuple(sorted(witness._seen.items())), tuple(sorted(witness.owed)),
            tuple(sorted(leases._held)), tuple(lease.token for lease in leases._to_release), leases._looking, leases._retrying,
            tuple(sorted(state.flights)), tuple(sorted(state.unleased._running)),
            tuple(self.function.learned.items()),
            self.background.digest(),
        )  # fmt: skip


_NO_TIER = SimpleNamespace(
    items={}, cells={}, wanted={}, fence=0.0, ready=False, asked=False, served=False, moves=None, evicted=0
)


# -- one schedule ---------------------------------------------------------------------------------------------------------------

_run: list[Run] = []


def loads(x: int) -> Any:
    """The function of this world: it reads the truth when it begins."""
    run = _run[0]
    truth = run.truth
    if run.scenario.slow and run.current is not None:
        run.wait(Ready("ends its load"))
    return run.value_of(truth)


@dataclass
class Settled:
    """An invalidation that has returned, or failed loudly (which binds its own process)."""

    truth: int
    process: int
    at: float
    everywhere: bool = True


class Run:
    """A schedule as far as it has come."""

    held: Any
    """What the store holds."""

    def __init__(self, scenario: Whole, processes: Sequence[Process]) -> None:
        _run[:] = [self]
        self.scenario = scenario
        self.processes = processes
        self.hub = getcurrent()
        self.current: Actor | None = None
        self.time = 0.0
        self.truth = 1
        self.settled: list[Settled] = []
        self.lines: list[Line] = []
        self.network: list[tuple[str, Command]] = []
        self.actors: list[Actor] = []
        self.gone: list[Actor] = []
        self.begun = 0
        self.faults = list(scenario.faults)
        self.left = scenario.seconds
        self.looked = False
        self.excused = False
        text = entry_key(PREFIX, 1, NAMESPACE, "")
        for process in processes:
            process.begin(self)
        entry = self.processes[0].key.text
        digest = entry[len(text) :]
        self.names = [
            generation_key(PREFIX, NAMESPACE).encode(),
            stripe_key(PREFIX, NAMESPACE, digest).encode(),
            coarse_key(PREFIX).encode(),
            tag_key(PREFIX, TAG).encode(),
            tag_clock_key(PREFIX).encode(),
        ]
        self.entry, self.lease = entry.encode(), lease_key(entry).encode()
        self.server = self.new_server()
        self.held = (None,) * len(self.server.keys)
        if scenario.warm:
            self._warm()
        for place, (at, script) in enumerate(scenario.actors):
            process = self.processes[at]
            name = f"{script.__name__.replace('_', ' ')} ({process.letter})"
            self.add(process, name, _bound(script, self, process)).place = place

    def new_server(self) -> Any:
        return Server((*self.names, self.entry, self.lease))

    def value_of(self, truth: int) -> Any:
        """What a load makes of the truth."""
        return truth

    def truth_in(self, value: Any) -> int:
        return int(value)

    def _warm(self) -> None:
        """Process 0 has its entry near. It comes there once; later schedules begin with what was there then."""
        process = self.processes[0]
        if process.warm is None:
            self._until(lambda: self._calls_near(process), process, "comes near")
            process.remember(self.held)
            for actor in self.actors:
                with suppress(GreenletExit):
                    actor.greenlet.throw(GreenletExit)
            self.actors.clear()
            self.lines.clear()
            process.begin(self)
        assert process.warm is not None, "it has just been remembered"
        self.held = process.warm.held
        self.resume(self.add(process, "first", process.come_near))
        self.actors.pop(0)
        heart = process.heart_actor
        assert heart is not None, "it was started with the tier"
        self.resume(heart)  # it finds that nothing is due
        for life in process.lives():
            life.due = 0.0
        heart.waits = Idle(process, 0.0)
        self.time = process.tier.fence = 0.0
        if self.scenario.evicted:
            process.tier.forget(process.tier.items[process.key.text])

    def add(self, process: Process, name: str, work: Callable[[], Any]) -> Actor:
        self.begun += 1
        actor = Actor(self, self.begun, name, process, work)
        self.actors.append(actor)
        return actor

    # -- what actors do ---------------------------------------------------------------------------------------------------

    def wait(self, what: Any) -> Any:
        """Called by actors: until the schedule goes on with them."""
        if self.hub.dead or not _run or _run[0] is not self:
            raise GreenletExit
        return self.hub.switch(what)

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers of the server to commands."""
        if all(command.script is scripts.KEEP for command in commands):
            return [1] * len(commands)
        answers: list[Any] = self.wait(Request(commands))
        return answers

    def boottime(self) -> float:
        self.looked = True
        return self.time

    def random(self, size: int) -> bytes:
        actor = self.current
        if actor is None:
            return b"\xff" * size
        actor.nonces += 1
        return (actor.index + 1).to_bytes(size // 2, "big") + actor.nonces.to_bytes(size - size // 2, "big")

    def floor(self, process: Process) -> int:
        """The least value that a call which begins now may be answered with: see P3."""
        floor = max(
            (each.truth for each in self.settled
             if each.process == process.at or (each.everywhere and self.time - each.at > (BOUND if self.scenario.near else -1))),
            default=0,
        )  # fmt: skip
        if self.current is not None:
            self.current.history.append(floor)  # its caller knows it from now on
        return floor

    # -- going on -----------------------------------------------------------------------------------------------------------

    def resume(self, actor: Actor, answer: Any = None, error: BaseException | None = None) -> None:
        """Let an actor go on until it waits again."""
        memover.stores.near._tiers = actor.process.tiers
        before, self.current, self.looked = self.current, actor, False
        # A call looks into the tier when it begins. What it changes there later is there for everybody to see.
        near_too = not actor.begun or actor is actor.process.heart_actor
        process = actor.process
        seen = (
            hash(process.digest()),
            hash(process.near_digest()) if near_too else None,
            repr(answer),
            type(error).__name__,
            self.truth if self.scenario.slow else None,
        )
        try:
            if error is not None:
                actor.waits = actor.greenlet.throw(error)
            elif actor.begun:
                actor.waits = actor.greenlet.switch(answer)
            else:
                actor.begun = True
                actor.waits = actor.greenlet.switch()
        except Interrupted:
            pass
        finally:
            self.current = before
        actor.ended = actor.greenlet.dead
        actor.history.append((seen, self.time if self.looked else None))
        actor.moves.append(actor.process.tier.moves)
        if isinstance(actor.waits, Idle):
            actor.history.clear()
            actor.moves.clear()

    def perform(self, command: Command) -> Any:
        """The server does what a command says, and tells those who track keys."""
        held, answer = self.server.perform(self.held, command)
        changed = [name for name, was, now in zip(self.server.keys, self.held, held) if was != now]
        self.held = held
        self.push(changed)
        return answer

    def push(self, changed: Sequence[bytes]) -> None:
        for line in self.lines:
            keys = [name for name in changed if name.startswith(line.prefixes or (b"\0",))]
            if keys and line.open and not line.silent:
                line.coming.append(b">2\r\n$10\r\ninvalidate\r\n" + encoded(keys))

    def choices(self) -> list[Choice]:
        """Everything that may happen next."""
        found: list[Choice] = []
        for actor in self.actors:
            if not actor.ended:
                found += self._of(actor)
        for line in self.lines:
            found += self._of_line(line)
        for at, (name, command) in enumerate(self.network):
            found.append(
                Choice(("network delivers late what was sent by", name, command), lambda at=at: self._arrives(at))
            )
        for process in self.processes if len(self.faults) < len(self.scenario.faults) else ():
            for at, task in enumerate(process.background.tasks):
                found.append(
                    Choice(
                        ("background of", process.letter, "does", getattr(task, "func", task).__name__),
                        lambda process=process, at=at: self._task(process, at),
                    )
                )
        found += self._faults()
        if self.left:
            found.append(Choice(("time passes",), self._second))
        if not found and self.excused and not self.quiet() and self.server.get(self.held, self.lease) is not None:
            found.append(Choice(("the lease runs out, since nothing else can happen",), self.expire))
        return found

    def _of(self, actor: Actor) -> Iterator[Choice]:
        waits, name = actor.waits, actor.name
        if isinstance(waits, Ready) or (isinstance(waits, Until) and waits.holds()):
            yield Choice((name, waits.what), lambda: self.resume(actor))
        elif isinstance(waits, Idle):
            if self._awake(waits):
                yield Choice((name, "takes a turn"), lambda: self.resume(actor))
        elif isinstance(waits, Receiving):
            if waits.line.readable():
                yield Choice((name, "reads"), lambda: self.resume(actor))
            elif waits.line.silent:
                yield Choice((name, "has waited long enough"), lambda: self.resume(actor, None, TimeoutError("silent")))
        elif isinstance(waits, Request):
            unserved = waits.unserved()
            for at in unserved if self.scenario.spread else unserved[:1]:
                yield Choice(("server, for", name, waits.commands[at]), lambda at=at: self._serve(actor, waits, at))
            if not unserved:
                yield Choice((name, "is answered"), lambda: self._answer(actor, waits))
            late = f"late:{actor.place}"
            if late in self.faults:
                yield Choice((name, "gives up on the answer"), lambda: self._give_up(actor, waits, late))
        interrupt = f"interrupt:{actor.place}"
        if interrupt in self.faults and actor.begun:
            yield Choice((name, "is interrupted"), lambda: self._interrupt(actor, interrupt))

    def _awake(self, waits: Idle) -> bool:
        return self.time >= waits.until or waits.process.rung() or waits.process.readable()

    def _of_line(self, line: Line) -> Iterator[Choice]:
        whose = f"heartbeat ({line.process.letter})"
        if line.sent:
            yield Choice(("server, for", whose, line.sent[0]), lambda: self._serve_line(line))
        if line.coming:
            yield Choice(
                (whose, "receives", "a push" if line.coming[0][:1] == b">" else "the answer"),
                lambda: self._deliver(line),
            )

    def _faults(self) -> Iterator[Choice]:
        for fault in dict.fromkeys(self.faults):
            kind, _, which = fault.partition(":")
            if kind in ("cut", "silence"):
                for line in self.lines:
                    if line.process.at == int(which) and line.open and not line.silent:
                        yield Choice(
                            ("connection of the heartbeat:", kind),
                            lambda line=line, kind=kind, fault=fault: self._break(line, kind, fault),
                        )
            elif kind == "fork":
                yield Choice(
                    ("fork: the child goes on",),
                    lambda which=which, fault=fault: self._fork(self.processes[int(which)], fault),
                )
            elif kind == "flush":
                yield Choice(("FLUSHALL",), self._flush)
            elif kind == "eviction":
                yield Choice(
                    ("eviction of", which), lambda which=which, fault=fault: self._evict(which.encode(), fault)
                )

    # -- what happens ---------------------------------------------------------------------------------------------------------

    def _serve(self, actor: Actor, waits: Request, at: int) -> None:
        waits.answers[at] = self.perform(waits.commands[at])
        actor.saw = self.held

    def _answer(self, actor: Actor, waits: Request) -> None:
        self.resume(actor, [waits.answers[at] for at in range(len(waits.commands))])

    def _give_up(self, actor: Actor, waits: Request, fault: str) -> None:
        self.faults.remove(fault)
        self._leave_behind(actor, waits)
        failed = StoreTimeout("the world's store did not answer; nothing needs to be done", store="world")
        self.resume(actor, [failed] * len(waits.commands))

    def _leave_behind(self, actor: Actor, waits: Any) -> None:
        if isinstance(waits, Request):
            self.network += [(actor.name, waits.commands[at]) for at in waits.unserved()]

    def _arrives(self, at: int) -> None:
        _, command = self.network.pop(at)
        if command.script in (scripts.ACQUIRE, scripts.LEASE):
            self.excused = True  # nobody knows of it: it ends by itself
        self.perform(command)

    def _interrupt(self, actor: Actor, fault: str) -> None:
        self.faults.remove(fault)
        self._leave_behind(actor, actor.waits)
        self.resume(actor, None, Interrupted())

    def _serve_line(self, line: Line) -> None:
        args = line.sent.pop(0)
        answer = self.perform(Command(args[-1], args))
        line.coming.append(encoded(answer))

    def _deliver(self, line: Line) -> None:
        line.buffer += line.coming.pop(0)
        heart = line.process.heart_actor
        if heart is not None and not heart.ended and isinstance(heart.waits, (Idle, Receiving)):
            self.resume(heart)  # later is another schedule, in which it comes later

    def _break(self, line: Line, kind: str, fault: str) -> None:
        self.faults.remove(fault)
        line.sent, line.coming, line.prefixes = [], [], ()
        if kind == "cut":
            line.open = False
        else:
            line.silent = True

    def _fork(self, process: Process, fault: str) -> None:
        """What goes on as this process is the child: of its callers, those who have not begun."""
        self.faults.remove(fault)
        self.excused = self.excused or self.leased()  # the parent's, which nobody follows any further
        for actor in [each for each in self.actors if each.process is process and each.begun]:
            self.actors.remove(actor)
            self.gone.append(actor)
        process.background.tasks.clear()
        process.heart_actor = None
        memover.stores.near._tiers = process.tiers
        process.state.after_fork()

    def _flush(self) -> None:
        self.faults.remove("flush")
        self.held = (None,) * len(self.held)
        for line in self.lines:
            if line.prefixes and line.open and not line.silent:
                line.coming.append(b">2\r\n$10\r\ninvalidate\r\n_\r\n")

    def _evict(self, name: bytes, fault: str) -> None:
        self.faults.remove(fault)
        values = list(self.held)
        self.server.put(values, name, None)
        self.held = tuple(values)
        self.push([name])

    def leased(self) -> bool:
        """Whether there is a lease; the mark of a failed load, which ends by itself, is none."""
        value = self.server.get(self.held, self.lease)
        return value is not None and value.startswith(b"L ")

    def expire(self) -> None:
        values = list(self.held)
        self.server.put(values, self.lease, None)
        self.held = tuple(values)

    def _second(self) -> None:
        self.left -= 1
        self.time += 1

    def _task(self, process: Process, at: int) -> None:
        task = process.background.tasks.pop(at)

        def work() -> None:
            if task() is not None:
                process.background.tasks.append(task)

        self.resume(self.add(process, f"background ({process.letter})", work))

    # -- threads, as the heartbeat begins one -----------------------------------------------------------------------------

    def start_thread(self, work: Any, arguments: tuple[Any, ...]) -> None:
        actor = self.current
        assert actor is not None, "somebody calls"
        process = actor.process
        process.heart_actor = self.add(process, f"heartbeat ({process.letter})", lambda: work(*arguments))

    def idle(self, sources: Sequence[Any], seconds: float) -> None:
        actor = self.current
        assert actor is not None, "the heartbeat waits"
        self.wait(Idle(actor.process, self.time + seconds))

    # -- what must hold -------------------------------------------------------------------------------------------------------

    def note(self) -> None:
        """What is owed has been repeated, where nothing is owed any more."""
        for each in self.settled:
            if not each.everywhere and not self.processes[each.process].state.witness.owed:
                each.everywhere, each.at = True, self.time

    def check(self) -> None:
        """Raise `Violated` if a call that began now would be answered near with what is too old."""
        for process in self.processes:
            if process.function.near is None or process.state.witness.owed:
                continue
            served = process.tier.served
            found = near(process.function, process.key)
            process.tier.served = served  # nobody has called
            floor = self.floor(process)
            if found is not None and found.value < floor:
                raise Violated(
                    self.scenario.promise,
                    f"a call that began now in process {process.letter} would be answered {found.value} near, and the "
                    f"invalidation of {floor} has returned long enough ago",
                )

    def quiet(self) -> bool:
        """Whether all callers are done, and nothing is on its way."""
        return not self.network and all(
            actor.ended or isinstance(actor.waits, (Idle, Receiving)) for actor in self.actors
        )

    def afterwards(self) -> None:
        """When nothing goes wrong any more: leases are given back, what is owed is settled, and the tier is served from."""
        self.faults.clear()
        self.left = 0
        for process in self.processes:
            self._until(lambda process=process: self._at_rest(process), process, "settles what it owes")
            state = process.state
            if len(state.leases) or len(state.flights) or len(state.unleased):
                raise Violated("P17", f"process {process.letter} keeps a lease or a load that nobody holds")
        if self.leased():
            if not self.excused:
                raise Violated(
                    "P17", "a lease is left in the store that no call holds and no background task gives back"
                )
            self.expire()
        if self.scenario.near and self.scenario.returns:
            process = self.processes[0]
            self._until(lambda: self._calls_near(process), process, "is served near again")

    def _at_rest(self, process: Process) -> bool:
        return not process.state.witness.owed and not len(process.state.leases)

    def _calls_near(self, process: Process) -> bool:
        """One call, to its end; whether it was answered near, with the newest."""
        before, answers = process.function.counters.near_hits, []
        floor = max((each.truth for each in self.settled if each.everywhere), default=0)
        caller = self.add(process, f"caller ({process.letter})", lambda: answers.append(process.f(1)))
        self.resume(caller)
        self._drain(caller)
        self.actors.remove(caller)
        return process.function.counters.near_hits > before and answers[0] >= floor

    def _until(self, holds: Callable[[], bool], process: Process, what: str) -> None:
        for _ in range(AFTERWARDS_SECONDS):
            self._drain()
            if holds():
                return
            self._drain()
            self.check()
            self.time += 1
            for each in self.processes:
                for at in range(len(each.background.tasks) - 1, -1, -1):
                    self._task(each, at)
        raise Violated("P7", f"process {process.letter} never {what}")

    def _drain(self, until: Actor | None = None) -> None:
        """Do whatever can be done at once, until nothing can, or this actor has ended."""
        for _ in range(500):
            if until is not None and until.ended:
                return
            for actor in list(self.actors):
                choice = next(iter(() if actor.ended else self._of(actor)), None)
                if choice is not None:
                    break
            else:
                choice = next((each for line in list(self.lines) for each in self._of_line(line)), None)
            if choice is None:
                return
            choice.happen()
        raise Violated("P7", "something goes on for ever")

    # -- as a value -------------------------------------------------------------------------------------------------------------

    def digest(self) -> Hashable:
        """Everything that anybody can still see."""
        return hash((
            self.held, self.truth, self.time, self.left, tuple(self.faults), self.excused,
            tuple((each.truth, each.process, each.at, each.everywhere) for each in self.settled),
            tuple((name, said(command)) for name, command in self.network),
            tuple((process.digest(), process.near_digest()) for process in self.processes),
            tuple(line.digest() for line in self.lines),
            tuple(sorted((actor.name, actor.index, repr(actor.digest(self))) for actor in self.actors if not actor.ended)),
        ))  # fmt: skip

    def end(self) -> None:
        """Nobody goes on."""
        _run.clear()
        for actor in (*self.actors, *self.gone):
            if not actor.greenlet.dead and actor.greenlet:
                with suppress(BaseException):
                    actor.greenlet.throw(GreenletExit)


def _bound(script: Any, run: Run, process: Process) -> Callable[[], None]:
    return lambda: script(run, process)


def encoded(answer: Any) -> bytes:
    """A RESP3 answer."""
    if answer is None:
        return b"_\r\n"
    if isinstance(answer, int):
        return b":%d\r\n" % answer
    if isinstance(answer, bytes):
        return b"$%d\r\n%b\r\n" % (len(answer), answer)
    return b"*%d\r\n" % len(answer) + b"".join(map(encoded, answer))


def said(command: Any) -> str:
    """A command as one reads it."""
    script = getattr(command, "script", None)
    args = getattr(command, "args", command)
    name = next((each for each in scripts.__all__ if getattr(scripts, each) is script), "") if script else ""
    count = int(args[0]) if script else len(args) - 1
    keys = [key.decode("ascii", "replace") for key in args[1 : count + 1]]
    return " ".join([name or args[0].decode(), *keys])


@contextmanager
def world() -> Iterator[None]:
    """The clock, threads, sockets and random numbers of the code under test are the world's, inside."""
    heart, near_calls, runner = memover.runtime.heart, memover.runtime.near, memover.runtime.run
    nonce = memover.runtime.nonce
    replaced: list[tuple[Any, str, Any]] = [
        (heart, "boottime", boottime),
        (near_calls, "boottime", boottime),
        (memover.runtime.tiers, "boottime", boottime),
        (heart, "start_new_thread", start_thread),
        (heart, "socket", SimpleNamespace(socketpair=lambda: (Bell(),) * 2)),
        (heart, "readable", idle),
        (memover.runtime.loading, "perf_counter", lambda: 0.0),
        (memover.runtime.direct, "perf_counter", lambda: 0.0),
        (nonce.new_nonce, "__defaults__", (random,)),
        (nonce.new_token, "__defaults__", (lambda bits: int(random(bits // 8).hex(), 16),)),
        (RedisFeed, "_readable", lambda self: self._socket.readable()),
        (memover.cache, "open_store", memover.cache.open_store),
        (memover.stores.near, "_tiers", memover.stores.near._tiers),
        (time, "time", wall),
        (memover.clocks, "real", wall),
        (memover.runtime.tiers, "real", wall),
    ]
    before = [(where, name, getattr(where, name)) for where, name, _ in replaced]
    steps = dict(runner._PERFORM)
    for where, name, what in replaced:
        setattr(where, name, what)
    runner._PERFORM[Await] = awaits
    runner._PERFORM[Sleep] = sleeps
    try:
        yield
    finally:
        runner._PERFORM.update(steps)
        for where, name, what in before:
            setattr(where, name, what)


# Of whatever schedule runs now.


def wall() -> float:
    return WALL


def boottime() -> float:
    return _run[0].boottime()


def start_thread(work: Any, arguments: tuple[Any, ...]) -> None:
    _run[0].start_thread(work, arguments)


def idle(sources: Sequence[Any], seconds: float) -> None:
    _run[0].idle(sources, seconds)


def random(size: int) -> bytes:
    return _run[0].random(size)


def awaits(step: Await) -> None:
    woken: list[bool] = []

    def wake() -> None:
        woken.append(True)

    flight: Any = step.flight
    if not flight.join(wake):
        return
    try:
        _run[0].wait(Until("is woken", lambda: bool(woken) or not flight.present()))
    finally:
        flight.leave(wake)


def sleeps(step: Sleep) -> None:
    run, actor = _run[0], _run[0].current
    assert actor is not None, "somebody waits"
    run.wait(Until("looks again", lambda: run.held != actor.saw))
