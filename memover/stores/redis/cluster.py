"""Which node of a Cluster answers for a key, and what to do when that changes. No I/O: generators of exchanges.

An exchange is a list of (node, commands); the runner sends all of them before it reads, and answers in the same shape,
errors as data. A node that says MOVED is believed at once; ASK sends this one command along; a node that is gone makes
the map stale, so that the next call asks for it anew from whoever answers. Replicas are never asked.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MasterDownError, MovedError

from memover.errors import StoreTimeout, StoreUnavailable, raised_by_handler
from memover.stores.redis.failures import lost, translated

if TYPE_CHECKING:
    from memover.stores.redis.url import Node

__all__ = ["Exchanges", "Hops", "Topology"]

Exchanges = list[tuple["Node | None", list[tuple[bytes, ...]]]]
Hops = Generator[Exchanges, list[list[Any]], list[Any]]

_HOPS_LIMIT = 5
_SLOTS = 16384


class Topology:
    """The slots as last heard of."""

    def __init__(self, seeds: tuple[Node, ...], address: str) -> None:
        self._seeds = seeds
        self._address = address
        self._owners: list[Node | None] = []
        self._known: tuple[Node, ...] = ()

    def forget(self) -> None:
        """Asks for the map anew before the next command."""
        self._owners = []

    def primaries(self) -> tuple[Node, ...]:
        """The nodes that own slots, as last heard of."""
        return self._known

    def owner(self, route: bytes) -> Node | None:
        """The node of a key as last heard of, None where that is not known. No round trip."""
        owners = self._owners
        return owners[key_slot(route)] if owners else None

    def routed(self, commands: list[tuple[bytes, tuple[bytes, ...]]]) -> Hops:
        """Sends each command to the node of its key and follows the nodes' directions."""
        # One map for the whole journey: another thread, or a node that fails on the way, may have it forgotten meanwhile.
        owners = self._owners or (yield from self._discover())
        answers: list[Any] = [None] * len(commands)
        # place in `answers`, node, whether it is a visit by ASK
        waiting: list[tuple[int, Node, bool]] = [
            (at, self._owner(owners, route), False) for at, (route, _) in enumerate(commands)
        ]
        for _ in range(_HOPS_LIMIT):
            visits: dict[Node, list[tuple[int, bool]]] = {}
            for at, node, asked in waiting:
                visits.setdefault(node, []).append((at, asked))
            exchanges: Exchanges = []
            for node, places in visits.items():
                batch: list[tuple[bytes, ...]] = []
                for at, asked in places:
                    if asked:
                        batch.append((b"ASKING",))
                    batch.append(commands[at][1])
                exchanges.append((node, batch))
            replies = yield exchanges
            waiting = []
            for (node, places), answered in zip(visits.items(), replies):
                left = iter(answered)
                directed: tuple[Node, bool] | None = None
                for at, asked in places:
                    if asked:
                        next(left)
                    answer = next(left)
                    # WAIT has no key: it goes wherever the command before it is sent on to.
                    if commands[at][1][0] != b"WAIT":
                        directed = self._directed(owners, answer, commands[at][0], node)
                    if directed is None:
                        answers[at] = answer
                    else:
                        waiting.append((at, *directed))
            if not waiting:
                return answers
        raise StoreUnavailable(f"{self._address}: its nodes send commands in circles.", store=self._address)

    def _directed(self, owners: list[Node | None], answer: Any, route: bytes, node: Node) -> tuple[Node, bool] | None:
        if isinstance(answer, AskError):  # MovedError is one too
            there = (answer.host or node[0], answer.port)
            if not isinstance(answer, MovedError):
                return there, True
            owners[key_slot(route)] = there
            return there, False
        if isinstance(answer, (ClusterDownError, MasterDownError)) or (isinstance(answer, Exception) and lost(answer)):
            self.forget()
        return None

    def _owner(self, owners: list[Node | None], route: bytes) -> Node:
        owner = owners[key_slot(route)]
        if owner is None:
            self.forget()
            raise StoreUnavailable(f"{self._address}: no node answers for the slot of {route!r}.", store=self._address)
        return owner

    def _discover(self) -> Generator[Exchanges, list[list[Any]], list[Node | None]]:
        cause: Any = None
        for node in dict.fromkeys((*self._known, *self._seeds)):
            ((answer,),) = yield [(node, [(b"CLUSTER", b"SLOTS")])]
            if isinstance(answer, StoreTimeout):
                raise answer  # one budget a call; the next call finds this node's circuit open and asks another
            if isinstance(answer, Exception):
                cause = answer
                continue
            if self._owners:
                return self._owners  # another has asked at the same time
            try:
                owners = _owners(answer, node)
            except (TypeError, ValueError, IndexError, AttributeError) as error:
                if raised_by_handler(error):
                    raise
                cause = StoreUnavailable(
                    f"{node[0]}:{node[1]} answered CLUSTER SLOTS with {answer!r:.100}: is it a Cluster?"
                )
                continue
            self._owners = owners
            self._known = tuple(dict.fromkeys(owner for owner in owners if owner is not None))
            return owners
        raise (
            translated(cause, self._address)
            if cause is not None
            else StoreUnavailable(f"{self._address}: no node to ask.", store=self._address)
        )


def _owners(answer: Any, node: Node) -> list[Node | None]:
    """Who owns each slot, from what `node` answered to CLUSTER SLOTS."""
    owners: list[Node | None] = [None] * _SLOTS
    for first, last, primary, *_ in answer:
        host = primary[0].decode() if primary[0] else node[0]
        owners[first : last + 1] = [(host, int(primary[1]))] * (last - first + 1)
    if len(owners) != _SLOTS:
        raise ValueError(answer)
    return owners
