"""Observers: callables that take an `Event`, given to `Cache(observers=...)`. Nothing in memover imports this package.

An observer of one's own is any callable of one argument. It is called in the thread or task of the call that it is told
of, while that call waits: it should be quick and must not block an event loop. What it raises is logged once and
breaks nothing. Those that come with memover are in `logging`, `prometheus` and `opentelemetry`.
"""

from memover.observe.logging import LoggingObserver

__all__ = ["LoggingObserver"]
