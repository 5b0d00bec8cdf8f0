"""The operations that are interrupted, from a fresh state each time, and the proof that afterwards everything is whole.

The source of truth is a dictionary of counters; each value says which counter it was made of, so a wrong value is seen
whatever it is. A lease, a wait and a budget are much longer than a check may take: whoever had to wait for the end of one is seen
to hang, and no figure of a clock is asserted.
"""

from __future__ import annotations

import itertools
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memover import Cache
from tests.interrupts.striking import Place, Unraisable, places, strike
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

__all__ = [
    "OPERATIONS",
    "Bench",
    "CtrlC",
    "Elsewhere",
    "Fault",
    "Hung",
    "Limit",
    "Operation",
    "Trouble",
    "guarded",
    "handler",
    "interrupted_at_every",
    "spread",
]

LONG = 120.0
"""Seconds of a lease, a wait and a store's budget."""
GUARD = 6.0
"""Seconds after which a call counts as hanging. A call takes far less than one; the machine may be busy."""
PATIENT: dict[str, Any] = {
    "lease_ttl": LONG,
    "wait_timeout": LONG,
    "socket_timeout": 20.0,
    "socket_connect_timeout": 20.0,
    "max_connections": 6,
    "ttl": 3600,
}


class Limit(Exception):
    """A job's time limit, as RQ and Celery raise them."""


class CtrlC(KeyboardInterrupt):
    """Ctrl-C, told apart from the tester's own."""


class Fault(AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
    """What a mistake in a signal handler raises, all kinds at once: whatever is caught somewhere for another's mistake."""


def handler(error: Any, frame: Any = None) -> None:
    """Raise what strikes. Installed for a signal, it makes that an exception of a signal handler."""
    raise error


class Hung(BaseException):
    """The watchdog's: a call that should have been over is not."""


class Trouble(Exception):
    """What is not whole after an interruption."""


def soon(condition: Callable[[], bool], trouble: str) -> None:
    """Return when the condition holds; it is trouble if it does not come to."""
    try:
        wait_until(condition, trouble, timeout=GUARD, interval=0.01)
    except TimeoutError as error:
        raise Trouble(trouble) from error


@contextmanager
def guarded(what: str, seconds: float = GUARD) -> Iterator[None]:
    """Raise `Hung` in the main thread when the block is not over in time; the message has the main thread's stack."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise Hung(f"{what} hangs\n{''.join(traceback.format_stack(frame)[-6:])}")

    before = signal.signal(signal.SIGALRM, ring)
    # Again and again: the first may be delivered where it is swallowed.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Elsewhere:
    """Another thread that calls when asked to; one that hangs is left behind and replaced."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, args=(self._asked, self._answers), daemon=True)
        self._thread.start()

    @staticmethod
    def _work(asked: Any, answers: Any) -> None:
        while (run := asked.get()) is not None:
            try:
                answers.put((True, run()))
            except BaseException as error:
                answers.put((False, error))

    def call(self, run: Callable[[], Any], what: str) -> Any:
        """What `run` returns or raises there; `Trouble` with that thread's stack when it hangs."""
        self._asked.put(run)
        try:
            well, answer = self._answers.get(timeout=GUARD)
        except queue.Empty:
            frame = sys._current_frames().get(self._thread.ident or 0)
            stack = "".join(traceback.format_stack(frame)[-6:]) if frame is not None else ""
            self._begin()
            raise Trouble(f"{what} in another thread hangs\n{stack}") from None
        if not well:
            raise answer
        return answer

    def close(self) -> None:
        self._asked.put(None)


class Bench:
    """A cache, functions of every kind on it, their source, and another thread."""

    _serial = itertools.count(1)

    def __init__(self, url: str, prefix: str, client: redis.Redis | None = None, **options: Any) -> None:
        self.url = url
        self.client = client
        self.cache = Cache(url, prefix=f"{prefix}{next(self._serial)}", **{**PATIENT, **options})
        self.source: dict[int, int] = {}
        self.loads = 0
        self.other = Elsewhere()
        self.keys = itertools.count(1000, 16)
        versioned = self.cache.versioned

        @versioned(namespace="plain")
        def plain(x: int) -> Any:
            return self.load(x)

        @versioned(namespace="tagged", tags=("x:{x}",))
        def tagged(x: int) -> Any:
            return self.load(x)

        @versioned(namespace="late", tags=(lambda call, result: [f"x:{result['x']}"],))
        def late(x: int) -> Any:
            return self.load(x)

        @versioned(namespace="parent")
        def parent(x: int) -> Any:
            return dict(plain(x))

        @versioned(namespace="bulky")
        def bulky(x: int) -> Any:
            return self.load(x)

        @bulky.batch_load
        def many(calls: Any) -> Any:
            return [self.load(call.arguments["x"]) for call in calls]

        @versioned(namespace="lenient", on_store_error="stale", stale_if_error=3600)
        def lenient(x: int) -> Any:
            return self.load(x)

        self.plain, self.tagged, self.late, self.parent, self.bulky = plain, tagged, late, parent, bulky
        self.lenient = lenient
        self.functions = (plain, tagged, late, parent, bulky, lenient)

    def load(self, x: int) -> Any:
        """The function under test: what the source holds for x."""
        value = {"x": x, "v": self.source.get(x, 0)}
        self.loads += 1
        return value

    def value(self, x: int) -> Any:
        """What a call is to be answered with now."""
        return {"x": x, "v": self.source.get(x, 0)}

    def change(self, x: int) -> None:
        self.source[x] = self.source.get(x, 0) + 1

    def close(self) -> None:
        self.other.close()
        with guarded("close()"):
            self.cache.close()

    # -- whole? -----------------------------------------------------------------------------------------------------------

    def no_lease(self, f: Any, x: int) -> None:
        """Return when the call has no lease in Redis (a mark of a failed load is none)."""
        if self.client is None:
            return
        name = f"{{{f.key(x)}}}:lease"
        held = self.client.get
        soon(lambda: not (held(name) or b"").startswith(b"L "), f"the lease {name} stays")

    def whole_function(self, f: Any, x: int, allowed: tuple[int, ...]) -> None:
        """The next calls, from here and from elsewhere, are right and do not wait; entries are kept, invalidations hold."""
        with guarded("the next call"):
            self._right(f(x), x, allowed, "the next call")
        self.no_lease(f, x)
        self._right(self.other.call(lambda: f(x), "the next call"), x, allowed, "the next call in another thread")

        # Whatever was owed has been settled by now or is in a moment; then the store is used again.
        def is_kept() -> bool:
            before = self.loads
            with guarded("the call after the next"):
                self._right(f(x), x, allowed, "the call after the next")
            return self.loads == before

        soon(is_kept, "calls are answered by the function for good: nothing is kept any more")
        self.change(x)
        self.other.call(lambda: f.invalidate(x), "an invalidation")
        if f is self.parent:
            self.other.call(lambda: self.plain.invalidate(x), "an invalidation")
        now = (self.source[x],)
        with guarded("the call after an invalidation"):
            self._right(f(x), x, now, "the call after an invalidation")
        self._right(
            self.other.call(lambda: f(x), "a call"), x, now, "the call after an invalidation, in another thread"
        )

    @staticmethod
    def _right(value: Any, x: int, allowed: tuple[int, ...], what: str) -> None:
        if value not in [{"x": x, "v": v} for v in allowed]:
            raise Trouble(f"{what} returned {value!r}, which is none of {allowed} for {x}")

    def whole_entry(self, key: str) -> None:
        """A key-value key can be set, read, counted and deleted, from here and from elsewhere."""
        cache = self.cache
        with guarded("the next set()"):
            cache.set(key, 41)
        for here in (True, False):
            number = cache.incr(key) if here else self.other.call(lambda: cache.incr(key), "incr()")
            got = self.other.call(lambda: cache.get(key), "get()") if here else cache.get(key)
            if not number == got == (42 if here else 43):
                raise Trouble(f"incr() gave {number!r} and get() {got!r}")
        if self.other.call(lambda: cache.delete(key), "delete()") is not True or cache.get(key, "none") != "none":
            raise Trouble("delete() does not delete")
        if cache.add(key, "x") is not True or cache.add(key, "y") is not False:
            raise Trouble("add() does not add once")

    def _held(self, client: Any) -> list[bytes]:
        """The keys of leases that somebody holds."""
        keys = list(client.scan_iter(f"{{{self.cache.prefix}:*:lease", count=1000))
        return [key for key in keys if (client.get(key) or b"").startswith(b"L ")]

    def well(self) -> None:
        """No connection is lost and no circuit open: more calls than there are connections are answered from the store."""
        f, x = self.plain, next(self.keys)
        with guarded("the last calls"):
            f(x)
            before = self.loads, f.cache_info().store_errors
            for _ in range(2 * PATIENT["max_connections"]):
                self._right(f(x), x, (0,), "a hit")
        if (self.loads, f.cache_info().store_errors) != before:
            raise Trouble("hits ran the function: connections were lost, or the circuit is open")
        threads = [threading.Thread(target=f, args=(x,), daemon=True) for _ in range(2 * PATIENT["max_connections"])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(GUARD)
        if any(thread.is_alive() for thread in threads):
            raise Trouble("threads hang: connections were lost")
        if self.loads != before[0]:
            raise Trouble("hits in other threads ran the function: connections were lost, or the circuit is open")
        if self.client is not None:
            # What a thread behind the calls gives back, and what the server hears of later: both come soon, or not at all.
            client = self.client
            with suppress(TimeoutError):
                wait_until(lambda: not self._held(client), "the leases to be given back", timeout=GUARD)
            if held := self._held(client):
                raise Trouble(f"{len(held)} leases stay: {held[:3]}")
            most = PATIENT["max_connections"] + 2
            with suppress(TimeoutError):
                wait_until(lambda: len(client.client_list()) - 1 <= most, "connections to end", timeout=GUARD)
            clients = len(client.client_list()) - 1
            if clients > most:
                raise Trouble(f"the server has {clients} connections of ours, {PATIENT['max_connections']} are allowed")


@dataclass(frozen=True)
class Operation:
    """One thing that is interrupted.

    `arrange` makes its fresh state for the key `x` (five more keys after it are its own), `act` does it, `right` says whether
    what it returned is right; `changed`: the source moved between the two, so that after an interruption the earlier value
    may be there or not. `checks` are the functions (or key-value keys) that must be whole afterwards.
    `strict`: an exception that strikes always reaches the caller; otherwise one that strikes after the load may not.
    """

    name: str
    arrange: Callable[[Bench, int], object]
    act: Callable[[Bench, int], Any]
    right: Callable[[Bench, int, Any], bool]
    checks: Callable[[Bench], tuple[Any, ...]]
    changed: bool = False
    strict: bool = True


def _nothing(bench: Bench, x: int) -> None:
    return None


def _same(bench: Bench, x: int, value: Any) -> bool:
    return bool(value == bench.value(x))


def _stored_then_changed(*names: str) -> Callable[[Bench, int], None]:
    def arrange(bench: Bench, x: int) -> None:
        for name in names:
            getattr(bench, name)(x)
        bench.change(x)

    return arrange


def _stored(*names: str) -> Callable[[Bench, int], None]:
    def arrange(bench: Bench, x: int) -> None:
        for name in names:
            getattr(bench, name)(x)

    return arrange


def _of(*names: str) -> Callable[[Bench], tuple[Any, ...]]:
    return lambda bench: tuple(getattr(bench, name) for name in names)


def _holds(name: str) -> Callable[[Bench, int, Any], bool]:
    """The invalidation returned, so the next call has the new value."""
    return lambda bench, x, _: bool(getattr(bench, name)(x) == bench.value(x))


def _batch(bench: Bench, x: int, value: Any) -> bool:
    return bool(value == [bench.value(x + n) for n in range(4)])


def _keyvalue(
    name: str,
    arrange: Callable[[Any, str], object],
    act: Callable[[Any, str], Any],
    right: Callable[[Any, str, Any], bool],
) -> Operation:
    return Operation(
        name,
        lambda bench, x: arrange(bench.cache, f"k{x}"),
        lambda bench, x: act(bench.cache, f"k{x}"),
        lambda bench, x, value: right(bench.cache, f"k{x}", value),
        lambda bench: ("entry",),
    )


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("hit", _stored("plain"), lambda b, x: b.plain(x), _same, _of("plain")),
        Operation("hit by a call of its own", lambda b, x: [b.plain(x) for _ in range(4)], lambda b, x: b.plain(x), _same, _of("plain")),
        Operation("miss", _nothing, lambda b, x: b.plain(x), _same, _of("plain"), strict=False),
        Operation("invalidate", _stored_then_changed("plain"), lambda b, x: b.plain.invalidate(x), _holds("plain"), _of("plain"), True),
        Operation("invalidate_all", _stored_then_changed("plain"), lambda b, x: b.plain.invalidate_all(), _holds("plain"), _of("plain"), True),
        Operation("set", _stored_then_changed("plain"), lambda b, x: b.plain.set(b.value(x), x), _holds("plain"), _of("plain"), True),
        Operation("refresh", _stored_then_changed("plain"), lambda b, x: b.plain.refresh(x), _same, _of("plain"), True, strict=False),
        Operation("peek", _stored("plain"), lambda b, x: b.plain.peek(x), lambda b, x, v: v is not None and v.value == b.value(x), _of("plain")),
        Operation("max_age", _stored("plain"), lambda b, x: b.plain.max_age(60)(x), _same, _of("plain")),
        Operation("map", _stored("plain"), lambda b, x: b.plain.map([x, x + 1, x + 2, x + 3], concurrency=1), _batch, _of("plain"), strict=False),
        Operation("map in threads", _stored("plain"), lambda b, x: b.plain.map([x, x + 1, x + 2, x + 3]), _batch, _of("plain"), strict=False),
        Operation("bulk map", _stored("bulky"), lambda b, x: b.bulky.map([x, x + 1, x + 2, x + 3]), _batch, _of("bulky"), strict=False),
        Operation("map of hits", lambda b, x: b.plain.map([x, x + 1, x + 2, x + 3], concurrency=1), lambda b, x: b.plain.map([x, x + 1, x + 2, x + 3]), _batch, _of("plain")),
        Operation("tagged miss", _nothing, lambda b, x: b.tagged(x), _same, _of("tagged"), strict=False),
        Operation("tagged hit", _stored("tagged"), lambda b, x: b.tagged(x), _same, _of("tagged")),
        Operation("late tags", _nothing, lambda b, x: b.late(x), _same, _of("late"), strict=False),
        Operation("invalidate_tags", _stored_then_changed("tagged"), lambda b, x: b.cache.invalidate_tags(f"x:{x}"), _holds("tagged"), _of("tagged"), True),
        Operation("invalidate_namespace", _stored_then_changed("plain"), lambda b, x: b.cache.invalidate_namespace("plain"), _holds("plain"), _of("plain"), True),
        Operation("dependent miss", _nothing, lambda b, x: b.parent(x), _same, _of("parent", "plain"), strict=False),
        Operation("dependent hit", _stored("parent"), lambda b, x: b.parent(x), _same, _of("parent", "plain")),
        Operation("dependency invalidated", _stored_then_changed("parent"), lambda b, x: b.plain.invalidate(x), _holds("parent"), _of("parent", "plain"), True),
        Operation("hit on a new connection", lambda b, x: (b.plain(x), b.cache.close()), lambda b, x: b.plain(x), _same, _of("plain")),
        Operation("miss on a new connection", lambda b, x: b.cache.close(), lambda b, x: b.plain(x), _same, _of("plain"), strict=False),
        Operation("soft invalidation", _stored("plain"), lambda b, x: b.plain.invalidate_all(soft=True), _holds("plain"), _of("plain")),
        Operation("hit kept for outages", _stored("lenient"), lambda b, x: b.lenient(x), _same, _of("lenient")),
        _keyvalue("get", lambda c, k: c.set(k, [1]), lambda c, k: c.get(k), lambda c, k, v: v == [1]),
        _keyvalue("kv set", lambda c, k: c.set(k, [1]), lambda c, k: c.set(k, [2]), lambda c, k, v: c.get(k) == [2]),
        _keyvalue("add", lambda c, k: None, lambda c, k: c.add(k, [1]), lambda c, k, v: v is True and c.get(k) == [1]),
        _keyvalue("incr", lambda c, k: c.set(k, 5), lambda c, k: c.incr(k), lambda c, k, v: v == 6 == c.get(k)),
        _keyvalue("delete", lambda c, k: c.set(k, 5), lambda c, k: c.delete(k), lambda c, k, v: v is True and c.get(k) is None),
        _keyvalue("get_or_set", lambda c, k: None, lambda c, k: c.get_or_set(k, lambda: [1]), lambda c, k, v: v == [1]),
        _keyvalue("get_many", lambda c, k: c.set(k, 5), lambda c, k: c.get_many([k, k + "b"]), lambda c, k, v: v == {k: 5}),
        _keyvalue("set_many", lambda c, k: None, lambda c, k: c.set_many({k: 5, k + "b": 6}), lambda c, k, v: c.get(k + "b") == 6),
        _keyvalue("clear", lambda c, k: c.set(k, 5), lambda c, k: c.clear(), lambda c, k, v: c.get(k) is None),
    )
}  # fmt: skip
"""By name. (One a line: it is a table.)"""


def _chosen(record: list[Place], most: int | None, first: int) -> Sequence[int]:
    """At most `most` of them, a fixed stride apart; for None, every bytecode where it is executed first and last."""
    if most is None:
        earliest = {(place.code, place.offset): place.nth for place in reversed(record)}
        latest = {(place.code, place.offset): place.nth for place in record}
        return sorted({*earliest.values(), *latest.values()})
    return spread(len(record), most, first)


def spread(count: int, most: int, first: int = 0) -> range:
    """At most `most` of `count` numbers, a fixed stride apart."""
    if count <= most:
        return range(count)
    stride = count // most + 1
    return range(first % stride, count, stride)


def _warmed(operation: Operation, make: Callable[[], Bench]) -> Bench:
    """A bench where what is made once is made: connections, scripts, compiled binders."""
    bench = make()
    for _ in range(3):
        x = next(bench.keys)
        operation.arrange(bench, x)
        operation.act(bench, x)
        bench.other.call(lambda x=x: bench.plain(x), "a call")
        for what in operation.checks(bench):
            if what != "entry":
                what(x)
    return bench


def interrupted_at_every(
    operation: Operation, error: type[BaseException], make: Callable[[], Bench], most: int | None, *, failures: int = 4
) -> tuple[int, list[str]]:
    """Interrupt the operation at each of its bytecodes in turn; how many were tried, and what was wrong after which.

    `make` makes a bench: a new one after each failure, because what is not whole stays so. It stops after `failures`.
    """
    wrong: list[str] = []
    tried = 0
    bench = _warmed(operation, make)
    try:
        x = next(bench.keys)
        operation.arrange(bench, x)
        record = places(lambda: operation.act(bench, x))
        for at in _chosen(record, most, first=sum(operation.name.encode()) + len(error.__name__)):
            tried += 1
            try:
                _once(operation, error, bench, at)
                if tried % 100 == 0:
                    bench.well()
            except Trouble as trouble:
                wrong.append(str(trouble))
            except Hung as hung:
                wrong.append(f"after bytecode {record[at]}: {hung}")
            else:
                continue
            if len(wrong) >= failures:
                break
            bench.other.close()
            bench = _warmed(operation, make)
        else:
            bench.well()
    except Trouble as trouble:
        wrong.append(f"after all of them: {trouble}")
    except Hung as hung:
        wrong.append(f"after all of them: {hung}")
    finally:
        bench.other.close()
    return tried, wrong


def _once(operation: Operation, error: type[BaseException], bench: Bench, at: int) -> None:
    x = next(bench.keys)
    operation.arrange(bench, x)
    before = bench.source.get(x, 0)
    allowed = (before - 1, before) if operation.changed else (before,)
    own = error("from outside")
    loads_before = loads_at_strike = bench.loads

    def then() -> None:
        nonlocal loads_at_strike
        loads_at_strike = bench.loads
        handler(own)

    place: Place | None = None
    raised: BaseException | None = None
    value: Any = None
    with Unraisable() as nobody:
        try:
            with guarded(operation.name):
                value, place = strike(lambda: operation.act(bench, x), at, then)
        except Hung:
            raise
        except BaseException as caught:
            raised, place = caught, getattr(caught, "struck", None)
    where = f"{error.__name__} at {place}"
    try:
        if raised is not None and raised is not own:
            if isinstance(raised, KeyboardInterrupt) and not isinstance(raised, CtrlC):
                raise raised
            chain = "".join(traceback.format_exception(type(raised), raised, raised.__traceback__)[-4:])
            raise Trouble(f"the caller got {type(raised).__name__} instead: {chain}")
        if raised is None:
            delivered_to_nobody = own in nobody.errors
            if place is not None and not delivered_to_nobody:
                loaded = loads_at_strike > loads_before
                if operation.strict or not loaded:
                    raise Trouble(f"it was swallowed: the caller got {value!r}")
            if not operation.right(bench, x, value):
                raise Trouble(f"the caller got {value!r}, which is wrong")
            if operation.changed:
                allowed = (before,)
        raised = None
        _whole(operation, bench, x, allowed)
    except Trouble as trouble:
        raise Trouble(f"{where}: {trouble}") from None
    except Hung as hung:
        raise Trouble(f"{where}: {hung}") from None
    except Exception as unexpected:
        text = "".join(traceback.format_exception(type(unexpected), unexpected, unexpected.__traceback__)[-3:])
        raise Trouble(f"{where}: afterwards {text}") from None


def _whole(operation: Operation, bench: Bench, x: int, allowed: tuple[int, ...]) -> None:
    for what in operation.checks(bench):
        if what == "entry":
            with guarded("key-value calls"):
                bench.whole_entry(f"k{x}")
            continue
        bench.whole_function(what, x, allowed)
        allowed = (bench.source[x],)
        if operation.name.endswith("map") or operation.name.startswith("map"):
            for n in (1, 3):
                bench.whole_function(what, x + n, (bench.source.get(x + n, 0),))
