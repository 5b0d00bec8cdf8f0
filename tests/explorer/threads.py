"""The real flows, run one operation at a time and named by what they were answered.

A flow is a generator, which cannot be copied; but all it knows is what it was answered, and what its process's witness
knew at those moments. So a history of answers names a flow's state: each distinct history is run through the real
generator once, and the explorer goes back and forth between histories at the price of a dictionary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from memover.engine import ops
from memover.errors import StoreError, StoreUnavailable
from memover.model import Source
from tests.explorer.state import header_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from memover.engine.tokens import Witness
    from tests.explorer.state import Process

__all__ = ["BROKEN", "FAILURE", "PATIENCE_SECONDS", "TIMEOUT", "Boom", "Knowledge", "Means", "Node", "Threads"]

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

    __slots__ = ("before", "ended", "known", "last", "maker", "number", "op", "result")

    def __init__(self, number: int, maker: int, before: Node | None, last: tuple[Answer, Knowledge]) -> None:
        self.number = number
        self.maker = maker
        self.before = before
        self.last = last
        self.op: Any = None
        self.ended = False
        self.result: Any = None
        self.known: Knowledge | None = None

    def history(self) -> list[tuple[Answer, Knowledge]]:
        """Every answer, with what the process knew then."""
        node: Node | None = self
        history = []
        while node is not None:
            history.append(node.last)
            node = node.before
        return history[::-1]


class Threads:
    """All histories of all flows of one scenario. `makers` make each actor's flow from its desk's `Means`."""

    def __init__(
        self,
        makers: tuple[Callable[[Means], Generator[Any, Any, Any]], ...],
        witness: type[Witness],
        names: tuple[bytes, ...],
    ) -> None:
        self.nodes: list[Node] = []
        self._makers = makers
        self._witness = witness
        self._names = names
        self._next: dict[tuple[int, Answer, Knowledge], Node] = {}

    def begin(self, actor: int, knowledge: Knowledge) -> Node:
        """The flow of an actor at its first operation."""
        return self._after(actor, None, None, knowledge)

    def send(self, node: int, answer: Answer, knowledge: Knowledge) -> Node:
        """The flow after one more answer. What its witness knows then is in the node's `known`."""
        before = self.nodes[node]
        return self._after(before.maker, before, answer, knowledge)

    def _after(self, maker: int, before: Node | None, answer: Answer, knowledge: Knowledge) -> Node:
        key = (-1 - maker if before is None else before.number, answer, knowledge)
        node = self._next.get(key)
        if node is None:
            node = Node(len(self.nodes), maker, before, (answer, knowledge))
            self._replay(node)
            self.nodes.append(node)
            self._next[key] = node
        return node

    def _replay(self, node: Node) -> None:
        means = Means(node.maker, self._witness())
        flow = self._makers[node.maker](means)
        try:
            for answer, knowledge in node.history():
                self._know(knowledge, means.witness)
                if answer == TIMEOUT:
                    means.seconds += 2 * PATIENCE_SECONDS
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
            node.result = (None, "StoreError", "raised", None)
        finally:
            flow.close()
        witness = means.witness
        node.known = Knowledge(tuple(witness.last(name) for name in self._names), frozenset(witness.owed))

    def _know(self, knowledge: Knowledge, witness: Witness) -> None:
        """Let the witness know just what its process knows by now."""
        for name, token in zip(self._names, knowledge.last):
            if token is not None and witness.last(name) != token:
                assert witness.trusts((name,), (token,)), "what a process believes only grows"
        for name in witness.owed.keys() - knowledge.owed:
            del witness.owed[name]
        for name in knowledge.owed:
            witness.owed.setdefault(name, nothing)


class Means:
    """What one flow has beside the answers: a witness, a monotonic clock that moves only when a wait of it runs out,
    and nonces that are the same in every replay."""

    def __init__(self, actor: int, witness: Witness) -> None:
        self.witness = witness
        self.seconds = 0.0
        self._actor = actor
        self._count = 0

    def monotonic(self) -> float:
        return self.seconds

    def nonce(self) -> str:
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
        key, names, tokens, entry, lease = rest
        if entry is None:
            return ops.Reading(names, tokens, None, None, lease)
        value, marks = entry
        return ops.Reading(names, tokens, b"%d" % value, header_of(key, marks), lease)
    if kind == "grant":
        ours, holder, reading = rest
        return ops.Grant(ours, holder, materialised(reading))
    if kind == "outcome":
        value, error, source, marks = rest
        return ops.Outcome(value, Boom(error) if error else None, Source(source), marks=marks)
    if kind == "sealed":
        key, value, marks = rest
        return ops.Sealed(b"%d" % value, 0, header_of(key, marks), value)
    if kind == "list":
        return list(rest[0])
    raise AssertionError(f"no such answer: {answer!r}")


def result_of(value: Any) -> Any:
    """What a flow came to, as a value that compares: (value, error, source, marks)."""
    if isinstance(value, ops.Outcome):
        error = None if value.error is None else type(value.error).__name__
        return (value.value, error, value.source.value, value.marks)
    return (value, None, "", None)
