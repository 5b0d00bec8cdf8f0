"""What a key costs, beside what the standard library's own ingredients cost, in one run.

    python benchmarks/bench_keys.py

Nanoseconds per call, the best of seven rounds, each thing timed in turn within a round. The ratio is to
`functools._make_key` + blake2b over its repr, which is about the least that a shared cache's key can cost (and is
wrong: it keeps nothing apart that has equal reprs).
"""

from __future__ import annotations

import functools
import inspect
import itertools
import timeit
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from memover.keys.binding import Binding

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS, CALLS = 7, 20_000


@dataclass(frozen=True)
class Filter:
    name: str
    limit: int


def profile(user_id: int, region: str = "eu", active: bool = True) -> None: ...


def search(query: str, *terms: str, page: int = 1, **options: Any) -> None: ...


def listing(filter: Filter, ids: list[int]) -> None: ...


def rough_key(*args: Any, **kwargs: Any) -> str:
    key: Any = functools._make_key(args, kwargs, typed=True)
    return blake2b(repr(key).encode(), digest_size=16).hexdigest()


def contenders() -> dict[str, Callable[[], Any]]:
    numbers = itertools.count(10**6)
    fresh = Binding(profile)
    looked_up, text = fresh.compile(_same), fresh.compile(_same, memo_size=0)
    searched = Binding(search).compile(_same)
    listed = Binding(listing).compile(_same)
    named = Binding(profile, key="{user_id}:{region}")
    named_lookup = named.compile(_same)
    remembered = functools.lru_cache(maxsize=None)(profile)
    signature = inspect.signature(profile)
    a_filter, ids = Filter("new", 10), list(range(20))
    return {
        "_make_key + blake2b": lambda: rough_key(next(numbers), region="us"),
        "Signature.bind": lambda: signature.bind(next(numbers), region="us").apply_defaults(),
        "lru_cache hit": lambda: remembered(7, region="us"),
        "lookup, repeated": lambda: looked_up(7, region="us"),
        "lookup, new call": lambda: looked_up(next(numbers), region="us"),
        "text, no memo": lambda: text(next(numbers), region="us"),
        "*args, **kwargs, repeated": lambda: searched("shoes", "red", page=2, size=9),
        "dataclass and list of 20": lambda: listed(a_filter, ids),
        "template, repeated": lambda: named_lookup(7, region="us"),
        "template, new call": lambda: named_lookup(next(numbers), region="us"),
    }


def _same(text: str) -> str:
    return text


def main() -> None:
    things = contenders()
    empty = min(timeit.repeat(lambda: None, number=CALLS, repeat=ROUNDS))
    best = dict.fromkeys(things, float("inf"))
    for _ in range(ROUNDS):
        for name, thing in things.items():
            best[name] = min(best[name], timeit.timeit(thing, number=CALLS) - empty)
    base = best["_make_key + blake2b"]
    for name, seconds in best.items():
        print(f"{name:28}{seconds / CALLS * 1e9:8.0f} ns{seconds / base:8.2f}")


if __name__ == "__main__":
    main()
