"""What a function returned, as its callers get it, whether it is stored or not.

`NotCached(value)` is opened, and a result that is no data until it is evaluated becomes data: a queryset of Django's becomes
the list of its rows, so that the caller who loaded and those who hit are given the same. Every way to run the user's function
ends here, the one that has caching turned off included. Of what is inside a result nothing is evaluated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from memover.engine.steps import Invoke
from memover.model import NotCached

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from memover.engine.steps import Flow

__all__ = ["aevaluated", "evaluate_by", "evaluated", "evaluating", "is_lazy", "unwrapped"]

_NOT_CACHED: Any = NotCached  # a class, whatever it is to a type checker


class Evaluation(NamedTuple):
    """How the instances of a class are evaluated: for `def` functions, and awaited for `async def` functions."""

    kind: type
    evaluate: Callable[[Any], Any]
    aevaluate: Callable[[Any], Awaitable[Any]]


_evaluations: tuple[Evaluation, ...] = ()


def evaluate_by(kind: type, evaluate: Callable[[Any], Any], aevaluate: Callable[[Any], Awaitable[Any]]) -> None:
    """Has results of a class and its subclasses evaluated. What either function raises counts as raised by the cached one."""
    global _evaluations  # noqa: PLW0603
    _evaluations = (*(each for each in _evaluations if each.kind is not kind), Evaluation(kind, evaluate, aevaluate))


def _evaluation(value: Any) -> Evaluation | None:
    if _evaluations:
        value = unwrapped(value)
        for each in _evaluations:
            if isinstance(value, each.kind):
                return each
    return None


def is_lazy(value: Any) -> bool:
    """Whether a result has to be evaluated."""
    return bool(_evaluations) and _evaluation(value) is not None


def _instead(value: Any, data: Any) -> Any:
    return _NOT_CACHED(data) if isinstance(value, _NOT_CACHED) else data


def unwrapped(value: Any) -> Any:
    """What the caller gets of a result that may be a `NotCached`."""
    return value.value if isinstance(value, _NOT_CACHED) else value


def evaluated(value: Any) -> Any:
    """What a `def` function returned, evaluated; a `NotCached` remains one."""
    evaluation = _evaluation(value)
    return value if evaluation is None else _instead(value, evaluation.evaluate(unwrapped(value)))


async def aevaluated(value: Any) -> Any:
    """As `evaluated`, of what an `async def` function returned."""
    evaluation = _evaluation(value)
    return value if evaluation is None else _instead(value, await evaluation.aevaluate(unwrapped(value)))


def evaluating(value: Any, *, awaited: bool) -> Flow[Any]:
    """As `evaluated`, as a flow; `awaited` says whether the function is `async def`."""
    evaluation = _evaluation(value)
    if evaluation is None:
        return value
    function = evaluation.aevaluate if awaited else evaluation.evaluate
    return _instead(value, (yield from Invoke(function, (unwrapped(value),))))
