"""What keeping values and types costs: memover's codec beside plain msgpack, pickle and msgspec, in one run.

Times are the best of several rounds, in microseconds a value; ratios are memover's time over the other's. Plain
msgpack is given dicts (made beforehand, and left as dicts afterwards): it keeps no classes. msgspec is given the
class and its generated code, so it is the bound for what is checked; an array goes through it as bytes.
"""

# ruff: noqa: B023
# The functions of one case are called before the next begins.

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import msgpack
import msgspec
import numpy as np

from memover.codec.mv1.codec import ValueCodec


@dataclass
class Address:
    street: str
    city: str
    zip_code: str


@dataclass
class Profile:
    user_id: int
    name: str
    email: str
    score: float
    active: bool
    address: Address
    tags: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)


def profile(number: int) -> Profile:
    return Profile(
        user_id=number,
        name=f"Ada Lovelace {number}",
        email=f"ada.{number}@example.com",
        score=number / 7,
        active=True,
        address=Address("12 St James's Square", "London", "SW1Y 4JH"),
        tags=["mathematics", "engines", "poetry", "translations of Menabrea, with notes of her own"],
        settings={
            "language": "en",
            "theme": "dark",
            "newsletter": "weekly",
            "zone": "Europe/London",
            "currency": "GBP",
            "units": "metric",
        },
    )


def profiles() -> list[Profile]:
    return []


def best(call: Callable[[], Any], seconds: float = 0.4) -> float:
    """Return the least time of one call, in microseconds, over rounds of at least a millisecond."""
    start = time.perf_counter()
    call()
    count = max(1, int(0.001 / (time.perf_counter() - start)))
    least, end = float("inf"), start + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(count):
            call()
        least = min(least, (time.perf_counter() - start) / count)
    return least * 1e6


def main() -> None:
    codec = ValueCodec(profiles)
    one = profile(7)
    # Until the payload is as large as the name of the case says.
    many = [profile(number) for number in range(100_000 // (len(codec.encode([one] * 100)) // 100))]
    array = np.random.default_rng(1).standard_normal(10_000_000 // 8)
    encoder = msgspec.msgpack.Encoder()
    cases: dict[str, tuple[Any, Any, Callable[[Any], bytes], Callable[[bytes], Any]]] = {
        "400-byte profile": (one, asdict(one), encoder.encode, msgspec.msgpack.Decoder(Profile).decode),
        "100 kB of profiles": (
            many, [asdict(each) for each in many], encoder.encode, msgspec.msgpack.Decoder(list[Profile]).decode
        ),
        "10 MB array": (
            array, array, lambda value: encoder.encode(value.data),
            lambda data: np.frombuffer(msgspec.msgpack.decode(data)),
        ),
    }  # fmt: skip
    print(
        f"Python {sys.version.split()[0]}, msgpack {msgpack.version}, best of rounds, µs (memover's time / other's)\n"
    )
    print(f"{'':24}{'bytes':>12}{'memover':>11}{'msgpack':>18}{'pickle':>18}{'msgspec':>18}")
    for name, (value, plain, spec_encode, spec_decode) in cases.items():
        payload = codec.encode(value)
        is_array = plain is array
        pack = (lambda: msgpack.packb(plain.tobytes())) if is_array else (lambda: msgpack.packb(plain))
        packed, pickled, spec = pack(), pickle.dumps(value, 5), spec_encode(value)
        unpack = (lambda: np.frombuffer(msgpack.unpackb(packed))) if is_array else (lambda: msgpack.unpackb(packed))
        rows: dict[str, list[Callable[[], Any]]] = {
            "encode": [
                lambda: codec.encode(value), pack, lambda: pickle.dumps(value, 5), lambda: spec_encode(value)
            ],
            "decode": [
                lambda: codec.decode(payload), unpack, lambda: pickle.loads(pickled), lambda: spec_decode(spec)
            ],
        }  # fmt: skip
        for what, calls in rows.items():
            ours, *others = map(best, calls)
            cells = "".join(f"{each:10.1f} ({ours / each:4.2f})" for each in others)
            print(f"{name + ', ' + what:<24}{len(payload):>12,}{ours:11.1f}{cells}")


if __name__ == "__main__":
    main()
