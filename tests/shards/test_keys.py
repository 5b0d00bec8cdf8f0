"""The keys of shards: where they lie, how they nest, and what is no shard."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from memover import Cache, ConfigurationError
from memover.keys.shards import (
    GRAINS,
    grain_of,
    may_have_shards,
    names_by_grain,
    nonce_of,
    parse_registry,
    registry_key,
    shard_of,
    shards,
    unsharded,
    with_shards,
)

GENERATION, SOFT = b"shop:gen:profiles", b"shop:gen:profiles@soft"


@pytest.mark.parametrize("count", [2, 3, 16, 100, GRAINS])
def test_shards_lie_evenly_over_the_slots(count: int) -> None:
    """Of the primaries of a cluster, none has more than one shard above its part."""
    slots = sorted(key_slot(name) for name in shards(GENERATION, count))
    assert len(set(slots)) == count
    for primaries in (3, 6, 100):
        each = [sum(slot * primaries // 16384 == node for slot in slots) for node in range(primaries)]
        assert max(each) - min(each) <= 2


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 100, 1000, GRAINS])
def test_shards_of_every_setting_are_among_the_same_keys(count: int) -> None:
    """Whoever moves all the keys there can be moves those of every setting."""
    assert set(shards(GENERATION, count)) <= set(shards(GENERATION, GRAINS))


@pytest.mark.parametrize("count", [2, 3, 16, GRAINS])
def test_a_call_reads_the_shard_that_its_arguments_pick(count: int) -> None:
    """Each call has one shard, each shard has its calls, and the soft mark goes with the generation."""
    rows = names_by_grain((GENERATION, SOFT), count)
    texts = [f"{number:032x}" for number in range(20 * count)]
    for text in texts:
        generation, soft = rows[grain_of(text)]
        assert generation == shard_of(GENERATION, count, text)
        assert soft == shard_of(SOFT, count, text)
    assert {rows[grain_of(text)][0] for text in texts} == set(shards(GENERATION, count))


def test_one_shard_is_the_generation_itself() -> None:
    """With the default setting keys are what they were."""
    assert shards(GENERATION, 1) == ()
    assert shard_of(GENERATION, 1, "text") == GENERATION
    assert with_shards((GENERATION,), 1) == (GENERATION,)


def test_what_has_shards() -> None:
    """Generations and soft marks of functions' namespaces have shards; tags, calls, clocks, and key-value entries have none."""
    assert may_have_shards(GENERATION)
    assert may_have_shards(SOFT)
    for name in (
        b"shop:tag:user:7",
        b"shop:tag:gen:profiles",
        b"shop:gen:profiles@call7",
        b"shop:gen:@all",
        b"shop:gen:@tags",
        b"shop:gen:~kv",
        b"shop:2:profiles:0",
        shards(GENERATION, 2)[0],
        shards(SOFT, 2)[0],
        registry_key(GENERATION),
    ):
        assert not may_have_shards(name), name
        assert with_shards((name,), 4) == (name,)


def test_a_shard_tells_whose_it_is() -> None:
    """The generation or soft mark is in the name of each shard, and one registry is for both, in the generation's slot."""
    assert {unsharded(name) for name in shards(GENERATION, 5)} == {GENERATION}
    assert {unsharded(name) for name in shards(SOFT, 5)} == {SOFT}
    assert unsharded(b"shop:tag:7") == b"shop:tag:7"
    names = (GENERATION, SOFT, *shards(GENERATION, 3), *shards(SOFT, 3))
    assert {registry_key(name) for name in names} == {b"{shop:gen:profiles}@shards"}
    assert key_slot(registry_key(GENERATION)) == key_slot(GENERATION)


def test_no_two_shards_hold_equal_tokens() -> None:
    """One invalidation has a nonce of its own for every shard, the same each time that it is repeated."""
    nonce = "0123456789abcdef"
    names = shards(GENERATION, GRAINS)
    nonces = [nonce_of(name, nonce) for name in names]
    assert len({nonce.encode(), *nonces}) == GRAINS + 1
    assert {len(each) for each in nonces} == {16}
    assert nonces == [nonce_of(name, nonce) for name in names]
    assert nonce_of(GENERATION, nonce) == nonce.encode()


@pytest.mark.parametrize(
    ("text", "counts", "unsure"),
    [
        (b"16", {16}, False),
        (b"16,3", {16, 3}, False),
        (b"16,?0123456789abcdef", {16}, True),
        (b"16,?0123456789abcdef,3", {16, 3}, True),
        (b"1", {1}, False),
        (b"what a stranger wrote", set(), True),
        (b"", set(), True),
        (b"0,99999,-1,1025", set(), True),
    ],
)
def test_what_a_registry_says(text: bytes, counts: set[int], unsure: bool) -> None:
    """Numbers are in use; anything else means that there may be others."""
    assert parse_registry(text, unsure=False) == (counts, unsure)


@pytest.mark.parametrize("wrong", [0, -1, GRAINS + 1, 2.0, "4", None, True])
def test_a_wrong_number_is_refused(wrong: object) -> None:
    """`generation_shards=` is a whole number that there are keys for, on every store."""
    with pytest.raises(ConfigurationError, match=r"generation_shards=.*from 1 to 1024"):
        Cache("memory://", generation_shards=wrong)  # type: ignore[arg-type]
