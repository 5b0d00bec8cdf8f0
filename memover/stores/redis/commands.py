"""Each method of the store as a flow of commands, written once for threads and event loops.

A method yields `Send(self.link, [Command, ...])`, which is one round trip (Cluster: one per node, side by side), and says
what the answers mean.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from memover.engine import lease as leases
from memover.engine.steps import Send
from memover.engine.store import TOKEN_MARGIN_MS, Granted, Renewal, Request, Seen, SeenMany, StoredEntry, names_of
from memover.keys.names import transient
from memover.keys.shards import registry_key, unsharded
from memover.stores.redis import scripts
from memover.stores.redis.asking import Command, Large, call, margin, side_by_side
from memover.stores.redis.failures import translated
from memover.stores.redis.invalidations import InvalidationCommands
from memover.stores.redis.limits import LARGE_BYTES
from memover.stores.redis.resp import pack

if TYPE_CHECKING:
    from memover.engine.steps import Flow, Steps
    from memover.model import Key

__all__ = ["RedisCommands"]

logger = logging.getLogger("memover")

_new = tuple.__new__
"""Makes a named tuple without a frame of its own."""
_FROM_ANYBODY, _UNLESS_CURRENT = b"1", b"0"
_MANY = 32
"""From here on the answer to a read of several entries counts as large."""


class RedisCommands(InvalidationCommands):
    """`memover.engine.store.Store` but for its key-value side, by commands. `spread`: keys live on different nodes."""

    generation_shards = 1

    # -- reading --------------------------------------------------------------------------------------------------------

    def read(self, key: Key) -> Send[Seen]:
        large = key.packed.__class__ is Large
        if not self.spread:
            command = Command(key.entry, (b"MGET", *key.names, key.entry), None, large)
            return Send(self.link, [command], lambda answers: self.seen(key, answers[0]))
        commands = [Command(name, (b"MGET", name)) for name in key.names]
        commands.append(Command(key.entry, (b"MGET", key.entry), None, large))
        return Send(self.link, commands, lambda answers: self._seen_apart(key, answers))

    def _seen_apart(self, key: Key, answers: list[Any]) -> Seen:
        *tokens, raw = [self.values(answer, 1)[0] for answer in self.checked(answers)]
        large = key.packed.__class__ is Large
        if (raw is not None and len(raw) > LARGE_BYTES) is not large:
            key.packed = None if large else Large()
        return Seen(key.names, tokens, raw)

    def packed(self, key: Key) -> bytes:
        """The read of a key, ready to be sent to the one server there is."""
        packed: bytes = pack((b"MGET", *key.names, key.entry))
        key.packed = packed
        return packed

    def seen(self, key: Key, answer: Any) -> Seen:
        """What the server answered to `packed`."""
        names = key.names
        if answer.__class__ is not list or len(answer) != len(names) + 1:
            if isinstance(answer, Exception):
                raise translated(answer, self.address) from None
            raise self.odd(answer, "MGET")
        raw = answer.pop()
        for token in answer:
            if token is not None and token.__class__ is not bytes:
                raise self.odd(token, "MGET")
        if raw is not None:
            if raw.__class__ is not bytes:
                raise self.odd(raw, "MGET")
            if (len(raw) > LARGE_BYTES) is not (key.packed.__class__ is Large):
                packed = key.packed or self.packed(key)
                key.packed = bytes(packed) if packed.__class__ is Large else Large(packed)
        return _new(Seen, (names, answer, raw, None))

    def read_plain(self, keys: Sequence[Key]) -> Flow[SeenMany]:
        names = names_of(keys)
        every = [*names, *[key.entry for key in keys]]
        if not self.spread:
            (answer,) = yield from self.asked([Command(keys[0].entry, (b"MGET", *every), None, len(keys) > _MANY)])
            found = self.values(answer, len(every))
        else:
            answers = yield from self.asked([Command(name, (b"MGET", name)) for name in every])
            found = [self.values(answer, 1)[0] for answer in answers]
        return names, found[: len(names)], found[len(names) :]

    def read_many(self, keys: Sequence[Key]) -> Flow[list[Seen]]:
        if not keys:
            return []
        if self.spread:
            return (yield from side_by_side([self.read(key) for key in keys]))
        places: dict[bytes, int] = {}
        for key in keys:
            for name in key.names:
                places.setdefault(name, len(places))
        (answer,) = yield from self.asked(
            [Command(keys[0].entry, (b"MGET", *places, *(key.entry for key in keys)), None, len(keys) > _MANY)]
        )
        found = self.values(answer, len(places) + len(keys))
        raws = iter(found[len(places) :])
        return [Seen(key.names, [found[places[name]] for name in key.names], next(raws)) for key in keys]

    def look(self, key: Key) -> Flow[Seen]:
        names = key.names
        if not self.spread:
            (answer,) = yield from self.asked([Command(key.entry, (b"MGET", *names, key.entry, key.lease))])
            *tokens, raw, lease = self.values(answer, len(names) + 2)
            return Seen(names, tokens, raw, lease)
        *rest, last = yield from self.asked(
            [*(Command(name, (b"MGET", name)) for name in names), Command(key.entry, (b"MGET", key.entry, key.lease))]
        )
        raw, lease = self.values(last, 2)
        return Seen(names, [self.values(answer, 1)[0] for answer in rest], raw, lease)

    # -- leases and tokens ------------------------------------------------------------------------------------------------

    def acquire(self, request: Request, *, force: bool = False) -> Steps[Granted]:
        mode = _FROM_ANYBODY if force else _UNLESS_CURRENT
        return self._acquire_apart(request, mode) if self.spread else self.asking(request, mode)

    def asking(self, request: Request, mode: bytes) -> Send[Granted]:
        """The request for a lease on a server that has all of its keys."""
        key, token, lease_ms, ensured, floors = request
        mine, ms = token.encode(), b"%d" % lease_ms
        required, names = key.required, key.names
        if len(names) == 1 and not ensured:  # the generation alone, which lives for ever
            args = (b"3", key.lease, key.entry, names[0], mine, ms, mode, b"1", b"1", b"%d" % floors[0], b"0")
            return Send(self.link, [Command(key.lease, args, scripts.ACQUIRE)], partial(self._acquired, names, 1))
        names = _with(names, required, ensured)
        numbers = [b"%d" % number for number in (required, len(floors), *floors)]
        limits = [margin(name, lease_ms) for name in names[: len(floors)]]
        command = call(scripts.ACQUIRE, (key.lease, key.entry, *names), mine, ms, mode, *numbers, *limits)
        return Send(self.link, [command], partial(self._acquired, names, required))

    def _acquired(self, names: tuple[bytes, ...], required: int, answers: list[Any]) -> Granted:
        (answer,) = answers
        if answer.__class__ is not list or not 3 <= len(answer) <= len(names) + 3:
            self.checked(answers)
            raise self.odd(answer, "a request for a lease")
        ours, held, raw, *found = answer
        if len(found) < len(names):
            found += [None] * (len(names) - len(found))  # Lua's arrays end at the last value
        for token in found:
            if token is not None and token.__class__ is not bytes:
                raise self.odd(token, "a request for a lease")
        return self._granted(ours, held, Seen(names, found, raw if raw.__class__ is bytes else None), required)

    def _acquire_apart(self, request: Request, mode: bytes) -> Flow[Granted]:
        # Tokens and lease are on different nodes, so of different moments. The tokens are read first: a lease is then
        # never taken under tokens older than those the load will be stamped with, and taking it from a holder whose
        # tokens differ from what has just been read can at worst cost that holder its store, never a wrong answer.
        key, token, lease_ms, ensured, floors = request
        mine, ms, count = token.encode(), b"%d" % lease_ms, len(floors)
        names = _with(key.names, key.required, ensured)
        put_back = [
            call(scripts.TOKEN, (name,), mine, b"%d" % floor, margin(name, lease_ms))
            for name, floor in zip(names, floors)
        ]
        rest = [Command(name, (b"MGET", name)) for name in names[count:]]
        answers = yield from self.asked([*put_back, *rest])
        tokens: list[bytes | None] = [*self.tokens(answers[:count], count, "a question for tokens")]
        tokens += [self.values(answer, 1)[0] for answer in answers[count:]]
        under = leases.stamp(tokens[: key.required])
        # After the tokens and before the load: see `keys.shards`.
        register = self._registering(names[:1], mine)
        answer, *_ = yield from self.asked(
            [call(scripts.LEASE, (key.lease, key.entry), mine, ms, mode, under), *register]
        )
        if not isinstance(answer, list) or len(answer) > 3 or not answer:
            raise self.odd(answer, "a request for a lease")
        ours, held, raw = (*answer, None, None)[:3]
        return self._granted(ours, held, Seen(names, tokens, _bytes(raw)), key.required)

    def _granted(self, ours: Any, held: Any, seen: Seen, required: int) -> Granted:
        if ours not in (0, 1):
            raise self.odd(ours, "a request for a lease")
        holder = "" if ours else leases.holder_of(_bytes(held), leases.stamp(seen.tokens[:required]))
        return Granted(ours == 1, holder, seen)

    def acquire_many(self, requests: Sequence[Request]) -> Flow[list[Granted]]:
        return (yield from side_by_side([self.acquire(request) for request in requests]))

    def ensure(self, names: Sequence[bytes], floors: Sequence[int], nonce: str) -> Flow[list[bytes]]:
        mine = nonce.encode()
        answers = yield from self.asked(
            [call(scripts.TOKEN, (name,), mine, b"%d" % floor, margin(name, 0)) for name, floor in zip(names, floors)]
        )
        tokens = self.tokens(answers, len(names), "a question for tokens")
        if register := self._registering(names, mine):
            yield from self.asked(register)
        return tokens

    def _registering(self, names: Sequence[bytes], nonce: bytes) -> list[Command]:
        """What says of how many shards these are."""
        if self.generation_shards == 1:
            return []
        registries = dict.fromkeys(registry_key(name) for name in names if unsharded(name) != name)
        return [call(scripts.REGISTER, (each,), b"%d" % self.generation_shards, nonce) for each in registries]

    def store(self, entry: StoredEntry) -> Steps[bool]:
        if self.spread and entry.names:
            return self._store_apart(entry)
        key, raw, limit = entry.key, entry.raw, entry.expire_ms
        said = (entry.token.encode(), raw, b"%d" % limit, _kept_for(limit))
        command = call(scripts.STORE, (key.lease, key.entry, *entry.names), *said)
        return Send(self.link, [command], partial(self._stored, key, len(raw)))

    def _store_apart(self, entry: StoredEntry) -> Flow[bool]:
        # The tokens before the entry: it must not outlive them.
        keep = _kept_for(entry.expire_ms)
        yield from self.asked([call(scripts.KEEP, (name,), keep) for name in entry.names])
        return (yield from self.store(entry._replace(names=())))

    def _stored(self, key: Key, size: int, answers: list[Any]) -> bool:
        (answer,) = answers
        if answer.__class__ is not int:
            self.checked(answers)
        if size > LARGE_BYTES and answer == 1 and key.packed.__class__ is not Large:
            key.packed = None if key.packed is None else Large(key.packed)
        return bool(answer == 1)

    def store_many(self, entries: Sequence[StoredEntry]) -> Flow[list[bool]]:
        return (yield from side_by_side([self.store(entry) for entry in entries]))

    def release(self, key: Key, token: str, failed: bool) -> Flow[None]:
        mark = b"%d" % (leases.FAILED_MS if failed else 0)
        yield from self.asked([call(scripts.RELEASE, (key.lease,), token.encode(), mark)])

    def release_many(self, held: Sequence[tuple[Key, str]]) -> Flow[None]:
        yield from self.asked([call(scripts.RELEASE, (key.lease,), token.encode(), b"0") for key, token in held])

    def renew(self, renewals: Sequence[Renewal]) -> Flow[list[bool]]:
        kept: dict[bytes, int] = {}
        commands = []
        for key, token, lease_ms, every in renewals:
            names = tuple(name for name in every if transient(name))
            if self.spread:
                kept.update((name, max(lease_ms, kept.get(name, 0))) for name in names)
                names = ()
            said = (token.encode(), b"%d" % lease_ms, b"%d" % (lease_ms + TOKEN_MARGIN_MS))
            commands.append(call(scripts.RENEW, (key.lease, *names), *said))
        keeps = [call(scripts.KEEP, (name,), margin(name, lease_ms)) for name, lease_ms in kept.items()]
        answers = yield from self.asked([*keeps, *commands])
        return [answer == 1 for answer in answers[len(keeps) :]]


def _bytes(value: Any) -> bytes | None:
    return value if isinstance(value, bytes) else None


def _with(names: tuple[bytes, ...], required: int, ensured: Sequence[bytes]) -> tuple[bytes, ...]:
    """The names that a lease is asked for with, those first that have to be there."""
    return (*names[:required], *ensured, *names[required:]) if ensured else names


def _kept_for(expire_ms: int) -> bytes:
    """How long the tokens of an entry have to live, in milliseconds; -1: for ever."""
    return b"%d" % (expire_ms + TOKEN_MARGIN_MS) if expire_ms else b"-1"
