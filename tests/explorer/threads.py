"""The real flows, run one operation at a time and named by what they were answered.

A flow is a generator, which cannot be copied; but all it knows is what it was answered, and what its process's witness
knew at those moments. So a history of answers names a flow's state: each distinct history is run through the real
generator once, and the explorer goes back and forth between histories at the price of a dictionary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from memover.engine import ops
from memover.engine.generations import Witness
from memover.errors import StoreError, StoreUnavailable
from memover.model import Source
from tests.explorer.state import ENTRY, header_of, names_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.explorer.state import Process

__all__ = ["BROKEN", "FAILURE", "PATIENCE_SECONDS", "TIMEOUT", "Boom", "Knowledge", "Node", "Threads"]

FAILURE = ("store error",)
"""The answer of a store that fails: thrown into the flow."""
TIMEOUT = ("timeout",)
"""The answer of a wait that lasted longer than the call is willing to wait."""
BROKEN = "the function failed"
PATIENCE_SECONDS = 10.0

Answer = Any


class Boom(Exception):
    """What a wrapped function raises."""


class Knowledge(NamedTuple):
    """What a process's witness knows: the last token believed under each name, and what is owed."""

    last: tuple[bytes | None, ...]
    owed: frozenset[bytes]

    @classmethod
    def of(cls, process: Process) -> Knowledge:
        return cls(process.last, process.owed)


class Node:
    """A flow after a history: the operation it waits on, or what it came to."""

    __slots__ = ("ended", "history", "known", "maker", "number", "op", "result")

    def __init__(self, number: int, maker: int, history: tuple[tuple[Answer, Knowledge], ...]) -> None:
        self.number = number
        self.maker = maker
        self.history = history
        self.op: Any = None
        self.ended = False
        self.result: Any = None
        self.known: Knowledge | None = None


class Threads:
    """All histories of all flows of one scenario. `makers` make the flow of each actor from its terms."""

    def __init__(
        self,
        makers: tuple[Callable[[Any], Generator[Any, Any, Any]], ...],
        terms: Callable[..., Any],
        witness: type[Witness],
        names: int,
    ) -> None:
        self.nodes: list[Node] = []
        self._makers = makers
        self._terms = terms
        self._witness = witness
        self._names = names_of(names)
        self._next: dict[tuple[int, Answer, Knowledge], Node] = {}

    def begin(self, actor: int, knowledge: Knowledge) -> Node:
        """The flow of an actor at its first operation."""
        return self._after(-1 - actor, None, knowledge, actor, ())

    def send(self, node: int, answer: Answer, knowledge: Knowledge) -> Node:
        """The flow after one more answer. What its witness knows then is in the node's `known`."""
        before = self.nodes[node]
        return self._after(node, answer, knowledge, before.maker, before.history)

    def _after(
        self,
        number: int,
        answer: Answer,
        knowledge: Knowledge,
        maker: int,
        history: tuple[tuple[Answer, Knowledge], ...],
    ) -> Node:
        key = (number, answer, knowledge)
        node = self._next.get(key)
        if node is None:
            node = Node(len(self.nodes), maker, (*history, (answer, knowledge)))
            self._replay(node)
            self.nodes.append(node)
            self._next[key] = node
        return node

    def _replay(self, node: Node) -> None:
        clock = Clock()
        terms = self._terms(
            entry=ENTRY,
            names=self._names,
            witness=self._witness(),
            on_store_error="load",
            wait_seconds=PATIENCE_SECONDS,
            max_age=None,
            now=lambda: 0.0,
            monotonic=clock,
            new_token=Nonces(node.maker),
        )
        flow = self._makers[node.maker](terms)
        try:
            for answer, knowledge in node.history:
                terms.witness = self._know(knowledge)
                if answer == TIMEOUT:
                    clock.seconds += 2 * PATIENCE_SECONDS
                    answer = None
                if answer == FAILURE:
                    node.op = flow.throw(StoreUnavailable("the world's store failed; nothing needs to be done"))
                else:
                    node.op = flow.send(materialised(answer))
        except StopIteration as stop:
            node.ended = True
            node.op = None
            node.result = result_of(stop.value)
        except StoreError:
            node.ended = True
            node.op = None
            node.result = (None, "StoreError", "raised")
        finally:
            flow.close()
        witness = terms.witness
        node.known = Knowledge(tuple(witness.last(name) for name in self._names), frozenset(witness.owed))

    def _know(self, knowledge: Knowledge) -> Witness:
        witness = self._witness()
        for name, token in zip(self._names, knowledge.last):
            if token is not None:
                witness.trusts((name,), (token,))
        for name in knowledge.owed:
            witness.owed[name] = nothing
        return witness


class Clock:
    """A monotonic clock of one call, which moves only when a wait of it runs out."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Nonces:
    """The lease tokens of one flow, the same ones in every replay."""

    def __init__(self, actor: int) -> None:
        self._actor = actor
        self._count = 0

    def __call__(self) -> str:
        self._count += 1
        return f"{self._actor + 1:08x}{self._count:08x}"


def nothing() -> None:
    """What repeats an owed invalidation: in the explorer, the writer's own flow does."""


def materialised(answer: Answer) -> Any:
    """An answer as the flows know it."""
    if type(answer) is not tuple:
        return answer
    kind, *rest = answer
    if kind == "reading":
        tokens, entry, lease = rest
        if entry is None:
            return ops.Reading(tokens, None, None, lease)
        value, stamp = entry
        return ops.Reading(tokens, b"%d" % value, header_of(stamp), lease)
    if kind == "grant":
        ours, holder, reading = rest
        return ops.Grant(ours, holder, materialised(reading))
    if kind == "outcome":
        value, error, source = rest
        return ops.Outcome(value, Boom(error) if error else None, Source(source))
    if kind == "sealed":
        value, tokens = rest
        return ops.Sealed(b"%d" % value, 0, header_of(tokens), value)
    raise AssertionError(f"no such answer: {answer!r}")


def result_of(value: Any) -> Any:
    """What a flow came to, as a value that compares: (value, error, source)."""
    if isinstance(value, ops.Outcome):
        error = None if value.error is None else type(value.error).__name__
        return (value.value, error, value.source.value)
    return (value, None, "")
