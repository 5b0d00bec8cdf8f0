"""Each method of the store as a flow of commands, written once for threads and event loops.

A method yields `Send(self.link, [Command, ...])`, which is one round trip (Cluster: one per node, side by side), and says
what the answers mean.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.exceptions import TryAgainError

from memover.engine import lease as leases
from memover.engine.steps import Send
from memover.engine.store import (
    TOKEN_MARGIN_MS,
    Granted,
    Renewal,
    Replicated,
    Request,
    Seen,
    SeenMany,
    StoredEntry,
    names_of,
)
from memover.keys.names import transient
from memover.keys.shards import (
    GRAINS,
    may_have_shards,
    nonce_of,
    registered,
    registry_key,
    shards,
    unsharded,
)
from memover.stores.redis import scripts
from memover.stores.redis.asking import Command, Commands, Large, call, margin, side_by_side
from memover.stores.redis.faults import translated
from memover.stores.redis.limits import LARGE_BYTES
from memover.stores.redis.resp import pack

if TYPE_CHECKING:
    from memover.engine.steps import Flow, Steps
    from memover.model import Key

__all__ = ["RedisCommands"]

logger = logging.getLogger("memover")

_FROM_ANYBODY, _UNLESS_CURRENT = b"1", b"0"
_SEEN_LIMIT = 10_000
"""Of so many namespaces at most it is remembered how many shards they have had."""
_MANY = 32
"""From here on the answer to a read of several entries counts as large."""


class RedisCommands(Commands):
    """`memover.engine.store.Store` but for its key-value side, by commands. `spread`: keys live on different nodes."""

    wait_replicas = 0
    replicas_ms = 0
    generation_shards = 1
    sweeps = False
    """Whether an invalidation looks for shards where none are registered."""
    _short_of_replicas = False
    _shards_seen: dict[bytes, frozenset[int]]
    """For each generation or soft mark, the numbers of shards that were registered when this process looked."""

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
        return Seen(names, answer, raw)

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
            [
                *(Command(name, (b"MGET", name)) for name in names),
                Command(key.entry, (b"MGET", key.entry, key.lease)),
            ]
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
        return self.storing(entry.key, entry.names, entry.token, entry.raw, entry.expire_ms)

    def storing(self, key: Key, names: Sequence[bytes], token: str, raw: bytes, expire_ms: int) -> Send[bool]:
        """The store of an entry on the server that has its key and those of `names`."""
        said = (token.encode(), raw, b"%d" % expire_ms, _kept_for(expire_ms))
        command = call(scripts.STORE, (key.lease, key.entry, *names), *said)
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

    # -- invalidations ----------------------------------------------------------------------------------------------------

    def bump(
        self, names: Sequence[bytes], nonce: str, floors: Sequence[int], along: Sequence[bytes]
    ) -> Flow[list[bytes]]:
        mine = nonce.encode()
        limits = {name: margin(name, 0) for name in (*names, *along)}
        if not self.spread:
            numbers = (*(b"%d" % floor for floor in floors), *(limits[name] for name in (*names, *along)))
            command = call(scripts.BUMP, (*names, *along), mine, b"%d" % len(names), *numbers)
            answer, *replicas = yield from self.asked(self._awaited(command), urgent=True)
            moved = self.tokens(answer if isinstance(answer, list) else [answer], len(names), "an invalidation", mine)
            return [self._replicated(token, replicas[0]) for token in moved] if replicas else moved
        nonces = [nonce_of(name, nonce) for name in names]
        calls = [
            call(scripts.BUMP, (name,), own, b"1", b"%d" % floor, limits[name])
            for name, floor, own in zip(names, floors, nonces)
        ]
        sharded = [name for name in names if may_have_shards(name)]
        questions = [Command(registry, (b"MGET", registry)) for registry in map(registry_key, sharded)]
        moved = []
        if self.wait_replicas:
            for command, own in zip(calls, nonces):
                answer, reached = yield from self.asked(self._awaited(command), urgent=True)
                (token,) = self.tokens(_list(answer), 1, "an invalidation", own)
                moved.append(self._replicated(token, reached))
            registries = (yield from self.asked(questions, urgent=True)) if questions else []
        else:
            answers = yield from self.asked([*calls, *questions], urgent=True)
            for answer, own in zip(answers, nonces):
                moved += self.tokens(_list(answer), 1, "an invalidation", own)
            registries = answers[len(calls) :]
        for name, answer in zip(sharded, registries):
            yield from self._move_others(name, self.values(answer, 1)[0], set(names), nonce)
        if along:
            answers = yield from self.asked(
                [call(scripts.MOVE, (name,), mine, limits[name]) for name in along], urgent=True
            )
            self.acknowledged(answers, "an invalidation")
        return moved

    def _move_others(self, name: bytes, registry: bytes | None, moved: set[bytes], nonce: str) -> Flow[None]:
        """Move the shards that processes of other settings read. `registry` was read after the invalidation began."""
        said = registered(registry, unsure=self.sweeps)
        seen = self._shards_seen.get(name, frozenset())
        if not said.counts <= seen and len(self._shards_seen) < _SEEN_LIMIT:
            self._shards_seen[name] = seen | said.counts
        known = {each for count in said.counts | seen for each in self.shards_of(name, count)}
        others, found = sorted(known - moved), list[bytes]()
        if said.unsure:
            unheard = [each for each in self.shards_of(name, GRAINS) if each not in moved and each not in known]
            looks = [Command(each, (b"MGET", each)) for each in unheard]
            answers = (yield from self.asked(looks, urgent=True)) if looks else []
            found = [each for each, answer in zip(unheard, answers) if self.values(answer, 1) != [None]]
            others += found
        if others:
            moves = [call(scripts.MOVE, (each,), nonce_of(each, nonce), b"0") for each in others]
            self.acknowledged((yield from self.asked(moves, urgent=True)), "an invalidation")
        if said.unsure and registry is not None:
            # Nothing but what is registered, or what was found is moved by everybody from now on.
            counts = sorted(said.counts | ({GRAINS} if found else set()))
            settled = b",".join(b"%d" % count for count in counts) or b"1"
            yield from self.asked([call(scripts.SETTLE, (registry_key(name),), registry, settled)], urgent=True)

    shards_of = staticmethod(shards)

    def drop(self, entry: bytes, lease: bytes, nonce: str, along: Sequence[bytes]) -> Flow[None]:
        mine = nonce.encode()
        moves = [call(scripts.MOVE, (name,), mine, margin(name, 0)) for name in along]
        if self.spread:
            # In this order: a load that reads the call token first and the entry second can then never pair the new
            # token with the old entry.
            removal: Send[list[Any]] = Send(
                self.link, self._awaited(Command(entry, (b"DEL", entry, lease))), urgent=True
            )
            answer, *replicas = yield from removal
            if isinstance(answer, TryAgainError):
                # Their slot is on its way to another node and only one of the two is there. One after the other, the
                # lease first: a load under way can then not store behind the removal of its entry.
                answers = yield from self.asked([Command(lease, (b"DEL", lease))], urgent=True)
                self.acknowledged(answers, "an invalidation")
                answer, *replicas = yield from self.asked(self._awaited(Command(entry, (b"DEL", entry))), urgent=True)
            self.acknowledged([answer], "an invalidation")
            # And one after the other: who gives up many tokens for the last of these reads it first, and then those many.
            for move in moves:
                self.acknowledged((yield from self.asked([move], urgent=True)), "an invalidation")
        else:
            limits = [margin(name, 0) for name in along]
            answer, *replicas = yield from self.asked(
                self._awaited(call(scripts.DROP, (entry, lease, *along), mine, *limits)), urgent=True
            )
            self.acknowledged([answer], "an invalidation")
        for reached in replicas:
            self._replicated(b"", reached)

    def _awaited(self, command: Command) -> list[Command]:
        # WAIT is about what its own connection has written, so it travels in the same batch. The script goes whole,
        # because one that is sent again after NOSCRIPT would come after the WAIT.
        if not self.wait_replicas:
            return [command]
        if command.script is not None:
            command = Command(command.route, (b"EVAL", command.script.text, *command.args))
        return [command, Command(command.route, (b"WAIT", b"%d" % self.wait_replicas, b"%d" % self.replicas_ms))]

    def _replicated(self, token: bytes, reached: Any) -> Replicated:
        if reached.__class__ is not int:
            if isinstance(reached, Exception):
                raise translated(reached, self.address) from None
            raise self.odd(reached, "WAIT")
        if reached < self.wait_replicas and not self._short_of_replicas:
            logger.warning(
                "an invalidation reached %d replicas in %d ms, not the %d asked for: a failover now may lose it",
                reached,
                self.replicas_ms,
                self.wait_replicas,
            )
        self._short_of_replicas = reached < self.wait_replicas
        replicated = Replicated(token)
        replicated.replicas = reached
        return replicated


def _bytes(value: Any) -> bytes | None:
    return value if isinstance(value, bytes) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _with(names: tuple[bytes, ...], required: int, ensured: Sequence[bytes]) -> tuple[bytes, ...]:
    """The names that a lease is asked for with, those first that have to be there."""
    return (*names[:required], *ensured, *names[required:]) if ensured else names


def _kept_for(expire_ms: int) -> bytes:
    """How long the tokens of an entry have to live, in milliseconds; -1: for ever."""
    return b"%d" % (expire_ms + TOKEN_MARGIN_MS) if expire_ms else b"-1"
