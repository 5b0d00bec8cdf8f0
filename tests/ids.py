"""Names of parametrized cases that are the same in each process of a test run, as pytest-xdist needs them."""

from __future__ import annotations

import re

__all__ = ["steady_repr"]


def steady_repr(value: object) -> str:
    """The value's `repr` without addresses, for `ids=`."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
