"""From a call's arguments to the name of its entry: naming, canonical bytes, bindings, human keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import canonical
from .binding import Binding
from .canonical import encode, register_key
from .names import (
    check_namespace,
    check_prefix,
    check_version,
    entry_key,
    generation_key,
    lease_key,
    tag_key,
)

if TYPE_CHECKING:
    from .canonical import Encoder

__all__ = [
    "Binding",
    "check_namespace",
    "check_prefix",
    "check_version",
    "encode",
    "entry_key",
    "generation_key",
    "lease_key",
    "register_key",
    "tag_key",
]


def _find(kind: type) -> Encoder | None:
    # Imported at the first type that is not in the table, which many programs never meet.
    from . import arrays, records, tables, types

    return types.find(kind) or records.find(kind) or arrays.find(kind) or tables.find(kind)


canonical.finders.append(_find)
