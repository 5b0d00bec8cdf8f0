"""The Redis store: one class for threads and event loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.model import MISSING
from memover.stores.redis.asking import Command, Large
from memover.stores.redis.commands import RedisCommands
from memover.stores.redis.direct import Direct
from memover.stores.redis.failures import TRANSPORT_ERRORS
from memover.stores.redis.feed import RedisFeed
from memover.stores.redis.keyvalue import KeyValueCommands
from memover.stores.redis.link import RedisLink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.engine.store import Seen, Store
    from memover.model import Key
    from memover.stores.breaker import Breaker
    from memover.stores.redis.limits import Limits
    from memover.stores.redis.url import Node, Target

__all__ = ["RedisStore"]


class RedisStore(KeyValueCommands, RedisCommands):
    """Redis or Valkey; see `memover.engine.store.Store`. A method is one round trip unless it says otherwise.

    `target` is what `url.parse_url` made of the URL. Nothing is opened before the first exchange. Raises
    `ConfigurationError` for options in the URL that are unknown.
    """

    local = False

    def __init__(self, target: Target, limits: Limits) -> None:
        self.address = target.address
        self.spread = target.kind == "cluster"
        self.wait_replicas = limits.wait_replicas
        self.replicas_ms = limits.replicas_ms
        self.generation_shards = limits.generation_shards if self.spread else 1
        self.sweeps = self.generation_shards > 1
        self._shards_seen = {}
        self.link: RedisLink = RedisLink(target, limits)  # pyright: ignore[reportIncompatibleVariableOverride]
        self.breaker: Breaker = self.link.breaker
        """Of the one server; a Cluster has one for each node."""

    def identity(self) -> str | None:
        """What the server says of itself, the same whatever address it was reached by; None before the first connection,
        and where it does not tell. Known without a round trip."""
        topology = self.link.topology
        if topology is None:
            return self.link.servers.identity
        nodes = topology.primaries()
        return "cluster " + ",".join(sorted(f"{host}:{port}" for host, port in nodes)) if nodes else None

    def rereads(self) -> None:
        """Every read of a server is done."""

    def direct(self) -> Direct | None:
        """The steps of a plain miss in the calling thread, for `runtime.direct`; None where they may go to different nodes."""
        return None if self.spread else Direct(self)

    def fetch(self, key: Key) -> Seen:
        link = self.link
        if link.topology is None and (answer := link.single(key.packed or self.packed(key))) is not MISSING:
            return self.seen(key, answer)
        step = self.read(key)
        return step.read(link.exchange(step))

    async def afetch(self, key: Key) -> Seen:
        link = self.link
        if self.spread:
            step = self.read(key)
            return step.read(await link.aexchange(step))
        packed = key.packed or self.packed(key)
        home = link.homes.here()
        large = packed.__class__ is Large
        mux = None if large else link.at_hand(home, packed)
        if mux is not None:
            try:
                answer = await mux.submit(packed)  # `RedisLink.asingle` would be one coroutine more for each hit
            except TRANSPORT_ERRORS as error:
                answer = await link.again(packed, error)
            if answer.__class__ is not list:
                link.servers.answered(link.breaker, None, (answer,))
            return self.seen(key, answer)
        if home.blocking:
            step = self.read(key)
            return step.read(await link.aexchange(step))
        return self.seen(key, await link.answers(None, packed, 1, large))

    # -- node by node, for those who look through the whole store ------------------------------------------------------

    def nodes(self) -> list[Node | None]:
        """The primaries, each of which has keys of its own; None for the one there is. Raises `StoreError`."""
        topology = self.link.topology
        if topology is None:
            return [None]
        if not topology.primaries():
            self.link.complete(self.asked([Command(b"", (b"PING",))]))
        return list(topology.primaries())

    def visit(self, node: Node | None, commands: Sequence[tuple[bytes, ...]]) -> list[Any]:
        """The answers of one node to a pipeline of commands, errors as answers. One round trip. Raises `StoreError`."""
        return self.link.visit(node, commands)

    def feed(self, coarse: bytes, prefixes: Sequence[bytes], seconds: float) -> RedisFeed:
        """A connection for a near tier, opened in the calling thread; see `stores.feed.Feed`. Raises `StoreError`."""
        return RedisFeed(self, coarse, prefixes, seconds)

    def settle(self, seconds: float) -> None:
        self.link.settle(seconds)

    def close(self) -> None:
        self.link.close()

    async def aclose(self) -> None:
        await self.link.homes.aclose()

    def after_fork(self) -> None:
        self.link.servers.after_fork()


if TYPE_CHECKING:

    def _is_one(store: RedisStore) -> Store:  # pyright: ignore[reportUnusedFunction]
        return store
