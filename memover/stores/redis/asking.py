"""Commands and their answers: what every half of the Redis store is made of.

An answer that is an error is raised as `StoreError`, and so is one of a shape that no Redis gives: what is taken for an
acknowledgement is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from memover.engine.steps import Send, returned
from memover.engine.store import TOKEN_MARGIN_MS
from memover.engine.tokens import parse
from memover.errors import StoreUnavailable
from memover.keys.names import transient
from memover.stores.redis.failures import translated

if TYPE_CHECKING:
    from memover.engine.steps import Flow, Link, Steps
    from memover.stores.redis.scripts import Script

__all__ = ["Command", "Commands", "KnownScripts", "Large", "call", "margin", "side_by_side"]

T = TypeVar("T")


class Command(NamedTuple):
    """One command: `route` is the key whose node answers it; `script` marks an EVALSHA that may have to be an EVAL.

    `large` says that the answer is likely to be long, so that others had better not wait behind it."""

    route: bytes
    args: tuple[bytes, ...]
    script: Script | None = None
    large: bool = False


class Large(bytes):
    """A packed read whose entry was large when it was last seen; see `model.Key.packed`."""


class KnownScripts:
    """Which scripts the servers of one store know, as far as has been heard."""

    def __init__(self) -> None:
        self._hashes: set[bytes] = set()

    def arguments(self, command: Command) -> tuple[bytes, ...]:
        """A command as it is sent: a script whole the first time, and by its hash from then on."""
        script = command.script
        if script is None:
            return command.args
        if script.sha in self._hashes:
            return (b"EVALSHA", script.sha, *command.args)
        self._hashes.add(script.sha)
        return (b"EVAL", script.text, *command.args)

    def forget(self, script: Script | None) -> None:
        """A server of several does not know this script; None: the one server does not know one, so it has lost them all."""
        if script is None:
            self._hashes.clear()
        else:
            self._hashes.discard(script.sha)


def call(script: Script, keys: Sequence[bytes], *args: bytes) -> Command:
    """A call of a script, on the node of its first key."""
    return Command(keys[0], (b"%d" % len(keys), *keys, *args), script)


def margin(name: bytes, after_ms: int) -> bytes:
    """How long a token has to live that is needed for `after_ms`, in milliseconds; 0 for those that live for ever."""
    return b"%d" % (after_ms + TOKEN_MARGIN_MS) if transient(name) else b"0"


class Commands:
    """What both halves of the store are made of."""

    address: str
    link: Link
    spread: bool

    def asked(self, commands: Sequence[Command], *, urgent: bool = False, once: bool = False) -> Send[list[Any]]:
        """The answers to commands. Raises `StoreError` if one of them is an error."""
        return Send(self.link, commands, self.checked, urgent=urgent, once=once)

    def checked(self, answers: list[Any]) -> list[Any]:
        """The answers. Raises `StoreError` if one of them is an error."""
        for answer in answers:
            if isinstance(answer, Exception):
                raise translated(answer, self.address) from None
        return answers

    def odd(self, answer: Any, what: str) -> StoreUnavailable:
        """The error for an answer that no Redis gives."""
        return StoreUnavailable(
            f"{self.address} answered {what} with {answer!r:.100}: is it a Redis or Valkey server?", store=self.address
        )

    def values(self, answer: Any, count: int) -> list[bytes | None]:
        """The answer of MGET, checked."""
        if answer.__class__ is list and len(answer) == count:
            for value in answer:
                if value is not None and value.__class__ is not bytes:
                    break
            else:
                return answer
        raise self.odd(answer, "MGET")

    def tokens(self, answers: Sequence[Any], count: int, what: str, nonce: bytes = b"") -> list[bytes]:
        """Tokens, checked; those of a bump carry its nonce."""
        if len(answers) != count:
            raise self.odd(answers, what)
        for token in answers:
            if token.__class__ is not bytes or not token.endswith(nonce) or parse(token) is None:
                raise self.odd(token, what)
        return list(answers)

    def acknowledged(self, answers: Sequence[Any], what: str) -> None:
        """Raises unless each answer is a count, which is how the server says that it has done it."""
        for answer in answers:
            if isinstance(answer, Exception):
                raise translated(answer, self.address) from None
            if answer.__class__ is not int or answer < 0:
                raise self.odd(answer, what)


def side_by_side(together: Sequence[Steps[T]]) -> Flow[list[T]]:
    """Runs flows of one link in step, all their commands of one step in one batch.

    An exception that is thrown in while a batch is waited for is raised by all of them."""
    flows = [iter(flow) for flow in together]
    results: dict[int, T] = {}
    waiting: dict[int, tuple[Flow[T], Any]] = {}
    for at, flow in enumerate(flows):
        try:
            waiting[at] = (flow, next(flow))
        except StopIteration as stop:
            results[at] = returned(stop)
    while waiting:
        steps = [step for _, step in waiting.values()]
        whole: Send[list[Any]] = Send(
            steps[0].link,
            [command for step in steps for command in step.commands],
            urgent=any(step.urgent for step in steps),
            once=any(step.once for step in steps),
        )
        answers = iter((yield from whole))
        following = {}
        for at, (flow, step) in waiting.items():
            try:
                following[at] = (flow, flow.send([next(answers) for _ in step.commands]))
            except StopIteration as stop:
                results[at] = returned(stop)
        waiting = following
    return [results[at] for at in range(len(flows))]
