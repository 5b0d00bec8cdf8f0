"""Every option combined at random, on every store: no call that began after an invalidation returned is answered with
something older, `max_age` is kept, and no read raises.

A run that fails prints its seed; `MEMOVER_HISTORY_SEED=… pytest tests/histories` makes the same choices again (the schedule
is the machine's). Without it the seeds of the standing suite are fixed and those of the slow one are new each time.
"""

from __future__ import annotations

import os
import secrets
import time
from typing import TYPE_CHECKING, Any

import pytest

from memover.errors import ConfigurationError
from memover.testing import FEATURES, start_history
from tests.histories.mixtures import RULES, mixture

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.servers import RedisCluster, RedisServer, SentinelGroup

FORCED = os.environ.get("MEMOVER_HISTORY_SEED")
STORES = ("memory", "redis", "cluster", "sentinel")


def _url(store: str, request: pytest.FixtureRequest) -> tuple[str, int]:
    if store == "memory":
        return "memory://", 0
    if store == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return server.url, 0
    if store == "cluster":
        cluster: RedisCluster = request.getfixturevalue("redis_cluster")
        return cluster.url, 0
    group: SentinelGroup = request.getfixturevalue("sentinel_group")
    return group.url, len(group.servers) - 1 if hasattr(group, "servers") else 1


def _hold(store: str, request: pytest.FixtureRequest, seeds: Iterable[int], seconds: float) -> None:
    url, replicas = _url(store, request)
    wrong = []
    for seed in [int(FORCED)] if FORCED else seeds:
        arguments = mixture(seed, processes=1 if store == "memory" else 2, replicas=replicas)
        with start_history(url, **arguments) as run:
            time.sleep(seconds)
            report = run.stop(rules=RULES)
        if report.violations:
            wrong.append(f"MEMOVER_HISTORY_SEED={seed}\n{arguments}\n{report}")
        assert report.reads > 20, f"MEMOVER_HISTORY_SEED={seed}: hardly anything was read\n{report}"
        assert report.invalidations, f"MEMOVER_HISTORY_SEED={seed}: nothing was invalidated\n{report}"
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize("store", STORES)
def test_no_mixture_of_options_gives_an_old_answer(store: str, request: pytest.FixtureRequest) -> None:
    """A few fixed seeds, for a moment each."""
    _hold(store, request, range(2), 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES)
def test_no_mixture_of_options_gives_an_old_answer_for_long(store: str, request: pytest.FixtureRequest) -> None:
    """Seeds that nobody has tried."""
    _hold(store, request, [secrets.randbits(32) for _ in range(6)], 2.0)


@pytest.mark.parametrize(
    ("mutant", "rule", "arguments"),
    [
        ("tags_from_results_are_dropped", "fresh", {"features": ["late-tags", "batches"], "kinds": (20, 0, 0, 0, 80)}),
        ("max_age_is_ignored", "max-age", {"features": ["max-age"], "changes": 0.01}),
        ("soft_for_hard", "own", {"function_options": {"stale_while_revalidate": 3600}}),
    ],
)
def test_what_the_options_could_break_is_caught(
    mutant: str, rule: str, arguments: dict[str, Any], redis_server: RedisServer
) -> None:
    """The same runs over a build with one option broken find it, so that finding nothing means something."""
    for seconds in (1.0, 4, 12):  # a busy machine has fewer chances a second to go wrong
        with start_history(
            redis_server.url,
            setup=f"tests.histories.broken:{mutant}",
            **{"keys": 2, "changes": 0.2, "options": {"socket_timeout": 10.0}, **arguments},
        ) as run:
            time.sleep(seconds)
            report = run.stop(rules=RULES)
        if rule in report.violations:
            break
    assert rule in report.violations, str(report)


def test_unknown_features_are_refused() -> None:
    """A misspelt feature would silently prove nothing."""
    with pytest.raises(ConfigurationError, match="late-tags"):
        start_history("memory://", processes=1, features=["late_tags"])
    assert len(set(FEATURES)) == len(FEATURES)


def test_a_seed_stands_for_one_mixture() -> None:
    """What failed can be made again; and seeds differ."""
    assert mixture(7) == mixture(7)
    assert len({str(mixture(seed)["features"]) for seed in range(20)}) > 15
    assert {feature for seed in range(20) for feature in mixture(seed)["features"]} == set(FEATURES)
