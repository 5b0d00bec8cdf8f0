"""A flow that its owner runs, for a function that calls itself: see `Stepwise`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.engine.answers import Outcome
from memover.engine.steps import Invoke, Send, itself, returned
from memover.latch import FramePresence
from memover.runtime.run import _PERFORM

if TYPE_CHECKING:
    from memover.engine.call import CachedCall
    from memover.engine.steps import Steps

__all__ = ["Stepwise"]


class Stepwise:
    """A call's flow that its owner runs, so that no frame but the owner's is on the stack between two calls of a function
    that calls itself. The owner is the function that calls `advance`, in this form and in no other:

        try:
            while (step := stepwise.advance()) is not None:
                try: stepwise.answer = step.function(*step.args, **step.kwargs)
                except BaseException as error: stepwise.error = error
        finally: stepwise.end()

    As `run` with a call: the call counts as present while its owner runs."""

    __slots__ = ("_presence", "answer", "call", "done", "error", "flow")

    def __init__(self, flow: Steps[Any], call: CachedCall) -> None:
        self.flow = iter(flow)
        self.call = call
        self.answer: Any = None
        self.error: BaseException | None = None
        self.done: Any = None
        self._presence: FramePresence | None = None

    def advance(self) -> Invoke | None:
        """Runs the flow until it wants the user's function called, or to its end: then its result is in `done`."""
        if self._presence is None:
            self.call.presence = self.call.flight.presence = self._presence = FramePresence(1)
        flow, answer, error = self.flow, self.answer, self.error
        raised: BaseException | None = None
        stopped: BaseException | None = None
        self.answer = self.error = None
        try:
            while True:
                if error is None:
                    step = flow.send(answer)
                else:
                    raised, error = error, None
                    step = flow.throw(raised)
                    raised = None
                try:
                    kind = step.__class__
                    if kind is Invoke:
                        return step  # type: ignore[return-value]
                    if kind is Send:
                        answer = step.link.exchange(step)  # type: ignore[attr-defined]
                    else:
                        answer = _PERFORM[kind](step)
                except BaseException as failure:
                    error = failure
        except StopIteration as stop:
            self.done = returned(stop)
            return None
        except RuntimeError as failure:
            stopped = itself(failure)
            if stopped is failure:
                stopped = None
                raise
        finally:
            error = raised = None  # their tracebacks refer to this frame
        try:
            raise stopped
        finally:
            del stopped

    def end(self) -> None:
        """The owner is about to return or to raise: followers go on."""
        done = self.done
        self.call.function.finish(self.call, done if done.__class__ is Outcome else None)
        if self._presence is not None:
            self._presence.forget()
