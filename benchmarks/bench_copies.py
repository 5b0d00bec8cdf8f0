"""What a private copy of a kept value costs: `copier_of` beside decoding its bytes and beside deepcopy, in one run.

Times are the best of several rounds, in microseconds a copy. The target is half of what decoding takes.
"""

from __future__ import annotations

import copy
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from memover.codec.copier import copier_of
from memover.codec.mv1.codec import ValueCodec

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = 0.5


@dataclass
class Order:
    """A dataclass of the program's own."""

    number: int
    customer: str
    total: float
    lines: list[str] = field(default_factory=list)


def orders() -> list[Order]:
    return []


RECORD = {
    **{f"field_{number}": number for number in range(6)},
    "name": "Ada Lovelace", "email": "ada@example.com", "score": 1.5, "active": True, "none": None,
    "tags": ["mathematics", "engines"], "settings": {"theme": "dark", "zone": "Europe/London"},
}  # fmt: skip
CASES: dict[str, Any] = {
    "dict of 13 fields": RECORD,
    "list of 100 ints": list(range(100)),
    "100 flat rows": [{"id": number, "name": "Ada", "price": 1.5} for number in range(100)],
    "10 records": [dict(RECORD) for _ in range(10)],
    "dataclass": Order(1, "Ada", 1.5, ["a", "b"]),
}


def best(call: Callable[[], Any], seconds: float = 0.3) -> float:
    """The least time of a call, in microseconds."""
    count, least, until = 1, float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        begin = time.perf_counter()
        for _ in range(count):
            call()
        took = time.perf_counter() - begin
        least = min(least, took / count)
        if took < 0.005:
            count *= 2
    return least * 1e6


def main() -> int:
    """Print a row for each case; 1 when one misses the target."""
    codec, missed = ValueCodec(orders), 0
    print(f"{'':20}{'copier':>9}{'decode':>9}{'deepcopy':>10}{'copier/decode':>15}{'made in':>9}")
    for name, value in CASES.items():
        data = codec.encode(value)
        kept = codec.decode(data)
        copier = copier_of(kept)
        assert copier is not None
        mine, decode = best(copier.copy), best(lambda data=data: codec.decode(data))  # type: ignore[misc]
        deep = best(lambda kept=kept: copy.deepcopy(kept))  # type: ignore[misc]
        making = best(lambda kept=kept: copier_of(kept))  # type: ignore[misc]
        ratio = mine / decode
        missed += ratio > TARGET
        print(f"{name:20}{mine:9.2f}{decode:9.2f}{deep:10.2f}{ratio:15.2f}{making:9.1f}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
