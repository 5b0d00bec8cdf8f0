"""The model of benchmarks/fleet.py: its queue, and where it puts what is read."""

from __future__ import annotations

import random
from statistics import mean
from types import SimpleNamespace

import pytest
from redis.crc import key_slot

from benchmarks.fleet import COARSE, GENERATION, Fleet, Times, node_of, result, waits
from memover.keys.shards import shards

TIMES = Times(token=10e-6, entry=10e-6, move=15e-6, register=10e-6, beat_bytes=78, client=8e-6)


@pytest.mark.parametrize("load", [0.2, 0.5, 0.7])
def test_a_queue_waits_as_the_theory_says(load: float) -> None:
    """The mean wait is that of Pollaczek and Khinchine for Poisson arrivals and this spread of service times."""
    service = 10e-6
    found = mean(waits([(load / service, service)], 200_000, random.Random(7)))
    expected = load * service * 1.25 / (2 * (1 - load))
    assert found == pytest.approx(expected, rel=0.15)


def test_keys_are_on_the_nodes_that_redis_would_put_them_on() -> None:
    """A node of the model has the slots that a node of a Cluster has."""
    for key in (GENERATION, COARSE, *shards(GENERATION, 16)):
        for primaries in (3, 10, 1000):
            assert node_of(key, primaries) == key_slot(key) * primaries // 16384


def test_every_hit_is_one_read_of_a_token() -> None:
    """Shards spread the reads of the generation and neither lose nor invent one."""
    for count in (1, 16, 64):
        fleet = Fleet(primaries=10, processes=0, shards=count, rate=1000.0, share=1.0)
        tokens = sum(streams[2][0] for streams in fleet.streams(TIMES).values())
        assert tokens == pytest.approx(1000.0)


def test_shards_let_a_cluster_grow() -> None:
    """With one key more primaries hardly help; with a shard for each they do, and an invalidation takes longer."""
    args = SimpleNamespace(share=0.5, network=0.0003, events=2000, draws=500)
    small, large = result(TIMES, 10, 1, args), result(TIMES, 100, 1, args)
    sharded = result(TIMES, 100, 128, args)
    assert large.bears < 2 * small.bears
    assert sharded.bears > 5 * large.bears
    assert sharded.hottest < large.hottest
    assert sharded.p50 > large.p50
