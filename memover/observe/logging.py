"""The observer for the standard library's logging.

Every event of `memover.runtime.events` has its level there: what happens many times a second is DEBUG, invalidations are
INFO, what somebody should look at is WARNING, and an invalidation that was not acknowledged is ERROR. An event that is not in
the table is a warning. An audit that found a difference is a warning, one that agreed is not.

What a function raises is its caller's business, so a load that failed is no warning. A warning is logged when it
first happens and then at most once in `repeat_after` seconds per event name and namespace, with the number of
those left out: a store that is down would otherwise log as often as it is asked.

Each record carries what it says as attributes too, for formatters that write JSON: `memover_event`,
`memover_namespace`, `memover_key`, `memover_source` (text), `memover_elapsed` and `memover_load_time` (seconds),
`memover_size` (bytes), `memover_detail`, `memover_error` (the exception or None), `memover_left_out`.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING

from memover.clocks import monotonic
from memover.runtime.events import EVENTS

if TYPE_CHECKING:
    from memover.model import Event

__all__ = ["LoggingObserver"]

_LEVELS = {each.name: (getattr(logging, each.level.upper()), getattr(logging, each.failing.upper())) for each in EVENTS}

_WARNED_LIMIT = 1000
"""For how many pairs of event and namespace the last warning is remembered."""


class LoggingObserver:
    """Logs events: `Cache(..., observers=[LoggingObserver()])`. Any thread and event loop may call it.

    * `logger`: a logger or the name of one; default "memover.events".
    * `repeat_after`: seconds for which the same warning of the same namespace is only counted; 0: none is left out.

    It takes no lock, because an exception from outside could leave it locked: of warnings of one kind that come at the same
    moment in several threads more than one may be logged.
    """

    def __init__(self, logger: logging.Logger | str = "memover.events", *, repeat_after: float = 60.0) -> None:
        self.logger = logging.getLogger(logger) if isinstance(logger, str) else logger
        self.repeat_after = repeat_after
        self._warned: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def __call__(self, event: Event) -> None:
        level = level_of(event)
        if not self.logger.isEnabledFor(level):
            return
        left_out = 0
        if level == logging.WARNING:
            counted = self._due(event)
            if counted is None:
                return
            left_out = counted
        self.logger.log(
            level,
            "%s",
            Sentence(event, left_out),
            extra={
                **{f"memover_{name}": value for name, value in event._asdict().items() if name != "name"},
                "memover_event": event.name,
                "memover_source": None if event.source is None else str(event.source),
                "memover_left_out": left_out,
            },
        )

    def _due(self, event: Event) -> int | None:
        """How many like it were left out since the last that was logged; None if it is left out itself."""
        about = (event.name, event.namespace)
        now = monotonic()
        since, left_out = self._warned.get(about, (now - self.repeat_after, 0))
        if now - since < self.repeat_after:
            self._warned[about] = (since, left_out + 1)
            return None
        self._warned[about] = (now, 0)
        while len(self._warned) > _WARNED_LIMIT:
            try:
                self._warned.popitem(last=False)
            except KeyError:
                break
        return left_out


def level_of(event: Event) -> int:
    """The level of the table of events."""
    if event.name == "audit" and event.detail.startswith("differ"):
        return logging.WARNING
    usual, failing = _LEVELS.get(event.name, (logging.WARNING, logging.WARNING))
    return int(usual if event.error is None else failing)


class Sentence:
    """An event as one line of text, made when a handler wants it."""

    def __init__(self, event: Event, left_out: int) -> None:
        self._event = event
        self._left_out = left_out

    def __str__(self) -> str:
        event = self._event
        words = [event.name, event.key or event.namespace]
        if event.source is not None:
            words.append(str(event.source))
        if event.elapsed:
            words.append(f"in {event.elapsed * 1e3:.3f} ms")
        if event.load_time:
            words.append(f"load {event.load_time * 1e3:.3f} ms")
        if event.size:
            words.append(f"{event.size} bytes")
        if event.detail:
            words.append(event.detail)
        text = " ".join(words)
        if event.error is not None:
            text += f": {event.error!r}"
        if self._left_out:
            text += f" ({self._left_out} more were not logged)"
        return text
