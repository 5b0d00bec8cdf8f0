"""What a bulk loader (`batch_load`) answered: which value belongs to which call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memover.errors import ConfigurationError, raised_by_handler

if TYPE_CHECKING:
    from memover.model import Call

__all__ = ["matched"]


def matched(calls: Sequence[Call], answered: Any) -> list[tuple[Any, ...]]:
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
