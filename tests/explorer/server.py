"""The server of the explorer's world: each command of `stores.redis.commands` is one atomic step on what is held.

It interprets the scripts by what `stores/redis/scripts.py` says of each, on a server whose clock stands still: the worst
clock, because then only the number and the nonce keep generations apart. Keys have no time to live; that leases end is a
choice of the world.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.engine.tokens import parse
from memover.keys.shards import GRAINS, shards
from memover.stores.redis import scripts
from memover.stores.redis.commands import RedisCommands
from tests.explorer.state import number

if TYPE_CHECKING:
    from memover.engine.steps import Send
    from memover.stores.redis.asking import Command
    from tests.explorer.state import Held

__all__ = ["Server", "WorldStore"]

Answer = Any


class NoLink:
    """The link of a store whose `Send` steps the world answers."""

    def exchange(self, step: Send) -> list[Any]:
        raise AssertionError("the world answers every step")

    aexchange = exchange


class WorldStore(RedisCommands):
    """The real flows of commands, for one server, or for a cluster (`spread`)."""

    local = False
    address = "world"
    every_shard: tuple[bytes, ...] = ()
    """All keys of the world that may be shards."""

    def __init__(self, *, spread: bool) -> None:
        self.spread = spread
        self.link = NoLink()  # type: ignore[assignment]
        self._shards_seen = {}

    def shards_of(self, name: bytes, count: int) -> tuple[bytes, ...]:  # type: ignore[override]
        return self.every_shard if count == GRAINS else shards(name, count)


class Server:
    """What it holds is a tuple of values, in the order of `keys`; another key is absent, and must not be written."""

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self.keys = keys
        self.at = {key: at for at, key in enumerate(keys)}
        self._scripts = {
            getattr(scripts, name).sha: getattr(self, name.lower())
            for name in (
                "ACQUIRE",
                "BUMP",
                "DROP",
                "KEEP",
                "LEASE",
                "MOVE",
                "REGISTER",
                "RELEASE",
                "RENEW",
                "SETTLE",
                "STORE",
                "TOKEN",
            )
        }

    def perform(self, held: Held, command: Command) -> tuple[Held, Answer]:
        """What is held after a command, and its answer."""
        values = list(held)
        if command.script is None:
            name, *plain = command.args
            answer: Any = {b"MGET": self.mget, b"DEL": self.delete}[name](values, plain)
        else:
            count = int(command.args[0])
            keys, arguments = command.args[1 : count + 1], command.args[count + 1 :]
            answer = self._scripts[command.script.sha](values, keys, *arguments)
        return tuple(values), answer

    def first(self, at: int) -> bytes:
        """The token that a name has when the world begins."""
        return b"1-%016x" % (0xA0 + at)

    # -- plain commands ---------------------------------------------------------------------------------------------------

    def mget(self, values: list[Any], keys: list[bytes]) -> Answer:
        return [self.get(values, key) for key in keys]

    def delete(self, values: list[Any], keys: list[bytes]) -> Answer:
        there = [key for key in keys if self.get(values, key) is not None]
        for key in there:
            self.put(values, key, None)
        return len(there)

    # -- scripts, each by its name; KEYS, then ARGV -------------------------------------------------------------------------

    def acquire(self, values: list[Any], keys: Any, *arguments: bytes) -> Answer:
        lease, entry, *names = keys
        mine, ms, mode, *numbers = arguments
        required, ensured, *floors = map(int, numbers)
        tokens = []
        for name, floor in zip(names[:ensured], floors):
            tokens.append(self.token_of(values, name, mine, floor))
        under = b",".join(tokens[:required])
        ours, before, raw = self.lease(values, (lease, entry), mine, ms, mode, under)
        return [ours, before, raw, *tokens, *(self.get(values, name) for name in names[ensured:])]

    def lease(self, values: list[Any], keys: Any, mine: bytes, ms: bytes, mode: bytes, under: bytes) -> Answer:
        lease, entry = keys
        current = self.get(values, lease)
        if self.is_taken(current, mine, mode, under):
            return [0, current, self.get(values, entry)]
        self.put(values, lease, b"L %b %b" % (mine, under))
        return [1, current, self.get(values, entry)]

    def is_taken(self, current: bytes | None, mine: bytes, mode: bytes, under: bytes) -> bool:
        if current is None or mode == b"1" or not current.startswith(b"L "):
            return False
        token, _, taken = current[2:].partition(b" ")
        return token != mine and (mode == b"2" or taken == under)

    def store(self, values: list[Any], keys: Any, mine: bytes, raw: bytes, ms: bytes, keep: bytes) -> Answer:
        lease, entry, *_ = keys
        if not self.is_mine(self.get(values, lease), mine):
            return 0
        self.put(values, entry, raw)
        self.put(values, lease, None)
        return 1

    def is_mine(self, lease: bytes | None, mine: bytes) -> bool:
        return lease is not None and lease.startswith(b"L %b " % mine)

    def release(self, values: list[Any], keys: Any, mine: bytes, ms: bytes) -> Answer:
        if not self.is_mine(self.get(values, keys[0]), mine):
            return 0
        self.put(values, keys[0], None if ms == b"0" else b"F " + mine)
        return 1

    def renew(self, values: list[Any], keys: Any, mine: bytes, *limits: bytes) -> Answer:
        return int(self.is_mine(self.get(values, keys[0]), mine))

    def bump(self, values: list[Any], keys: Any, nonce: bytes, count: bytes, *numbers: bytes) -> Answer:
        moved: list[bytes] = []
        least = 0
        for name, floor in zip(keys[: int(count)], numbers):
            moved.append(self.token_of(values, name, nonce, max(int(floor), least), force=True))
            least = least or number(moved[0]) - 1
        self.move(values, keys[int(count) :], nonce)
        return moved

    def drop(self, values: list[Any], keys: Any, nonce: bytes, *limits: bytes) -> Answer:
        self.delete(values, keys[:2])
        self.move(values, keys[2:], nonce)
        return 1

    def move(self, values: list[Any], keys: Any, nonce: bytes, *limits: bytes) -> Answer:
        for name in keys:
            if self.get(values, name) is not None:
                self.token_of(values, name, nonce, 0, force=True)
        return 1

    def token(self, values: list[Any], keys: Any, nonce: bytes, floor: bytes, ms: bytes) -> Answer:
        return self.token_of(values, keys[0], nonce, int(floor))

    def register(self, values: list[Any], keys: Any, count: bytes, nonce: bytes) -> Answer:
        held = self.get(values, keys[0])
        if held is not None and count in held.split(b","):
            return 0
        self.put(values, keys[0], b"%b,%b" % (held, count) if held is not None else b"%b,?%b" % (count, nonce))
        return 1

    def settle(self, values: list[Any], keys: Any, read: bytes, wanted: bytes) -> Answer:
        if self.get(values, keys[0]) != read:
            return 0
        self.put(values, keys[0], wanted)
        return 1

    def keep(self, values: list[Any], keys: Any, ms: bytes) -> Answer:
        return 1

    # -- what they are made of ----------------------------------------------------------------------------------------------

    def get(self, values: list[Any] | Held, key: bytes) -> bytes | None:
        at = self.at.get(key)
        return None if at is None else values[at]

    def put(self, values: list[Any], key: bytes, value: bytes | None) -> None:
        values[self.at[key]] = value

    def token_of(self, values: list[Any], name: bytes, nonce: bytes, floor: int, *, force: bool = False) -> bytes:
        current = self.get(values, name)
        known = parse(current)
        if known is not None and (known.nonce.encode() == nonce or (not force and known.number >= floor)):
            assert current is not None, "it was parsed"
            return current
        token = self.new(number(current), floor, nonce)
        self.put(values, name, token)
        return token

    def new(self, current: int, floor: int, nonce: bytes) -> bytes:
        return b"%d-%b" % (max(current, floor) + 1, nonce)
