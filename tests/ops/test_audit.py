"""The auditor compares a share of the hits with the source, and only says "differ" when nothing can explain it."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import sys
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from memover import Event, NotCached, StoreUnavailable
from memover.codec.envelope import Header, payload_of, read_header, seal
from memover.codec.mv1.codec import ValueCodec
from memover.runtime.audit.auditor import Auditor, ServedEntry
from memover.runtime.audit.differences import difference, outline_of
from memover.runtime.audit.slots import Slot, Slots
from memover.runtime.counters import Counters
from tests.servers import await_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memover.engine.steps import Flow

KEY = "shop:1:profiles:0"


@dataclasses.dataclass
class Profile:
    id: int
    name: str


def entry(value: Any, *, generation: bytes = b"1-0", created_at: float = 1.0) -> bytes:
    return seal(
        ValueCodec(types=[Profile]).encode(value),
        key=KEY.encode(),
        generation=generation,
        codec="mv1",
        created_at=created_at,
        load_time=0.0,
        fresh_until=float("inf"),
        usable_until=float("inf"),
    )


class Function:
    """A function whose source and whose entry the test moves."""

    namespace = "profiles"
    awaited = False

    def __init__(self, source: Any) -> None:
        self.source = source
        self.counters = Counters()
        self.events: list[Event] = []
        self.now: bytes | Exception | None = None
        self.loads = 0
        self._codec = ValueCodec(types=[Profile])

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        return f"shop:1:profiles:{args[0][0] if isinstance(args[0], list) else args[0]}"

    def payload(self, raw: bytes, header: Header) -> bytes | memoryview:
        return payload_of(raw, header)

    def encode(self, value: Any) -> bytes:
        return self._codec.encode(value)

    def decode(self, payload: bytes | memoryview) -> Any:
        return self._codec.decode(payload)

    def load(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Flow[Any]:
        self.loads += 1
        if isinstance(self.source, Exception):
            raise self.source
        return self.source
        yield

    def current(self, hit: ServedEntry) -> Flow[Header | None]:
        if isinstance(self.now, Exception):
            raise self.now
        return None if self.now is None else read_header(self.now, KEY.encode())
        yield

    def emit(self, event: Event) -> None:
        self.events.append(event)


class Async(Function):
    awaited = True


class Desk:
    """A background that runs at once, and a keeper whose time the test lets pass."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], float | None]] = []
        self.full = False

    def submit(self, run: Callable[[], None]) -> bool:
        if not self.full:
            run()
        return not self.full

    def later(self, seconds: float, run: Callable[[], float | None]) -> None:
        self.waiting.append(run)

    def pass_time(self) -> None:
        waiting, self.waiting = self.waiting, []
        for run in waiting:
            run()


def hit(raw: bytes, *args: Any) -> ServedEntry:
    return ServedEntry(KEY, raw, read_header(raw, KEY.encode()), args or (0,), {})


def audited(function: Function, raw: bytes, *, way: str) -> Function:
    """One audit from beginning to end."""
    desk, slots = Desk(), Slots()
    auditor = Auditor(function, 1.0, slots=slots, submit=desk.submit, later=desk.later, grace_seconds=0.0)
    if way == "sync":
        assert auditor.audit_in_thread(hit(raw))
        desk.pass_time()
    else:

        async def run() -> None:
            assert auditor.audit_in_task(hit(raw))
            await await_until(lambda: not len(slots), "the end of the audit")

        asyncio.run(run())
    first, second = Slot(), Slot()
    assert slots.take(first) and slots.take(second), "every place was given back"
    return function


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def make(way: str) -> Any:
    return Function if way == "sync" else Async


def test_a_hit_that_agrees(way: str, make: Any) -> None:
    """Counted, and an event that says so."""
    function = audited(make(Profile(1, "x")), entry(Profile(1, "x")), way=way)
    assert (function.counters.audits, function.counters.disagreements) == (1, 0)
    (event,) = function.events
    assert (event.name, event.namespace, event.key) == ("audit", "profiles", KEY)
    assert event.detail.startswith("agree: served Profile(id: int, name: str of 1), ")


def test_a_hit_that_differs(way: str, make: Any) -> None:
    """Though the entry is still what a call would be answered from: shapes, ages and the place, and no values."""
    raw = entry([Profile(1, "secret-old")])
    function = make([Profile(1, "secret-new"), Profile(2, "y")])
    function.now = raw
    audited(function, raw, way=way)
    assert (function.counters.audits, function.counters.disagreements) == (1, 1)
    (event,) = function.events
    assert event.detail.startswith("differ: served list of 1 (Profile(id: int, name: str of 10)), ")
    assert "source list of 2" in event.detail
    assert "first difference at $[0].name" in event.detail
    assert "secret" not in event.detail


@pytest.mark.parametrize(
    "now",
    [None, entry("old", generation=b"2-0"), entry("new", created_at=2.0)],
    ids=["removed or expired", "invalidated", "replaced"],
)
def test_an_invalidation_meanwhile_is_no_difference(way: str, make: Any, now: bytes | None) -> None:
    """The entry is gone, moved, replaced or over when it is looked at again: no verdict, not counted."""
    function = make("new")
    function.now = now
    audited(function, entry("old"), way=way)
    assert (function.counters.audits, function.counters.disagreements, function.events) == (0, 0, [])


def test_equal_values_agree_whatever_their_bytes(way: str, make: Any) -> None:
    """A dict in another order is the same result; another type is not."""
    assert audited(make({"b": 1, "a": 2}), entry({"a": 2, "b": 1}), way=way).counters.disagreements == 0
    function = make(True)
    function.now = entry(1)
    assert audited(function, entry(1), way=way).counters.disagreements == 1


@pytest.mark.parametrize("source", [KeyError("x"), NotCached(1), object()], ids=["raises", "not cached", "unencodable"])
def test_no_result_is_no_verdict(way: str, make: Any, source: Any) -> None:
    """A function that raises, declines, or returns what cannot be stored, says nothing of the entry."""
    function = audited(make(source), entry(1), way=way)
    assert (function.counters.audits, function.counters.disagreements) == (0, 0)
    assert [event.detail for event in function.events] in ([], ["no verdict"])


def test_a_store_that_is_away_is_no_verdict(way: str, make: Any) -> None:
    """Whether the entry was invalidated cannot be known."""
    function = make("new")
    function.now = StoreUnavailable("away", store="x")
    audited(function, entry("old"), way=way)
    assert (function.counters.audits, function.counters.disagreements) == (0, 0)
    assert isinstance(function.events[0].error, StoreUnavailable)


def test_arguments_that_the_caller_changed_are_not_audited() -> None:
    """The function would answer another question."""
    function, desk, arguments = Function(1), Desk(), [0]
    raw = entry(1)
    auditor = Auditor(function, 1.0, slots=Slots(), submit=desk.submit, later=desk.later)
    arguments[0] = 9
    auditor.audit_in_thread(hit(raw, arguments))
    assert function.loads == 0


def test_it_is_bounded() -> None:
    """Without room in the background or in the slots, a hit is not audited, and no place is lost."""
    function, desk, slots, raw = Function("new"), Desk(), Slots(1), entry("old")
    function.now = raw
    auditor = Auditor(function, 1.0, slots=slots, submit=desk.submit, later=desk.later)
    desk.full = True
    assert not auditor.audit_in_thread(hit(raw))
    desk.full = False
    assert auditor.audit_in_thread(hit(raw))
    assert not auditor.audit_in_thread(hit(raw)), "the first still waits to be confirmed"
    desk.pass_time()
    assert auditor.audit_in_thread(hit(raw))
    assert function.loads == 2


def test_an_event_loop_that_is_closed_under_an_audit_leaves_its_place() -> None:
    """A task that nobody will run any more takes no place, and is not kept."""
    function, slots, raw = Function("new"), Slots(1), entry("old")
    function.now = raw
    auditor = Auditor(function, 1.0, slots=slots, submit=Desk().submit, later=Desk().later)
    tasks = []

    async def begin() -> None:
        assert auditor.audit_in_task(hit(raw))
        tasks.extend(weakref.ref(each) for each in asyncio.all_tasks() if each is not asyncio.current_task())

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    del loop
    assert slots.take(Slot())
    gc.collect()
    assert [each() for each in tasks] == [None]


@pytest.mark.parametrize("at", range(1, 40))
def test_an_exception_from_outside_leaves_no_place_taken(at: int) -> None:
    """Raised at any line while an audit begins: what is left taken is what was handed to the background."""
    function, slots, raw = Function("same"), Slots(1), entry("same")
    given: list[Any] = []

    def submit(run: Any) -> bool:
        given.append(run)
        return True

    auditor = Auditor(function, 1.0, slots=slots, submit=submit, later=Desk().later)
    lines = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal lines
        if (
            event == "line"
            and frame.f_code.co_filename.endswith("auditor.py")
            and "tests" not in frame.f_code.co_filename
        ):
            lines += 1
            if lines == at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        begun = auditor.audit_in_thread(hit(raw))
    except KeyboardInterrupt:
        begun = False
    finally:
        sys.settrace(None)
    assert len(slots) <= len(given)
    assert given or not begun
    for run in given:
        run()
    assert len(slots) == 0


def test_the_share_is_by_chance() -> None:
    """Of so many hits about that share, none at nought."""
    draws = iter([n / 1000 for n in range(1000)])
    auditor = Auditor(
        Function(1), 0.1, slots=Slots(), submit=Desk().submit, later=Desk().later, chance=lambda: next(draws)
    )
    assert sum(auditor.chosen() for _ in range(1000)) == 100


def test_shapes_hold_no_keys_and_no_values() -> None:
    """Types, numbers of items and the program's own names of fields."""
    value = {"alice@example.org": [Profile(7, "Alice")], "bob": ["x", 1]}
    told = outline_of(value)
    assert told == "dict of 2 (str → list)"
    assert outline_of([Profile(7, "Alice")] * 3) == "list of 3 (Profile(id: int, name: str of 5))"
    assert difference({"alice": [1, 2]}, {"alice": [1, 3]}) == "$[…][1]"
