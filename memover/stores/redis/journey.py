"""From the commands of a step to exchanges with nodes, and from their answers to those of the step, for threads and event loops
alike. No I/O: generators of exchanges (see `cluster`).

    commands ─▶ scripts (EVALSHA, or EVAL where NOSCRIPT) ─▶ nodes (cluster) ─▶ exchanges
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

from memover.engine.steps import returned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.stores.redis.asking import Command, KnownScripts
    from memover.stores.redis.cluster import Exchanges, Hops, Topology

__all__ = ["journey", "performed", "routed"]


def journey(commands: Sequence[Command], scripts: KnownScripts, topology: Topology | None) -> Hops:
    """The answers to commands, the server's errors among them. Yields exchanges.

    A server that does not know a script says NOSCRIPT and has not done anything, so sending it whole is safe."""
    answers = yield from routed([(command.route, scripts.arguments(command)) for command in commands], topology)
    forgotten = [at for at, answer in enumerate(answers) if answer.__class__ is NoScriptError]
    if forgotten:
        whole = []
        for at in forgotten:
            script = commands[at].script
            if script is None:
                continue
            scripts.forget(None if topology is None else script)
            whole.append((commands[at].route, scripts.arguments(commands[at])))
        for at, answer in zip(forgotten, (yield from routed(whole, topology))):
            answers[at] = answer
    return answers


def performed(hops: Hops, perform: Callable[[Exchanges], list[list[Any]]]) -> list[Any]:
    """The answers that a journey comes to in this thread."""
    try:
        exchanges = next(hops)
        while True:
            exchanges = hops.send(perform(exchanges))
    except StopIteration as stop:
        answers: list[Any] = returned(stop)
        return answers


def routed(commands: list[tuple[bytes, tuple[bytes, ...]]], topology: Topology | None) -> Hops:
    """The answers to commands as they are, each given with the key whose node has to answer it."""
    if topology is not None:
        return (yield from topology.routed(commands))
    (answers,) = yield [(None, [args for _, args in commands])]
    return answers
