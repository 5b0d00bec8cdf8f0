"""A frozen clock: freshness follows `time.time`, which a test may freeze, on every store.

What is not frozen: Redis, which removes an entry when its real time is over; leases, timeouts and waits, which follow a
monotonic clock out of freezegun's reach.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from freezegun import freeze_time

if TYPE_CHECKING:
    from tests.face.ways import Way

NOON = "2030-05-05 12:00:00"


def counted(way: Way, **options: Any) -> tuple[Any, list[int]]:
    runs: list[int] = []

    @way.cached(**options)
    def f() -> int:
        runs.append(1)
        return len(runs)

    return f, runs


def frozen(way: Way, at: str = NOON) -> Any:
    """Without `real_asyncio` an event loop would wait for ever: its own clock would stand still."""
    return freeze_time(at, real_asyncio=way.is_async)


def test_an_entry_is_fresh_until_its_ttl_is_over_to_the_instant(way: Way) -> None:
    """ttl=60 under a frozen clock: a hit at 59.999 s, a miss at 60 s; no test has to sleep."""
    f, _ = counted(way, ttl=60)
    with frozen(way) as clock:
        assert way.run(f()) == 1
        clock.tick(datetime.timedelta(seconds=59.999))
        assert way.run(f()) == 1
        clock.tick(datetime.timedelta(seconds=0.001))
        assert way.run(f.peek()) is None
        assert way.run(f()) == 2
        clock.tick(59)
        assert way.run(f()) == 2


def test_the_entry_says_when_on_the_frozen_clock(way: Way) -> None:
    """created_at and fresh_until are instants of the process's clock."""
    f, _ = counted(way, ttl="1h")
    noon = datetime.datetime(2030, 5, 5, 12, tzinfo=datetime.timezone.utc).timestamp()
    with frozen(way):
        way.run(f())
        entry = way.run(f.peek())
    assert entry.created_at == noon
    assert entry.fresh_until == noon + 3600


def test_max_age_follows_the_frozen_clock(way: Way) -> None:
    """An entry of 31 s is too old for max_age(30), and fresh for the rest."""
    f, _ = counted(way, ttl=600)
    with frozen(way) as clock:
        assert way.run(f()) == 1
        clock.tick(30)
        assert way.run(f.max_age(30)()) == 1
        clock.tick(1)
        assert way.run(f()) == 1
        assert way.run(f.max_age(30)()) == 2
        assert way.run(f()) == 2


def test_never_is_never(way: Way) -> None:
    """ttl=None: a century later it is fresh."""
    f, _ = counted(way, ttl=None)
    with frozen(way) as clock:
        assert way.run(f()) == 1
        clock.move_to("2130-01-01")
        assert way.run(f()) == 1


def test_a_clock_that_goes_back_harms_nothing(way: Way) -> None:
    """An entry from the future is fresh, and an invalidation holds whatever the clocks say."""
    f, _ = counted(way, ttl=60)
    with frozen(way) as clock:
        assert way.run(f()) == 1
        clock.move_to("2030-05-05 11:00:00")
        assert way.run(f()) == 1
        assert way.run(f.max_age(1)()) == 1
        way.run(f.invalidate_all())
        clock.move_to("2020-01-01")
        assert way.run(f()) == 2
        way.run(f.invalidate_all())
        assert way.run(f()) == 3
        assert way.run(f()) == 3


def test_redis_goes_by_its_own_time(redis_way: Way, redis_client: Any) -> None:
    """The key's limit in Redis is the ttl in real time, wherever the frozen clock stands."""
    f, _ = counted(redis_way, ttl=60)
    with frozen(redis_way, "1999-12-31") as clock:
        assert redis_way.run(f()) == 1
        assert 50_000 < redis_client.pttl(f.key()) <= 60_000
        clock.move_to("2099-12-31")
        assert redis_client.exists(f.key()) == 1
        assert redis_way.run(f()) == 2
    redis_client.delete(f.key())
    with frozen(redis_way, "2099-12-31"):
        assert redis_way.run(f()) == 3, "Redis let it go, so it is a miss, fresh or not"


@pytest.mark.parametrize("ticking", [False, True])
def test_a_frozen_clock_stops_no_wait(sync_way: Way, ticking: bool) -> None:
    """Followers wait for a load, and give up after wait_timeout, in real time."""
    began, release = threading.Event(), threading.Event()
    runs = []

    @sync_way.cached(wait_timeout=0.05)
    def slow() -> int:
        runs.append(1)
        if len(runs) == 1:
            began.set()
            assert release.wait(30)
        return len(runs)

    with freeze_time(NOON, tick=ticking):
        thread = threading.Thread(target=slow)
        thread.start()
        assert began.wait(30)
        assert slow() == 2
        release.set()
        thread.join(30)


IMPORTED_WHILE_FROZEN = """
from freezegun import freeze_time

with freeze_time() as frozen:
    from memover import clocks

    assert not clocks.is_real()
    began = clocks.monotonic(), clocks.boottime()
    frozen.tick(1000)
    assert clocks.monotonic() - began[0] < 500, "waits follow the frozen clock"
    assert clocks.boottime() - began[1] < 500, "ages follow the frozen clock"
assert not clocks.is_real()
"""


def test_memover_may_be_imported_while_a_clock_is_frozen() -> None:
    """What is looked up then is freezegun's, and no wait may follow it."""
    subprocess.run([sys.executable, "-c", IMPORTED_WHILE_FROZEN], check=True)
