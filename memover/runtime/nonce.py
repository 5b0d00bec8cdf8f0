"""The names of leases and bumps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["new_nonce"]


def new_nonce(_random: Callable[[int], bytes] = os.urandom) -> str:
    """16 hex digits that no other lease or bump will have, in this process or its forks."""
    return _random(8).hex()
