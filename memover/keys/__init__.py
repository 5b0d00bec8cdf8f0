"""From a call's arguments to the name of its entry: naming, canonical bytes, bindings, human keys."""

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
