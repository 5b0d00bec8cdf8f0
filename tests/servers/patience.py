"""How long a test's caches wait for their store: a busy machine is no outage."""

from __future__ import annotations

import inspect

__all__ = ["PATIENCE_SECONDS", "be_patient"]

PATIENCE_SECONDS = 3.0
"""In place of memover's defaults of 0.25 s. A test whose subject is a time limit, or a store that does not answer,
gives `socket_timeout` itself."""


def be_patient() -> None:
    """Give every `Cache` of this process that is not told otherwise so long to connect and to be answered."""
    from memover import Cache

    defaults = inspect.unwrap(Cache.__init__).__kwdefaults__
    defaults["socket_timeout"] = defaults["socket_connect_timeout"] = PATIENCE_SECONDS
