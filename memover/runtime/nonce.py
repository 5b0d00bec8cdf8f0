"""The names of leases and bumps."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["new_nonce", "new_token"]

_random = random.Random()
"""For leases, of which there are many: the system is asked once a process. Processes that began as copies of one memory by
other means than a fork (a snapshot of a machine) may give two leases one name. Whoever has the one then passes for the holder
of the other, and what it stores is judged by its marks as ever; a bump of the same name would count as the repetition of the
first, so the system is asked for each of those."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def new_nonce(_random: Callable[[int], bytes] = os.urandom) -> str:
    """16 hex digits that no other lease or bump will have, in this process or its forks."""
    return _random(8).hex()


def new_token(_bits: Callable[[int], int] = _random.getrandbits) -> str:
    """The same for a lease, quicker."""
    return f"{_bits(64):016x}"
