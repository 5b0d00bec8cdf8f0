"""From a call's arguments to the name of its entry: naming, canonical bytes, bindings, human keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover.later import late_names

if TYPE_CHECKING:
    from memover.keys.binding import Binding
    from memover.keys.canonical import encode, register_key
    from memover.keys.names import (
        check_namespace,
        check_prefix,
        check_version,
        entry_key,
        generation_key,
        lease_key,
        tag_key,
    )

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

# Loaded when first asked for: `names` is needed by all, what reads arguments with the first decorated function.
_HOMES = {
    **dict.fromkeys(__all__, "memover.keys.names"),
    "Binding": "memover.keys.binding",
    "encode": "memover.keys.canonical",
    "register_key": "memover.keys.canonical",
}

__getattr__ = late_names(__name__, _HOMES)
