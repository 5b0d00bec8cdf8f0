"""P14: two callables that can answer differently never share an entry; the same function keeps its entries.

The headline cases; every kind of callable, notebooks, reloads and programs are in tests/keys and tests/face."""

from __future__ import annotations

import enum
import functools
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]


class Repository:
    """A class whose objects say what identifies them."""

    def __init__(self, region: str) -> None:
        self.region = region

    def __memover_key__(self) -> str:
        return self.region

    def get(self, item: int) -> str:
        return f"{self.region}:{item}"

    def __call__(self, item: int) -> str:
        return self.get(item)


def _closure(region: str) -> Callable[[int], str]:
    def load(item: int) -> str:
        return f"{region}:{item}"

    return load


def _two_arguments(region: str, item: int) -> str:
    return f"{region}:{item}"


def _over_an_attribute(region: str) -> Callable[[int], str]:
    def where() -> str:
        return where.region  # type: ignore[attr-defined,no-any-return]

    def load(item: int) -> str:
        return f"{where()}:{item}"

    where.region = region  # type: ignore[attr-defined]
    return load


def _over_an_attribute_of_an_attribute(region: str) -> Callable[[int], str]:
    def load(item: int) -> str:
        return f"{load.where()}:{item}"  # type: ignore[attr-defined]

    load.where = lambda: region  # type: ignore[attr-defined]
    plain = load

    @functools.wraps(load)
    def wrapped(item: int) -> str:
        return plain(item)

    return wrapped


def _over_a_member_of_its_own_enum(region: str) -> Callable[[int], str]:
    class Region(enum.Enum):
        HERE = region

    here = Region.HERE
    return lambda item: f"{here.value}:{item}"


KINDS: dict[str, Callable[[str], Any]] = {
    "closures": _closure,
    "lambdas over a value": lambda region: lambda item: f"{region}:{item}",
    "attributes of a captured function": _over_an_attribute,
    "a function that is an attribute": _over_an_attribute_of_an_attribute,
    "members of local enums": _over_a_member_of_its_own_enum,
    "partials": lambda region: functools.partial(_two_arguments, region),
    "bound methods": lambda region: Repository(region).get,
    "objects with __call__": Repository,
}


@pytest.mark.parametrize("kind", KINDS)
def test_callables_that_can_answer_differently_never_share_an_entry(kind: str, redis_url: str, prefix: str) -> None:
    """In one namespace each has its own answers, or the second is refused when it is decorated."""
    with Cache(redis_url, prefix=prefix) as cache:
        made: list[tuple[str, Any]] = []
        for region in ("eu", "us"):
            try:
                made.append((region, cache.versioned(namespace="kinds")(KINDS[kind](region))))
            except ConfigurationError:
                assert made, "the first is no clash"
        for _ in range(2):
            assert [f(1) for _, f in made] == [f"{region}:1" for region, _ in made]


def test_a_program_and_its_importers_share_their_entries(redis_url: str, prefix: str, tmp_path: Path) -> None:
    """`python -m shop.jobs` invalidates what a server that imports `shop.jobs` has cached."""
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "jobs.py").write_text(
        f"""
import dataclasses, memover
memover.configure({redis_url!r}, prefix={prefix!r})
@dataclasses.dataclass(frozen=True)
class Ref:
    id: int
runs = []
@memover.versioned_cache(namespace="by_ref")
def by_ref(ref):
    runs.append(ref)
    return ref.id
if __name__ == "__main__":
    by_ref.invalidate(Ref(1))
"""
    )

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.strip()

    server = "import shop.jobs as jobs; jobs.by_ref(jobs.Ref(1)); print(len(jobs.runs))"
    assert run("-c", server) == "1"
    assert run("-c", server) == "0", "the server's next process finds the entry"
    for program in (("-m", "shop.jobs"), ("shop/jobs.py",)):
        run(*program)
        assert run("-c", server) == "1", f"{' '.join(program)} has invalidated it"
        assert run("-c", server) == "0"
