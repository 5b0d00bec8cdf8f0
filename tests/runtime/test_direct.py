"""The plain miss that is written out says what the flow says, on SQLite and in memory: same answer, same counters, same entry."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from memover import Cache, NotCached, depends_on, versioned_cache
from memover.codec.envelope import read_header
from memover.runtime import direct
from memover.runtime.run import run
from memover.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class Refused(Exception):
    """What a load raises."""


class Situation(NamedTuple):
    """A function, what was done before it is called, and what happens between its read and its lease.

    `writes`: which of the two direct writes are asked for and have written."""

    load: Callable[[int], Any]
    options: Mapping[str, Any] = MappingProxyType({})
    cache: Mapping[str, Any] = MappingProxyType({})
    before: Callable[[Any], object] | None = None
    between: Callable[[Any], object] | None = None
    writes: tuple[str, ...] = ("take", "put")


def _fails(x: int) -> Any:
    raise Refused(x)


def _declares(x: int) -> Any:
    depends_on("shelf")
    return x


def _uses(x: int) -> Any:
    return _uses.helper(x) + 1  # type: ignore[attr-defined]


def _mine_gone(x: int) -> Any:
    _mine_gone.function.invalidate(x)  # type: ignore[attr-defined]
    return x


def _all_gone(x: int) -> Any:
    _all_gone.function.invalidate_all()  # type: ignore[attr-defined]
    return x


TAKEN = ("take",)
SITUATIONS = {
    "plain": Situation(lambda x: {"x": x}),
    "a list of many": Situation(lambda x: list(range(5000))),
    "compressed": Situation(lambda x: "a" * 50_000),
    "None": Situation(lambda x: None),
    "a ttl for ever": Situation(lambda x: x, {"ttl": None}),
    "jitter": Situation(lambda x: x, {"jitter": 1e-9}),
    "its own ttl": Situation(lambda x: x, {"ttl": 7.5}),
    "a ttl of its own": Situation(lambda x: x, {"ttl": lambda result, call: 7.0}),
    "a ttl that raises": Situation(lambda x: x, {"ttl": lambda result, call: 1 / 0}, writes=TAKEN),
    "declined": Situation(lambda x: x, {"cache_if": lambda result, call: False}, writes=TAKEN),
    "not cached": Situation(NotCached, writes=TAKEN),
    "raises": Situation(_fails, writes=TAKEN),
    "a cached error": Situation(_fails, {"cache_errors": (Refused,)}, writes=TAKEN),
    "a generator": Situation(lambda x: (y for y in [x]), writes=TAKEN),
    "what no codec stores": Situation(lambda x: object, writes=TAKEN),
    "what no codec stores, returned": Situation(lambda x: object, cache={"on_unencodable": "return"}, writes=TAKEN),
    "too large": Situation(lambda x: bytes(2000), cache={"max_entry_bytes": 100, "compress_from": None}, writes=TAKEN),
    "longer than a row": Situation(lambda x: bytes(range(256)) * 400, cache={"compress_from": None}, writes=TAKEN),
    "a tag": Situation(lambda x: x, {"tags": ["n:{x}"]}, writes=()),
    "a late tag": Situation(lambda x: x, {"tags": lambda call, result: [f"r:{result}"]}, writes=()),
    "a declared dependency": Situation(_declares, writes=TAKEN),
    "uses another": Situation(_uses, writes=TAKEN),
    "windows": Situation(lambda x: x, {"stale_if_error": 60}, writes=()),
    "the last answer kept": Situation(lambda x: x, {"on_store_error": "stale"}),
    "the first call of all": Situation(lambda x: x, before=lambda mine: mine.cache, writes=()),
    "an old entry": Situation(lambda x: x, before=lambda mine: (mine(7), mine.invalidate_all()), writes=()),
    "after an invalidation": Situation(lambda x: x, before=lambda mine: (mine(7), mine.invalidate(7))),
    "an entry has come": Situation(lambda x: x, between=lambda mine: mine.set(1, 7), writes=()),
    "the generation has moved": Situation(lambda x: x, between=lambda mine: mine.invalidate_all(), writes=()),
    "gone during its load": Situation(_mine_gone, writes=TAKEN),
    "all gone during its load": Situation(_all_gone),
}


class Came(NamedTuple):
    """What can be seen of a call."""

    answer: Any
    counted: dict[str, Any]
    header: Any
    lease: bytes
    again: Any


@pytest.fixture(params=SITUATIONS)
def situation(request: pytest.FixtureRequest) -> Situation:
    return SITUATIONS[request.param]


def _played(situation: Situation, url: str, written: list[str] | None, absences: int = 0) -> Came:
    """The second call of a function, of another argument than the first; `written` is told of direct writes, None: there are none.
    `absences`: how many reads before it found no entry, one after the other."""
    with Cache(url, **situation.cache) as cache:
        store: Any = cache._state.store
        noting = _Noting(store, situation.between, written)
        store.direct = lambda: None if written is None else noting
        helper = versioned_cache(namespace="helper", cache=cache)(lambda x: x * 2)
        _uses.helper = helper  # type: ignore[attr-defined]

        def load(x: int) -> Any:
            return situation.load(x)

        mine: Any = versioned_cache(namespace="shelf", cache=cache, **situation.options)(load)
        _mine_gone.function = _all_gone.function = mine  # type: ignore[attr-defined]
        noting.mine = mine
        if situation.before is None:
            mine.invalidate_all()
        else:
            situation.before(mine)
        if absences:
            store._absences[mine._self_definition.now().function.generation_name] = absences
        noting.begin()
        answer = _tried(mine)
        counted = {name: value for name, value in mine.cache_info()._asdict().items() if "seconds" not in name}
        key = mine._self_definition.now().lookup(7)
        _, _, raw, lease = run(store.look(key))
        header = None
        if raw is not None:
            read = read_header(raw, key.entry)
            header = read._replace(
                generation=b"", marks=tuple((name, b"") for name, _ in read.marks), created_at=0, load_time=0,
                fresh_until=round(read.fresh_until - read.created_at, 3),
                usable_until=round(read.usable_until - read.created_at, 3),
            )  # fmt: skip
        noting.end()
        return Came(answer, counted, header, (lease or b"")[:1], _tried(mine))


class _Noting:
    """The store's direct writes, noted; before the lease is asked for, what happens meanwhile."""

    def __init__(self, store: Any, between: Callable[[Any], object] | None, written: list[str] | None) -> None:
        self._store = store
        self._direct, self._acquire = store.direct(), store.acquire
        self._between = between
        self._begun = False
        self.mine: Any = None
        self._written = written
        self.most = self._direct.most

    def begin(self) -> None:
        """The call begins now."""
        self._begun = True
        if self._written is not None:
            self._written.clear()
        if self._between is not None:
            self._store.acquire = self.acquire

    def end(self) -> None:
        """What follows is not noted."""
        self._written = None if self._written is None else []

    def presumed(self, *given: Any) -> Any:
        found = self._direct.presumed(*given)
        if found is not None and self._written is not None:
            self._written.append("presumed")
        return found

    def take(self, *given: Any) -> bool:
        self._meanwhile()
        return self._noted("take", self._direct.take(*given))

    def put(self, *given: Any) -> bool:
        return self._noted("put", self._direct.put(*given))

    def acquire(self, *given: Any, **named: Any) -> Any:
        self._meanwhile()
        return self._acquire(*given, **named)

    def _meanwhile(self) -> None:
        if self._begun and self._between is not None:
            between, self._between, self._store.acquire = self._between, None, self._acquire
            between(self.mine)

    def _noted(self, name: str, done: bool) -> bool:
        assert self._written is not None
        if done:
            self._written.append(name)
        return done


def _tried(mine: Any) -> Any:
    try:
        answer = mine(7)
    except Exception as error:
        return type(error), str(error)
    return type(answer) if callable(answer) else answer


@pytest.mark.parametrize("at", ["sqlite", "memory"])
def test_a_plain_miss_is_what_the_flow_says(situation: Situation, at: str, tmp_path: Path) -> None:
    written: list[str] = []
    short, whole = (
        _played(situation, "memory://" if at == "memory" else f"sqlite:///{tmp_path / name}.db", told)
        for name, told in (("short", written), ("whole", None))
    )
    assert short == whole
    if at == "sqlite":  # who asks for a lease in memory has an answer, whatever it is
        assert tuple(written) == situation.writes


def test_a_plain_miss_that_is_presumed_is_what_the_flow_says(situation: Situation, tmp_path: Path) -> None:
    """Where the reads before it found nothing, this one is not done; whatever there is all the same is found."""
    written: list[str] = []
    short = _played(situation, f"sqlite:///{tmp_path}/short.db", written, absences=8)
    assert short == _played(situation, f"sqlite:///{tmp_path}/whole.db", None)
    if situation is SITUATIONS["plain"]:
        assert written[0] == "presumed"
    if situation is not SITUATIONS["the generation has moved"]:  # the read that is done then says to what
        assert tuple(each for each in written if each != "presumed") == situation.writes


def test_a_store_without_direct_writes_has_the_flow_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryStore, "direct", lambda self: None)
    with Cache() as cache:

        @versioned_cache(namespace="memory", cache=cache)
        def load(x: int) -> int:
            return x

        assert load(1) == 1
        assert direct.direct_miss(load._self_definition.now().function) is None
