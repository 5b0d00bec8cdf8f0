"""Each method of the store as a generator of command batches, written once for threads and coroutines.

A batch is a list of `Command`; the runner sends it in one round trip (Cluster: one per node, side by side) and sends
the list of answers back in. An answer that is an error is raised by the runner as `StoreUnavailable`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from redis.exceptions import NoScriptError

from memover.errors import StoreUnavailable
from memover.stores import leases
from memover.stores.base import Granted, Seen
from memover.stores.redis import scripts

if TYPE_CHECKING:
    from memover.model import Key
    from memover.stores.redis.scripts import Script

__all__ = ["Command", "Exchange", "RedisCommands", "Wire", "scripted"]

T = TypeVar("T")

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

    def reading(self, key: Key) -> Exchange[Seen]:
        if not self.spread:
            (answer,) = yield [Command(key.entry, (b"MGET", *key.names, key.entry))]
            return Seen(answer[:-1], answer[-1])
        answers = yield [Command(name, (b"MGET", name)) for name in (*key.names, key.entry)]
        return Seen([answer[0] for answer in answers[:-1]], answers[-1][0])

    def looking(self, key: Key) -> Exchange[Seen]:
        if not self.spread:
            (answer,) = yield [Command(key.entry, (b"MGET", *key.names, key.entry, key.lease))]
            return Seen(answer[:-2], answer[-2], answer[-1])
        answers = yield [
            *(Command(name, (b"MGET", name)) for name in key.names),
            Command(key.entry, (b"MGET", key.entry, key.lease)),
        ]
        return Seen([answer[0] for answer in answers[:-1]], *answers[-1])

    def acquiring(
        self, key: Key, token: str, lease_ms: int, floors: Sequence[int], force: bool
    ) -> Exchange[Granted]:
        mine, ms = token.encode(), b"%d" % lease_ms
        if self.spread:
            return (yield from self._acquiring_apart(key, mine, ms, floors, force))
        mode = _FROM_ANYBODY if force else _UNLESS_CURRENT
        keys = (key.lease, key.entry, *key.names)
        (answer,) = yield [_call(scripts.ACQUIRE, keys, mine, ms, mode, *(b"%d" % floor for floor in floors))]
        ours, held, raw, *tokens = answer
        return self._granted(ours == 1, _bytes(held), Seen(tokens, _bytes(raw)))

    def _acquiring_apart(
        self, key: Key, mine: bytes, ms: bytes, floors: Sequence[int], force: bool
    ) -> Exchange[Granted]:
        # Tokens and lease are on different nodes, so of different moments. The tokens are read first: a lease is then
        # never taken under tokens older than those the load will be stamped with, and taking it from a holder whose
        # tokens differ from what has just been read can at worst cost that holder its store, never a wrong answer.
        tokens = yield [_call(scripts.TOKEN, (name,), mine, b"%d" % floor) for name, floor in zip(key.names, floors)]
        mode = _FROM_ANYBODY if force else _UNLESS_CURRENT
        (answer,) = yield [_call(scripts.LEASE, (key.lease, key.entry), mine, ms, mode, leases.stamp(tokens))]
        ours, held, raw = answer
        return self._granted(ours == 1, _bytes(held), Seen(tokens, _bytes(raw)))

    @staticmethod
    def _granted(ours: bool, held: bytes | None, seen: Seen) -> Granted:
        return Granted(ours, "" if ours else leases.holder_of(held, leases.stamp(seen.tokens)), seen)

    def storing(self, key: Key, token: str, raw: bytes, expire_ms: int) -> Exchange[bool]:
        (answer,) = yield [
            _call(scripts.STORE, (key.lease, key.entry), token.encode(), raw, b"%d" % expire_ms)
        ]
        return bool(answer == 1)

    def releasing(self, key: Key, token: str, failed: bool) -> Exchange[None]:
        yield [_call(scripts.RELEASE, (key.lease,), token.encode(), b"%d" % (leases.FAILED_MS if failed else 0))]

    def renewing(self, key: Key, token: str, lease_ms: int) -> Exchange[bool]:
        (answer,) = yield [_call(scripts.RENEW, (key.lease,), token.encode(), b"%d" % lease_ms)]
        return bool(answer == 1)

    def bumping(self, name: bytes, nonce: str, floor: int) -> Exchange[bytes]:
        (answer,) = yield [_call(scripts.BUMP, (name,), nonce.encode(), b"%d" % floor)]
        if not isinstance(answer, bytes):
            raise StoreUnavailable(f"the server answered a bump of {name.decode()} with {answer!r}; is it a Redis?")
        return answer

    def dropping(self, entry: bytes, lease: bytes) -> Exchange[None]:
        yield [Command(entry, (b"DEL", entry, lease))]


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
        for answer in answers:
            if isinstance(answer, Exception):
                exchange.close()
                raise answer
        try:
            batch = exchange.send(answers)
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
