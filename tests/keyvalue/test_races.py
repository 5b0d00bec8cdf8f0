"""What holds when several processes do the same thing to the same keys at the same time, on one server and on a Cluster."""

from __future__ import annotations

import threading
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest

from tests.keyvalue import racers
from tests.servers import INDEX, run_python, start_python

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover import Cache

PROCESSES = 4


def test_no_increment_is_lost(shared_url: str, make: Callable[..., Cache]) -> None:
    """Every process's every increment counts, of integers in one step and of floats by comparing; no answer comes twice."""
    cache = make(shared_url)
    cache.set_many({"n": 0, "down": 0, "x": 0.0})
    answers = run_python(racers.count_up, shared_url, cache.prefix, 100, n=PROCESSES)
    assert sorted(chain(*answers)) == list(range(1, 100 * PROCESSES + 1))
    assert cache.get_many(["n", "down", "x"]) == {"n": 100 * PROCESSES, "down": -200 * PROCESSES, "x": 12.5 * PROCESSES}


def test_one_add_wins(shared_url: str, make: Callable[..., Cache]) -> None:
    """Of several processes that add, one is told so, and its value is there."""
    cache = make(shared_url)
    won = run_python(racers.add_all, shared_url, cache.prefix, 100, INDEX, n=PROCESSES)
    assert sorted(chain(*won)) == list(range(100))
    stored = cache.get_many([f"k{key}" for key in range(100)])
    assert stored == {f"k{key}": index for index, keys in enumerate(won) for key in keys}


def test_one_get_or_set_computes(shared_url: str, make: Callable[..., Cache]) -> None:
    """Each key is computed once, and everybody gets that value."""
    cache = make(shared_url)
    results = run_python(racers.compute_all, shared_url, cache.prefix, 50, INDEX, n=PROCESSES)
    assert sorted(key for _, computed in results for key in computed) == list(range(50))
    assert all(got == results[0][0] for got, _ in results)
    assert list(cache.get_many([f"k{key}" for key in range(50)]).values()) == results[0][0]


def test_one_incr_version_wins(shared_url: str, make: Callable[..., Cache]) -> None:
    """Of several processes that move a key, one succeeds, and the value is there under the new version alone."""
    cache = make(shared_url)
    keys = [f"k{key}" for key in range(100)]
    cache.set_many({key: key.upper() for key in keys})
    moved = run_python(racers.move_all, shared_url, cache.prefix, 100, n=PROCESSES)
    assert sorted(chain(*moved)) == list(range(100))
    assert cache.get_many(keys) == {}
    assert cache.get_many(keys, version=2) == {key: key.upper() for key in keys}


def test_a_moving_value_is_never_under_both_versions(redis_url: str, make: Callable[..., Cache]) -> None:
    """One step: a look at both versions at the same moment finds the value exactly once."""
    cache = make(redis_url)
    cache.set("k", "v")
    names = [f"{cache.prefix}:{version}:k" for version in (1, 2)]
    with start_python(racers.move_back_and_forth, redis_url, cache.prefix, 300) as mover:
        client_looks = 0
        done = threading.Event()
        outcome: list[Any] = []
        waiting = threading.Thread(target=lambda: (outcome.append(mover.result()), done.set()))
        waiting.start()
        import redis

        with redis.Redis.from_url(redis_url) as client:
            while not done.is_set() or not client_looks:
                assert client.exists(*names) == 1
                client_looks += 1
        waiting.join()
    assert outcome == [0]
    assert cache.get("k") == "v"


@pytest.mark.parametrize("change", ["set", "add", "delete", "clear", "delete_many", "set_many"])
def test_what_happens_during_a_computation_wins(change: str, shared_url: str, make: Callable[..., Cache]) -> None:
    """A get_or_set that began before a set, an add, a deletion or a clear does not overwrite what came of it."""
    cache = make(shared_url)
    with start_python(racers.compute_slowly, shared_url, cache.prefix) as slow:
        slow.wait_for("computing")
        {
            "set": lambda: cache.set("k", "new"),
            "set_many": lambda: cache.set_many({"k": "new", "other": 1}),
            "add": lambda: cache.add("k", "new"),
            "delete": lambda: cache.delete("k"),
            "delete_many": lambda: cache.delete_many(["k"]),
            "clear": cache.clear,
        }[change]()
        slow.tell("go on")
        got = slow.result()
    if change in ("set", "set_many", "add"):
        assert got == cache.get("k") == "new"
    elif change == "clear":
        # Stamped with the generation before: stored or not, nobody gets it.
        assert got == "computed" and cache.get("k") is None
    else:
        assert got == "computed" and cache.get("k") is None


def test_nothing_outlives_a_clear(shared_url: str, make: Callable[..., Cache]) -> None:
    """Whatever others clear and set meanwhile, what was set before one's own clear is gone after it."""
    cache = make(shared_url)
    assert run_python(racers.clear_over_and_over, shared_url, cache.prefix, 50, INDEX, n=PROCESSES) == [-1] * PROCESSES


def test_threads_share_one_computation(url: str, make: Callable[..., Cache]) -> None:
    """The same within one process, on every store."""
    cache = make(url)
    computed: list[int] = []
    begin = threading.Barrier(8)
    got: list[Any] = []

    def ask() -> None:
        begin.wait()
        for key in range(20):
            got.append((key, cache.get_or_set(f"k{key}", lambda key=key: computed.append(key) or [key])))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(computed) == list(range(20))
    assert all(value == [key] for key, value in got) and len(got) == 160


def test_threads_count_without_loss(url: str, make: Callable[..., Cache]) -> None:
    """Threads of one process lose no increment either."""
    cache = make(url)
    cache.set("n", 0)
    threads = [threading.Thread(target=lambda: [cache.incr("n") for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get("n") == 400


def test_who_has_not_heard_of_a_clear_writes_under_the_new_generation(
    shared_url: str, make: Callable[..., Cache]
) -> None:
    """A process that last saw the generation before another's clear stores nothing under it, whatever it does first."""
    other = make(shared_url)

    def behind() -> Cache:
        cache = make(shared_url)
        cache.set("seen", 1)
        other.clear()
        return cache

    behind().set("k", "set")
    assert other.get("k") == "set"
    behind().set_many({"k": "many", "l": "many"})
    assert other.get_many(["k", "l"]) == {"k": "many", "l": "many"}
    assert behind().add("k", "added") is True
    assert other.get("k") == "added"
    assert behind().get_or_set("k", "computed") == "computed"
    assert other.get("k") == "computed"
    for act in (lambda cache: cache.incr("seen"), lambda cache: cache.incr_version("seen")):
        with pytest.raises(ValueError, match="set"):
            act(behind())
    assert behind().touch("seen") is False
    assert behind().delete("seen") is False
    cache = behind()
    other.set("k", "theirs")
    assert cache.add("k", "ours") is False
    cache = behind()
    other.set("n", 1)
    assert cache.incr("n") == 2 and other.get("n") == 2
    cache = behind()
    other.set("n", 1)
    assert cache.incr_version("n") == 2 and other.get("n", version=2) == 1
