"""Whether there is something to be read, on descriptors of any number: `select` takes those below 1,024 alone (FD_SETSIZE), and a
web server has more; `poll` takes all, where there is one.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class HasFileno(Protocol):
        def fileno(self) -> int: ...


__all__ = ["readable"]


def readable(sources: Sequence[int | HasFileno], seconds: float = 0.0) -> bool:
    """Waits until one of the descriptors or sockets has something to be read, its end included; False after `seconds`."""
    if not hasattr(select, "poll"):
        return bool(select.select(sources, [], [], max(seconds, 0.0))[0])
    poll = select.poll()
    for source in sources:
        poll.register(source, select.POLLIN)
    return bool(poll.poll(max(seconds, 0.0) * 1000))
