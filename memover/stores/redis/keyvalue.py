"""The key-value side of the Redis store: each method as a generator of command batches, and its two thin shells."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, TypeVar

from memover.codec.envelope import read_header, rewritten
from memover.errors import StoreUnavailable
from memover.stores.keyvalue import Change, Parcel, Stamp
from memover.stores.redis import keyvalue_scripts as scripts
from memover.stores.redis.commands import Command, Exchange, _call
from memover.stores.redis.scripts import TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.model import Key
    from memover.stores.redis.scripts import Script

__all__ = ["AsyncRedisKeyValues", "RedisKeyValues"]

T = TypeVar("T")

_ATTEMPTS = 10
"""How often a generation may move while one write is under way, before it is given up."""


class KeyValueCommands:
    """What to send, and what the answers mean; `spread` as in `RedisCommands`."""

    spread: bool

    def putting(self, parcels: Sequence[Parcel], stamp: Stamp) -> Exchange[bytes]:
        said = [(parcel.key, (parcel.raw, b"%d" % parcel.expire_ms)) for parcel in parcels]
        answers = yield from self._under(scripts.PUT, said, stamp)
        generation: bytes = answers[0][1]
        return generation

    def adding(self, parcel: Parcel, stamp: Stamp, now: float) -> Exchange[Change]:
        said = (parcel.raw, b"%d" % parcel.expire_ms, _number(now))
        return (yield from self._changing(scripts.ADD, parcel.key, said, stamp))

    def incrementing(self, key: Key, delta: int, stamp: Stamp, now: float) -> Exchange[Change]:
        (answer,) = yield from self._under(scripts.INCREMENT, [(key, (b"%d" % delta, _number(now)))], stamp)
        if answer[0] == scripts.DONE:
            return Change(True, answer[1], int(answer[2]))
        return Change(False, answer[1], False if answer[0] == scripts.NO_INTEGER else None)

    def touching(self, parcel: Parcel, fresh_until: float, stamp: Stamp, now: float) -> Exchange[Change]:
        said = (struct.pack("<d", fresh_until), b"%d" % parcel.expire_ms, _number(now))
        return (yield from self._changing(scripts.TOUCH, parcel.key, said, stamp))

    def moving(self, key: Key, to: Key, stamp: Stamp, now: float) -> Exchange[Change]:
        if self.spread:
            return (yield from self._moving_apart(key, to, stamp, now))
        keys = (key.entry, key.lease, to.entry, to.lease, stamp.name)
        (answer,) = yield [_call(scripts.MOVE, keys, *_stamped(stamp, stamp.known), _number(now))]
        return Change(answer[0] == scripts.DONE, answer[1])

    def _moving_apart(self, key: Key, to: Key, stamp: Stamp, now: float) -> Exchange[Change]:
        # The two keys are on different nodes, so no one step can hold both. The entry is taken first and laid down
        # second: one mover wins, and nobody ever finds it under both keys. What is given up is the moment between, when
        # it is under neither: a miss, which a cache may answer at any time, for good should this process die there.
        (answer,) = yield from self._under(scripts.TAKE, [(key, (_number(now),))], stamp)
        if answer[0] != scripts.DONE:
            return Change(False, answer[1])
        _, generation, raw, left = answer
        moved = rewritten(raw, read_header(raw, key.entry), key=to.entry)
        parcel = Parcel(to, moved, max(left, 0), None)
        return Change(True, (yield from self.putting([parcel], stamp._replace(known=generation))))

    def swapping(self, key: Key, old: bytes, new: bytes) -> Exchange[bool]:
        (answer,) = yield [_call(scripts.SWAP, (key.entry,), old, new)]
        return bool(answer == 1)

    def removing(self, key: Key) -> Exchange[tuple[bytes | None, bytes | None]]:
        name = key.names[0]
        tokens, head = yield [Command(name, (b"MGET", name)), _call(scripts.REMOVE, (key.entry, key.lease))]
        return tokens[0], head or None

    def removing_many(self, keys: Sequence[Key]) -> Exchange[None]:
        if self.spread:
            yield [Command(key.entry, (b"DEL", key.entry, key.lease)) for key in keys]
        else:
            names = [name for key in keys for name in (key.entry, key.lease)]
            yield [Command(names[0], (b"DEL", *names))]

    # -- inside -----------------------------------------------------------------------------------------------------------

    def _changing(self, script: Script, key: Key, said: tuple[bytes, ...], stamp: Stamp) -> Exchange[Change]:
        (answer,) = yield from self._under(script, [(key, said)], stamp)
        return Change(answer[0] == scripts.DONE, answer[1])

    def _under(
        self, script: Script, said: Sequence[tuple[Key, tuple[bytes, ...]]], stamp: Stamp
    ) -> Exchange[list[list[Any]]]:
        """Call a script on all keys at once, or, in Cluster, on each; under one generation, current at some moment of it."""
        if not self.spread:
            keys = [name for key, _ in said for name in (key.entry, key.lease)]
            words = [word for _, words in said for word in words]
            (answer,) = yield [_call(script, (*keys, stamp.name), *_stamped(stamp, stamp.known), *words)]
            return [answer]
        # What is done under a generation that was current at some moment of this call was done before whatever ended it.
        # So what the caller knew is checked by the answer that comes along, and what was read here need not be.
        known, floor = stamp.known, stamp.floor
        checked = not known
        if checked:
            (known,) = yield [_token(stamp, floor)]
        for _ in range(_ATTEMPTS):
            calls = [_call(script, (key.entry, key.lease), *_stamped(stamp, known), *words) for key, words in said]
            current, *answers = yield [_token(stamp, floor), *calls]
            beyond = [int(answer[2]) for answer in answers if answer[0] == scripts.OUTDATED]
            if not beyond and (checked or current == known):
                return answers
            if beyond:
                # An entry of a later generation: one that has come since, or one that its own key has lost, which is
                # then put back beyond it.
                floor = max(floor, *beyond)
                (current,) = yield [_token(stamp, floor)]
            known, checked = current, True
        raise StoreUnavailable(
            "the generation of the key-value entries moves all the time: who calls clear() in a loop?"
        )


def _token(stamp: Stamp, floor: int) -> Command:
    return _call(TOKEN, (stamp.name,), stamp.nonce.encode(), b"%d" % floor)


def _stamped(stamp: Stamp, known: bytes) -> tuple[bytes, bytes, bytes]:
    return stamp.nonce.encode(), b"%d" % stamp.floor, known


def _number(now: float) -> bytes:
    return repr(now).encode()


class RedisKeyValues(KeyValueCommands):
    """What `RedisStore` inherits; see `memover.stores.keyvalue.KeyValueStore`."""

    _run: Callable[..., Any]

    def put(self, parcels: Sequence[Parcel], stamp: Stamp) -> bytes:
        generation: bytes = self._run(self.putting(parcels, stamp))
        return generation

    def add(self, parcel: Parcel, stamp: Stamp, now: float) -> Change:
        change: Change = self._run(self.adding(parcel, stamp, now), once=True)
        return change

    def increment(self, key: Key, delta: int, stamp: Stamp, now: float) -> Change:
        change: Change = self._run(self.incrementing(key, delta, stamp, now), once=True)
        return change

    def swap(self, key: Key, old: bytes, new: bytes) -> bool:
        return bool(self._run(self.swapping(key, old, new), once=True))

    def touch(self, parcel: Parcel, fresh_until: float, stamp: Stamp, now: float) -> Change:
        change: Change = self._run(self.touching(parcel, fresh_until, stamp, now))
        return change

    def move(self, key: Key, to: Key, stamp: Stamp, now: float) -> Change:
        change: Change = self._run(self.moving(key, to, stamp, now), once=True)
        return change

    def remove(self, key: Key) -> tuple[bytes | None, bytes | None]:
        removed: tuple[bytes | None, bytes | None] = self._run(self.removing(key), urgent=True)
        return removed

    def remove_many(self, keys: Sequence[Key]) -> None:
        self._run(self.removing_many(keys), urgent=True)


class AsyncRedisKeyValues(KeyValueCommands):
    """What `AsyncRedisStore` inherits; see `memover.stores.keyvalue.AsyncKeyValueStore`."""

    _run: Callable[..., Any]

    async def put(self, parcels: Sequence[Parcel], stamp: Stamp) -> bytes:
        generation: bytes = await self._run(self.putting(parcels, stamp))
        return generation

    async def add(self, parcel: Parcel, stamp: Stamp, now: float) -> Change:
        change: Change = await self._run(self.adding(parcel, stamp, now), once=True)
        return change

    async def increment(self, key: Key, delta: int, stamp: Stamp, now: float) -> Change:
        change: Change = await self._run(self.incrementing(key, delta, stamp, now), once=True)
        return change

    async def swap(self, key: Key, old: bytes, new: bytes) -> bool:
        return bool(await self._run(self.swapping(key, old, new), once=True))

    async def touch(self, parcel: Parcel, fresh_until: float, stamp: Stamp, now: float) -> Change:
        change: Change = await self._run(self.touching(parcel, fresh_until, stamp, now))
        return change

    async def move(self, key: Key, to: Key, stamp: Stamp, now: float) -> Change:
        change: Change = await self._run(self.moving(key, to, stamp, now), once=True)
        return change

    async def remove(self, key: Key) -> tuple[bytes | None, bytes | None]:
        removed: tuple[bytes | None, bytes | None] = await self._run(self.removing(key), urgent=True)
        return removed

    async def remove_many(self, keys: Sequence[Key]) -> None:
        await self._run(self.removing_many(keys), urgent=True)
