"""The key-value side of the Redis store: each method as a flow of commands."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from memover.codec.envelope import read_header, rewritten
from memover.engine.store import Change, Parcel, Stamp
from memover.errors import StoreUnavailable
from memover.stores.redis import keyvalue_scripts as scripts
from memover.stores.redis.asking import Command, Commands, call
from memover.stores.redis.scripts import TOKEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.engine.steps import Flow
    from memover.model import Key
    from memover.stores.redis.scripts import Script

__all__ = ["KeyValueCommands"]

_ATTEMPTS = 10
"""How often a generation may move while one write is under way, before it is given up."""


class KeyValueCommands(Commands):
    """`memover.engine.store.KeyValueStore`, by commands."""

    def put(self, parcels: Sequence[Parcel], stamp: Stamp, *, once: bool = False) -> Flow[bytes]:
        said = [(parcel.key, (parcel.raw, b"%d" % parcel.expire_ms)) for parcel in parcels]
        answers = yield from self._under(scripts.PUT, said, stamp, once)
        generation: bytes = answers[0][1]
        return generation

    def add(self, parcel: Parcel, stamp: Stamp, now: float) -> Flow[Change]:
        said = (parcel.raw, b"%d" % parcel.expire_ms, _number(now))
        return (yield from self._changing(scripts.ADD, parcel.key, said, stamp, once=True))

    def increment(self, key: Key, delta: int, stamp: Stamp, now: float) -> Flow[Change]:
        (answer,) = yield from self._under(scripts.INCREMENT, [(key, (b"%d" % delta, _number(now)))], stamp, True)
        if answer[0] != scripts.DONE:
            return Change(False, answer[1], False if answer[0] == scripts.NO_INTEGER else None)
        digits = answer[2] if len(answer) > 2 else b""
        if not isinstance(digits, bytes) or not digits.removeprefix(b"-").isdigit():
            raise self.odd(answer, "an increment")
        return Change(True, answer[1], int(digits))

    def touch(self, parcel: Parcel, fresh_until: float, stamp: Stamp, now: float) -> Flow[Change]:
        said = (struct.pack("<d", fresh_until), b"%d" % parcel.expire_ms, _number(now))
        return (yield from self._changing(scripts.TOUCH, parcel.key, said, stamp))

    def move(self, key: Key, to: Key, stamp: Stamp, now: float) -> Flow[Change]:
        if self.spread:
            return (yield from self._move_apart(key, to, stamp, now))
        keys = (key.entry, key.lease, to.entry, to.lease, stamp.name)
        command = call(scripts.MOVE, keys, *_stamped(stamp, stamp.known), _number(now))
        (answer,) = yield from self.asked([command], once=True)
        answer = self._came(answer)
        return Change(answer[0] == scripts.DONE, answer[1])

    def _move_apart(self, key: Key, to: Key, stamp: Stamp, now: float) -> Flow[Change]:
        # The two keys are on different nodes, so no one step can hold both. The entry is taken first and laid down
        # second: one mover wins, and nobody ever finds it under both keys. What is given up is the moment between, when
        # it is under neither: a miss, which a cache may answer at any time, for good should this process die there.
        (answer,) = yield from self._under(scripts.TAKE, [(key, (_number(now),))], stamp, True)
        if answer[0] != scripts.DONE:
            return Change(False, answer[1])
        if len(answer) != 4 or not isinstance(answer[2], bytes) or not isinstance(answer[3], int):
            raise self.odd(answer, "a question for an entry")
        _, generation, raw, left = answer
        moved = rewritten(raw, read_header(raw, key.entry), key=to.entry)
        parcel = Parcel(to, moved, max(left, 0), None)
        return Change(True, (yield from self.put([parcel], stamp._replace(known=generation), once=True)))

    def swap(self, key: Key, old: bytes, new: bytes) -> Flow[bool]:
        (answer,) = yield from self.asked([call(scripts.SWAP, (key.entry,), old, new)], once=True)
        return bool(answer == 1)

    def remove(self, key: Key) -> Flow[tuple[bytes | None, bytes | None]]:
        name = key.names[0]
        tokens, head = yield from self.asked(
            [Command(name, (b"MGET", name)), call(scripts.REMOVE, (key.entry, key.lease))], urgent=True
        )
        if head is not None and not isinstance(head, (bytes, int)):
            raise self.odd(head, "a removal")
        return self.values(tokens, 1)[0], head if isinstance(head, bytes) and head else None

    def remove_many(self, keys: Sequence[Key]) -> Flow[None]:
        if self.spread:
            commands = [Command(key.entry, (b"DEL", key.entry, key.lease)) for key in keys]
        else:
            names = [name for key in keys for name in (key.entry, key.lease)]
            commands = [Command(names[0], (b"DEL", *names))] if names else []
        if not commands:
            return
        self.acknowledged((yield from self.asked(commands, urgent=True)), "a removal")

    def _changing(
        self, script: Script, key: Key, said: tuple[bytes, ...], stamp: Stamp, once: bool = False
    ) -> Flow[Change]:
        (answer,) = yield from self._under(script, [(key, said)], stamp, once)
        return Change(answer[0] == scripts.DONE, answer[1])

    def _under(
        self, script: Script, said: Sequence[tuple[Key, tuple[bytes, ...]]], stamp: Stamp, once: bool = False
    ) -> Flow[list[list[Any]]]:
        """Calls a script on all keys at once, or, in Cluster, on each; under one generation, current at some moment of it."""
        if not self.spread:
            keys = [name for key, _ in said for name in (key.entry, key.lease)]
            words = [word for _, words in said for word in words]
            command = call(script, (*keys, stamp.name), *_stamped(stamp, stamp.known), *words)
            (answer,) = yield from self.asked([command], once=once)
            return [self._came(answer)]
        # What is done under a generation that was current at some moment of this call was done before whatever ended it.
        # So what the caller knew is checked by the answer that comes along, and what was read here need not be.
        known, floor = stamp.known, stamp.floor
        checked = not known
        if checked:
            known = yield from self._current(stamp, floor, once)
        for _ in range(_ATTEMPTS):
            calls = [call(script, (key.entry, key.lease), *_stamped(stamp, known), *words) for key, words in said]
            token, *found = yield from self.asked([_token(stamp, floor), *calls], once=once)
            (current,) = self.tokens([token], 1, "a question for the generation")
            answers = [self._came(answer) for answer in found]
            beyond = [self._number(answer) for answer in answers if answer[0] == scripts.OUTDATED]
            if not beyond and (checked or current == known):
                return answers
            if beyond:
                # An entry of a later generation: one that has come since, or one that its own key has lost, which is
                # then put back beyond it.
                floor = max(floor, *beyond)
                current = yield from self._current(stamp, floor, once)
            known, checked = current, True
        raise StoreUnavailable(
            "The generation of the key-value entries moves all the time: does anything call clear() in a loop?",
            store=self.address,
        )

    def _current(self, stamp: Stamp, floor: int, once: bool) -> Flow[bytes]:
        answers = yield from self.asked([_token(stamp, floor)], once=once)
        return self.tokens(answers, 1, "a question for the generation")[0]

    def _came(self, answer: Any) -> list[Any]:
        if isinstance(answer, list) and len(answer) > 1 and isinstance(answer[0], int) and isinstance(answer[1], bytes):
            return answer
        raise self.odd(answer, "a key-value command")

    def _number(self, answer: list[Any]) -> int:
        if len(answer) > 2 and isinstance(answer[2], bytes) and answer[2].isdigit():
            return int(answer[2])
        raise self.odd(answer, "a key-value command")


def _token(stamp: Stamp, floor: int) -> Command:
    return call(TOKEN, (stamp.name,), stamp.nonce.encode(), b"%d" % floor, b"0")


def _stamped(stamp: Stamp, known: bytes) -> tuple[bytes, bytes, bytes]:
    return stamp.nonce.encode(), b"%d" % stamp.floor, known


def _number(now: float) -> bytes:
    return repr(now).encode()
