"""The invalidations of the Redis store: tokens are moved, entries are removed, and replicas are waited for.

On a Cluster with `generation_shards` a generation has several keys, and processes of other settings read other ones of them:
`keys.shards` says which have to be moved.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from redis.exceptions import TryAgainError

from memover.engine.steps import Send
from memover.engine.store import Replicated
from memover.keys.shards import GRAINS, may_have_shards, nonce_of, parse_registry, registry_key, shards
from memover.stores.redis import scripts
from memover.stores.redis.asking import Command, Commands, call, margin
from memover.stores.redis.failures import translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.engine.steps import Flow

__all__ = ["InvalidationCommands"]

logger = logging.getLogger("memover")

_SEEN_LIMIT = 10_000
"""Of so many namespaces at most it is remembered how many shards they have had."""


class InvalidationCommands(Commands):
    """The invalidations of `memover.engine.store.Store`, by commands."""

    wait_replicas = 0
    replicas_ms = 0
    sweeps = False
    """Whether an invalidation looks for shards where none are registered."""
    _short_of_replicas = False
    _shards_seen: dict[bytes, frozenset[int]]
    """For each generation or soft mark, the numbers of shards that were registered when this process looked."""

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
        """Moves the shards that processes of other settings read. `registry` was read after the invalidation began."""
        said = parse_registry(registry, unsure=self.sweeps)
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


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
