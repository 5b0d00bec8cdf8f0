"""The real flows, run one step at a time and named by what they were answered.

A flow is a generator, which cannot be copied; but all it knows is what it was answered, what its process's witness knew at
those moments, and what it observed of its process. So a history of these names a flow's state. The generator that has just
come to a state is kept there and goes on from it once; for every other way on, a new one is run through the same history.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from memover.engine.answers import Outcome
from memover.errors import InvalidationFailed, StoreError, StoreUnavailable
from tests.explorer.function import PATIENCE_SECONDS, Means, owed_to

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from memover.engine.tokens import Witness
    from tests.explorer.state import FlightName, Process

__all__ = ["FAILURE", "TIMEOUT", "After", "Histories", "Knowledge", "Node"]

FAILURE = ("store error",)
"""The answer of a store that fails: each command is answered with the error."""
TIMEOUT = ("timeout",)
"""The answer of a wait that lasted longer than the call is willing to wait."""

Answer = Any


class Knowledge(NamedTuple):
    """What a process's witness knows: the last token believed under each name with its number, and what is owed."""

    last: tuple[tuple[bytes, int] | None, ...]
    owed: frozenset[tuple[bytes, int]]


class Node:
    """A flow after a history: the step it waits on, or what it came to."""

    __slots__ = ("before", "ended", "event", "maker", "number", "parked", "result", "step")

    def __init__(
        self, number: int, maker: int, before: Node | None, event: tuple[Answer, Knowledge, tuple[Any, ...]]
    ) -> None:
        self.number = number
        self.maker = maker
        self.before = before
        self.event = event
        self.step: Any = None
        self.ended = False
        self.result: Any = None
        self.parked: tuple[Any, Means] | None = None

    def history(self) -> list[tuple[Answer, Knowledge, tuple[Any, ...]]]:
        """Every answer, with what the process knew then and what was observed after it."""
        node: Node | None = self
        history = []
        while node is not None:
            history.append(node.event)
            node = node.before
        return history[::-1]


class After(NamedTuple):
    """Where an answer leads: the flow's next state, its process then, and the calls that have ended on the way."""

    node: Node
    process: Process
    ended: tuple[tuple[FlightName, Any], ...]


class Histories:
    """All histories of all flows of one scenario. `makers` make each actor's flow from its `Means`."""

    def __init__(
        self,
        makers: Sequence[Callable[[Means], Generator[Any, Any, Any]]],
        witness: type[Witness],
        names: tuple[bytes, ...],
        sharing: Sequence[bool],
    ) -> None:
        self._sharing = sharing
        self.nodes: list[Node] = []
        self._makers = makers
        self._witness = witness
        self._names = names
        self._after: dict[Any, After] = {}
        self._nodes: dict[Any, Node] = {}

    def begin(self, actor: int, process: Process) -> After:
        """The flow of an actor at its first step."""
        return self._go(actor, None, None, process)

    def send(self, node: int, answer: Answer, process: Process) -> After:
        """The flow after one more answer."""
        before = self.nodes[node]
        return self._go(before.maker, before, answer, process)

    def _go(self, maker: int, before: Node | None, answer: Answer, process: Process) -> After:
        number = -1 - maker if before is None else before.number
        asked = (number, answer, process)
        after = self._after.get(asked)
        if after is not None:
            return after
        flow, means = self._at(maker, before)
        knowledge = Knowledge(process.last, process.owed)
        self._know(knowledge, means.witness)
        means.live(process)
        step, ended, result = resumed(flow, means, answer)
        observed = tuple(means.observed)
        named = (number, answer, knowledge, observed)
        node = self._nodes.get(named)
        if node is None:
            node = Node(len(self.nodes), maker, before, (answer, knowledge, observed))
            node.step, node.ended, node.result = step, ended, result
            node.parked = None if ended else (flow, means)
            self.nodes.append(node)
            self._nodes[named] = node
        assert means.process is not None, "it ran live"
        seen, owed = means.witness._seen, means.witness.owed
        changed = means.process._replace(
            last=tuple(seen.get(name) for name in self._names),
            owed=frozenset((name, repeat.actor) for name, repeat in owed.items()),  # type: ignore[attr-defined]
        )
        after = self._after[asked] = After(node, changed, tuple(means.ended))
        means.process = None
        return after

    def _at(self, maker: int, node: Node | None) -> tuple[Any, Means]:
        """A generator that has just come to a state, and its means."""
        if node is not None and node.parked is not None:
            parked, node.parked = node.parked, None
            return parked
        means = Means(maker, self._witness())
        means.sharing = self._sharing[maker]
        flow = self._makers[maker](means)
        for answer, knowledge, observed in [] if node is None else node.history():
            self._know(knowledge, means.witness)
            means.replay(observed)
            resumed(flow, means, answer)
        return flow, means

    def _know(self, knowledge: Knowledge, witness: Witness) -> None:
        """Let the witness know just what its process knows by now."""
        for name, known in zip(self._names, knowledge.last):
            if known is None:
                witness._seen.pop(name, None)
            else:
                witness._seen[name] = known
        witness.owed.clear()
        witness.owed.update((name, owed_to(actor)) for name, actor in knowledge.owed)


def resumed(flow: Any, means: Means, answer: Answer) -> tuple[Any, bool, Any]:
    """Answer a flow: its next step, whether it has ended, and what it came to."""
    try:
        if answer == TIMEOUT:
            means.seconds += 2 * PATIENCE_SECONDS
            answer = None
        if type(answer) is tuple and answer[:1] == FAILURE:
            error = StoreUnavailable("the world's store failed; nothing needs to be done", store="world")
            return flow.send([error] * answer[1]), False, None
        return (
            flow.send(list(map(thawed, answer[1])) if type(answer) is tuple and answer[0] == "answers" else answer),
            False,
            None,
        )
    except StopIteration as stop:
        return None, True, result_of(stop.value)
    except (StoreError, InvalidationFailed) as error:
        return None, True, (None, type(error).__name__, "raised", None)


def thawed(answer: Any) -> Any:
    """An answer of the server, as a list of its own where it is one."""
    return list(answer) if type(answer) is tuple else answer


def result_of(value: Any) -> Any:
    """What a flow came to, as a value that compares: (value, error, source, marks)."""
    if isinstance(value, Outcome):
        error = None if value.error is None else type(value.error).__name__
        return (value.value, error, value.source.value, value.marks)
    return (value, None, "", None)
