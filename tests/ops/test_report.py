"""What a process reports is small, true, one command an interval, and gone when the process is."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from memover import StoreError, StoreUnavailable
from memover.runtime.counters import COUNTERS, LOAD_BUCKETS_SECONDS, Counters, quantile
from memover.runtime.report import read_report

from .processes import Clockwork, Function, reporter, reporter_over

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.servers import RedisServer


def test_a_report_says_what_was_counted(redis_url: str, prefix: str) -> None:
    """Totals since the start, the growth since the last report, and the histogram of loads."""
    function = Function("profiles", 3)
    made, _, survey = reporter(redis_url, prefix, function)
    function.counters.own_hits += 5
    function.counters.loaded(0.003)
    first = read_report(made.payload())
    function.counters.own_hits += 2
    function.counters.loaded(0.02, failed=True)
    second = read_report(made.payload())
    survey.close()
    assert first is not None and second is not None
    (one,), (two,) = first.functions, second.functions
    assert (one.namespace, one.version) == ("profiles", 3)
    assert one.totals["hits"] == one.window["hits"] == 5
    assert (two.totals["hits"], two.window["hits"]) == (7, 2)
    assert (two.totals["load_errors"], sum(two.loads), sum(two.window_loads)) == (1, 2, 1)
    assert two.load_seconds == 0.023
    assert first.pid == os.getpid()
    assert first.started <= first.at
    assert second.window > 0


def test_one_command_an_interval(start_redis: Callable[..., RedisServer]) -> None:
    """However many functions there are; a key with a ttl of three intervals."""
    server = start_redis()
    made, clock, survey = reporter(server.url, "shop", *(Function(f"f{n}", 1) for n in range(200)))
    made.start()
    with server.client() as client:
        clock.turn()
        with server.recording() as calls:
            assert clock.turn() == [5.0]
        assert [str(call).split()[0] for call in calls] == ["SET"]
        (name,) = client.keys("shop:report:*")
        assert 14_000 < client.pttl(name) <= 15_000
        made.stop()
        assert client.keys("shop:report:*") == []
    survey.close()


def test_a_process_that_died_disappears(redis_url: str, redis_client: redis.Redis, prefix: str) -> None:
    """By the ttl, which is never without end."""
    made, clock, survey = reporter(redis_url, prefix, Function("f", 1), interval=0.1)
    made.start()
    clock.turn()
    (name,) = redis_client.scan_iter(f"{prefix}:report:*")
    assert 0 < redis_client.pttl(name) <= 5000
    survey.close()


def test_a_store_that_is_away_costs_one_report() -> None:
    """Nothing is raised, and the next interval tries again."""

    class Away:
        asked = 0

        def put(self, name: bytes, raw: bytes, expire_ms: int) -> None:
            self.asked += 1
            raise StoreUnavailable("away", store="x")

        def unlink(self, names: list[bytes]) -> None:
            raise StoreError("away", store="x")

    away, clock = Away(), Clockwork()
    made = reporter_over(away, "shop", clock, Function("f", 1), interval=2.0)
    made.start()
    made.start()
    assert clock.turn() == [2.0]
    assert clock.turn() == [2.0]
    assert away.asked == 2
    made.stop()


def test_a_child_reports_for_itself(redis_url: str, prefix: str) -> None:
    """Under a name of its own, and only what it did."""
    function = Function("f", 1)
    made, clock, survey = reporter(redis_url, prefix, function)
    made.start()
    function.counters.own_hits = 10
    parent = made.process
    made.after_fork()
    assert made.process != parent
    function.counters.own_hits += 1
    report = read_report(made.payload())
    assert report is not None
    assert report.functions[0].window == {"hits": 1}
    assert len(clock.tasks) == 2
    survey.close()


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.integers() | st.text() | st.floats(), lambda e: st.lists(e) | st.dictionaries(st.text(), e)
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_a_report_or_none(raw: bytes) -> None:
    """Reports are read from a store that others can write to."""
    assert read_report(raw) is None


def test_hostile_reports_are_none() -> None:
    """Numbers that are none, histograms of another length, deep nesting."""
    made, _, survey = reporter("redis://localhost:1/0", "x", Function("f", 1))
    good = json.loads(made.payload())
    survey.close()
    assert read_report(json.dumps(good).encode()) is not None
    for name, value in (
        ("at", float("inf")),
        ("at", -1),
        ("pid", True),
        ("process", 5),
        ("functions", [{"namespace": "x"}]),
        ("functions", [{**good["functions"][0], "loads": [1]}]),
        ("functions", [{**good["functions"][0], "totals": {"hits": -1}}]),
        ("functions", 3),
        ("format", 2),
    ):
        assert read_report(json.dumps({**good, name: value}).encode()) is None, name
    assert read_report(b"[" * 100_000) is None
    assert read_report(None) is None


def test_counters_are_one_table() -> None:
    """Each is an attribute that begins at nought, and is named once."""
    counters = Counters()
    assert list(counters.as_dict()) == [each.name for each in COUNTERS]
    assert set(counters.as_dict().values()) == {0}
    assert not hasattr(counters, "__dict__")


def test_load_times_fall_into_their_buckets() -> None:
    """A bound is inclusive, and what is longer than all has a bucket of its own."""
    counters = Counters()
    for seconds in (0.0, 0.001, 0.0011, 30.0, 31.0):
        counters.loaded(seconds)
    assert counters.load_buckets[0] == 2
    assert counters.load_buckets[1] == 1
    assert counters.load_buckets[-2:] == [1, 1]
    assert counters.loads == 5


def test_quantiles() -> None:
    """Linear inside a bucket; the last bound for what is beyond; None for nothing."""
    nothing = [0] * (len(LOAD_BUCKETS_SECONDS) + 1)
    assert quantile(nothing, 0.5) is None
    one = [*nothing]
    one[3] = 10  # 5 ms to 10 ms
    assert quantile(one, 0.5) == 0.0075
    last = [*nothing]
    last[-1] = 1
    assert quantile(last, 0.95) == LOAD_BUCKETS_SECONDS[-1]
