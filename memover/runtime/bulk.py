"""A bulk loader: what it is asked for the calls of a batch, and which value is which call's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from memover.engine.steps import Invoke, itself
from memover.errors import ConfigurationError, raised_by_handler
from memover.runtime.dependencies import enter, leave
from memover.runtime.results import evaluating

if TYPE_CHECKING:
    from memover.engine.answers import Outcome
    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow
    from memover.model import Call
    from memover.runtime.function import Function

__all__ = ["load_many"]


def load_many(
    function: Function, loader: Callable[..., Any], calls: Sequence[CachedCall]
) -> Flow[list[Outcome | None]]:
    """Runs the loader: an outcome for each call that it had a value for, None for the others."""
    described = [function.described(call.key, call.args, call.kwargs) for call in calls]
    entered = enter(calls, function.state, function.policy.track_dependencies)
    values, error, began = list[tuple[Any, ...]](), None, perf_counter()
    try:
        answered = yield from Invoke(loader, (described,))
        for value in _matched(described, answered):  # which may be of any class
            values.append(((yield from evaluating(value[0], awaited=function.is_async)),) if value else ())
    except BaseException as raised:
        error = itself(raised)
    finally:
        leave(entered)
    seconds, used = perf_counter() - began, entered[0]
    if error is not None:
        return [function.loaded(call, None, error, seconds, used) for call in calls]
    return [
        function.loaded(call, value[0], None, seconds, used) if value else None for call, value in zip(calls, values)
    ]


def _matched(calls: Sequence[Call], answered: Any) -> list[tuple[Any, ...]]:
    """The bulk loader's values in the order of the calls, each in a tuple; an empty tuple where it had none."""
    if isinstance(answered, Mapping):
        values: list[tuple[Any, ...]] = []
        for call in calls:
            if call in answered:
                values.append((answered[call],))
                continue
            arguments = call.arguments
            alone = next(iter(arguments.values())) if len(arguments) == 1 else call
            try:
                values.append((answered[alone],) if alone in answered else ())
            except TypeError as error:  # an argument that cannot be a key of a dict cannot have been one
                if raised_by_handler(error):
                    raise
                values.append(())
        return values
    if isinstance(answered, Sequence) and not isinstance(answered, (str, bytes)) and len(answered) == len(calls):
        return [(value,) for value in answered]
    raise ConfigurationError(
        f"The bulk loader of {calls[0].namespace!r} answered {len(calls)} calls with {type(answered).__name__}: return a "
        f"mapping from the calls (or, for a function of one argument, from that argument) to their values, which may leave "
        f"some out, or a sequence of as many values as there are calls."
    )
