"""Each method of the store as a generator of command batches, written once for threads and coroutines.

A batch is a list of `Command`; the runner sends it in one round trip (Cluster: one per node, side by side) and sends
the list of answers back in. An answer that is an error is raised by the runner as `StoreUnavailable`.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from redis.exceptions import NoScriptError, TryAgainError

from memover.errors import StoreUnavailable
from memover.engine import lease as leases
from memover.engine.store import Granted, Replicated, Seen, SeenMany
from memover.stores.redis import scripts

if TYPE_CHECKING:
    from memover.model import Key
    from memover.stores.redis.scripts import Script

__all__ = ["Command", "Exchange", "RedisCommands", "Wire", "scripted", "side_by_side"]

T = TypeVar("T")

logger = logging.getLogger("memover")

_FREE_ONLY, _FROM_ANYBODY, _UNLESS_CURRENT = b"2", b"1", b"0"


class Command(NamedTuple):
    """One command: `route` is the key whose node answers it; `script` marks an EVALSHA that may have to be an EVAL."""

    route: bytes
    args: tuple[bytes, ...]
    script: Script | None = None


Exchange = Generator[list[Command], list[Any], T]


def _call(script: Script, keys: Sequence[bytes], *args: bytes) -> Command:
    return Command(keys[0], (b"%d" % len(keys), *keys, *args), script)


def _bytes(value: Any) -> bytes | None:
    return value if isinstance(value, bytes) else None


class RedisCommands:
    """What to send, and what the answers mean. `spread` is true where keys live on different nodes."""

    spread = False
    wait_replicas = 0
    replicas_ms = 0
    _short_of_replicas = False

    def reading(self, key: Key) -> Exchange[Seen]:
        names = key.names
        if not self.spread:
            (answer,) = yield [Command(key.entry, (b"MGET", *names, key.entry))]
            return Seen(names, answer[:-1], answer[-1])
        answers = yield [Command(name, (b"MGET", name)) for name in (*names, key.entry)]
        return Seen(names, [answer[0] for answer in answers[:-1]], answers[-1][0])

    def reading_plain(self, keys: Sequence[Key]) -> Exchange[SeenMany]:
        names = keys[0].names
        if not self.spread:
            (answer,) = yield [Command(keys[0].entry, (b"MGET", *names, *[key.entry for key in keys]))]
            return names, answer[:1], answer[1:]
        tokens, *raws = yield [Command(name, (b"MGET", name)) for name in (*names, *(key.entry for key in keys))]
        return names, tokens, [raw[0] for raw in raws]

    def reading_many(self, keys: Sequence[Key]) -> Exchange[list[Seen]]:
        if self.spread:
            return (yield from side_by_side([self.reading(key) for key in keys]))
        places: dict[bytes, int] = {}
        for key in keys:
            for name in key.names:
                places.setdefault(name, len(places))
        (answer,) = yield [Command(keys[0].entry, (b"MGET", *places, *(key.entry for key in keys)))]
        raws = iter(answer[len(places) :])
        return [Seen(key.names, [answer[places[name]] for name in key.names], next(raws)) for key in keys]

    def looking(self, key: Key) -> Exchange[Seen]:
        names = key.names
        if not self.spread:
            (answer,) = yield [Command(key.entry, (b"MGET", *names, key.entry, key.lease))]
            return Seen(names, answer[:-2], answer[-2], answer[-1])
        answers = yield [
            *(Command(name, (b"MGET", name)) for name in names),
            Command(key.entry, (b"MGET", key.entry, key.lease)),
        ]
        return Seen(names, [answer[0] for answer in answers[:-1]], *answers[-1])

    def acquiring(
        self, key: Key, token: str, lease_ms: int, ensured: Sequence[bytes], floors: Sequence[int], force: bool
    ) -> Exchange[Granted]:
        mine, ms = token.encode(), b"%d" % lease_ms
        mode = _FROM_ANYBODY if force else _UNLESS_CURRENT
        required = key.required
        names = (*key.names[:required], *ensured, *key.names[required:])
        if self.spread:
            return (yield from self._acquiring_apart(key, names, mine, ms, floors, mode))
        counts = (b"%d" % required, b"%d" % len(floors), *(b"%d" % floor for floor in floors))
        (answer,) = yield [_call(scripts.ACQUIRE, (key.lease, key.entry, *names), mine, ms, mode, *counts)]
        ours, held, raw, *tokens = answer
        return _granted(ours == 1, _bytes(held), Seen(names, tokens, _bytes(raw)), required)

    def _acquiring_apart(
        self, key: Key, names: tuple[bytes, ...], mine: bytes, ms: bytes, floors: Sequence[int], mode: bytes
    ) -> Exchange[Granted]:
        # Tokens and lease are on different nodes, so of different moments. The tokens are read first: a lease is then
        # never taken under tokens older than those the load will be stamped with, and taking it from a holder whose
        # tokens differ from what has just been read can at worst cost that holder its store, never a wrong answer.
        put_back = [_call(scripts.TOKEN, (name,), mine, b"%d" % floor) for name, floor in zip(names, floors)]
        rest = [Command(name, (b"MGET", name)) for name in names[len(floors) :]]
        answers = yield [*put_back, *rest]
        tokens = [*answers[: len(put_back)], *(answer[0] for answer in answers[len(put_back) :])]
        under = leases.stamp(tokens[: key.required])
        (answer,) = yield [_call(scripts.LEASE, (key.lease, key.entry), mine, ms, mode, under)]
        ours, held, raw = answer
        return _granted(ours == 1, _bytes(held), Seen(names, tokens, _bytes(raw)), key.required)

    def ensuring(self, names: Sequence[bytes], floors: Sequence[int], nonce: str) -> Exchange[list[bytes]]:
        mine = nonce.encode()
        return (yield [_call(scripts.TOKEN, (name,), mine, b"%d" % floor) for name, floor in zip(names, floors)])

    def storing(self, key: Key, token: str, raw: bytes, expire_ms: int) -> Exchange[bool]:
        (answer,) = yield [_call(scripts.STORE, (key.lease, key.entry), token.encode(), raw, b"%d" % expire_ms)]
        return bool(answer == 1)

    def releasing(self, key: Key, token: str, failed: bool) -> Exchange[None]:
        yield [_call(scripts.RELEASE, (key.lease,), token.encode(), b"%d" % (leases.FAILED_MS if failed else 0))]

    def renewing(self, key: Key, token: str, lease_ms: int) -> Exchange[bool]:
        (answer,) = yield [_call(scripts.RENEW, (key.lease,), token.encode(), b"%d" % lease_ms)]
        return bool(answer == 1)

    def bumping(
        self, names: Sequence[bytes], nonce: str, floors: Sequence[int], along: Sequence[bytes]
    ) -> Exchange[list[bytes]]:
        mine = nonce.encode()
        if self.spread:
            calls = [_call(scripts.BUMP, (name,), mine, b"1", b"%d" % floor) for name, floor in zip(names, floors)]
            moved: list[Any] = []
            if self.wait_replicas:
                for call in calls:
                    answer, replicas = yield self._awaited(call)
                    moved.append(self._replicated(answer[0], replicas))
            else:
                moved += [answer[0] for answer in (yield calls)]
            yield [_call(scripts.MOVE, (name,), mine) for name in along]
        else:
            call = _call(scripts.BUMP, (*names, *along), mine, b"%d" % len(names), *(b"%d" % floor for floor in floors))
            moved, *replicas = yield self._awaited(call)
            if replicas:
                moved = [self._replicated(token, replicas[0]) for token in moved]
        if not all(isinstance(token, bytes) for token in moved):
            raise StoreUnavailable(f"the server answered a bump of {names!r} with {moved!r}; is it a Redis?")
        return list(moved)

    def dropping(self, entry: bytes, lease: bytes, nonce: str, along: Sequence[bytes]) -> Exchange[None]:
        mine = nonce.encode()
        if self.spread:
            # In this order: a load that reads the call token first and the entry second can then never pair the new
            # token with the old entry.
            try:
                _, *replicas = yield self._awaited(Command(entry, (b"DEL", entry, lease)))
            except TryAgainError:
                # Their slot is on its way to another node and only one of the two is there. One after the other, the
                # lease first: a load under way can then not store behind the removal of its entry.
                yield [Command(lease, (b"DEL", lease))]
                _, *replicas = yield self._awaited(Command(entry, (b"DEL", entry)))
            # And one after the other: who gives up many tokens for the last of these reads it first, and then those many.
            for name in along:
                yield [_call(scripts.MOVE, (name,), mine)]
        else:
            _, *replicas = yield self._awaited(_call(scripts.DROP, (entry, lease, *along), mine))
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

    def _replicated(self, token: Any, reached: int) -> Any:
        if reached < self.wait_replicas and not self._short_of_replicas:
            logger.warning(
                "an invalidation reached %d replicas in %d ms, not the %d asked for: a failover now may lose it",
                reached,
                self.replicas_ms,
                self.wait_replicas,
            )
        self._short_of_replicas = reached < self.wait_replicas
        if not isinstance(token, bytes):
            return token
        replicated = Replicated(token)
        replicated.replicas = reached
        return replicated


def side_by_side(exchanges: Sequence[Exchange[T]]) -> Exchange[list[T]]:
    """Run exchanges in step, all their commands of one step in one batch."""
    results: dict[int, T] = {}
    waiting = {at: (exchange, next(exchange)) for at, exchange in enumerate(exchanges)}
    while waiting:
        answers = iter((yield [command for _, batch in waiting.values() for command in batch]))
        following = {}
        for at, (exchange, batch) in waiting.items():
            try:
                following[at] = (exchange, exchange.send([next(answers) for _ in batch]))
            except StopIteration as stop:
                results[at] = stop.value
        waiting = following
    return [results[at] for at in range(len(exchanges))]


def _granted(ours: bool, held: bytes | None, seen: Seen, required: int) -> Granted:
    return Granted(ours, "" if ours else leases.holder_of(held, leases.stamp(seen.tokens[:required])), seen)


Wire = Generator[list[tuple[bytes, tuple[bytes, ...]]], list[Any], T]
"""A generator of plain commands, each with the key it is routed by; errors come back as answers, not raised."""


def scripted(exchange: Exchange[T], known: set[bytes]) -> Wire[T]:
    """Turn script calls into EVALSHA or EVAL, and the server's errors into exceptions of the runner.

    `known` are the scripts this process has sent whole before; a server that has forgotten one says NOSCRIPT and has
    not done anything, so sending it again whole is safe.
    """
    batch = next(exchange)
    while True:
        answers = yield [(command.route, _arguments(command, known)) for command in batch]
        forgotten = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if forgotten:
            for at in forgotten:
                script = batch[at].script
                assert script is not None, "only script calls are answered NOSCRIPT"
                known.discard(script.sha)
            again = yield [(batch[at].route, _arguments(batch[at], known)) for at in forgotten]
            for at, answer in zip(forgotten, again):
                answers[at] = answer
        failure = next((answer for answer in answers if isinstance(answer, Exception)), None)
        try:
            batch = exchange.send(answers) if failure is None else exchange.throw(failure)
        except StopIteration as stop:
            result: T = stop.value
            return result


def _arguments(command: Command, known: set[bytes]) -> tuple[bytes, ...]:
    script = command.script
    if script is None:
        return command.args
    if script.sha in known:
        return (b"EVALSHA", script.sha, *command.args)
    known.add(script.sha)
    return (b"EVAL", script.text, *command.args)
