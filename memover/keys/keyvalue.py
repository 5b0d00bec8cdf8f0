"""The names of the key-value API: what a user's key is called in the store, and which keys are refused.

    key         text                                made by
    ----------  ----------------------------------  --------------------
    entry       {prefix}:{version}:{key}            `stored_key`, or a key function of the user's
    generation  {prefix}:gen:~kv                    `names.generation_key` of `NAMESPACE`
    lease       {<entry key>}:lease                 `Name`

The generation is one for all versions, so that clearing is one step; `~` is in no namespace, so no function has it.

A key is any text, as in Django, and stands in the store as it is written. Refused are the texts that something else
of memover's could be called: `namespace:` and 32 hex digits (the result of a call), and, which only a key function can
make, generations, tags and leases. What remains and looks like a human key of a decorated function (`users:7`)
is told apart by its header, which names another generation: the two replace each other, but neither is ever
read as the other.

Redis Cluster places a key by what is between its first braces. A lease must be where its entry is: for a key with
braces of its own it is `{what is between them}:lease:<entry key>`.
"""

from __future__ import annotations

import re
from typing import Any

from memover.errors import ConfigurationError
from memover.model import Key

__all__ = ["NAMESPACE", "Name", "check_stored", "stored_key"]

NAMESPACE = "~kv"
KEY_LIMIT_BYTES = 60_000

_OF_OTHERS = re.compile(
    r"\{.*\}:lease"
    r"|[A-Za-z0-9_.-]{0,64}:(?:gen|tag):"
    r"|[A-Za-z0-9_.-]{0,64}:[0-9]+:[A-Za-z0-9_./-]{1,200}:[0-9a-f]{32}\Z",
    re.DOTALL,
)


def stored_key(prefix: str, version: int, key: Any) -> str:
    """The stored key of a user's key. Raises `ConfigurationError` for what is no str."""
    if type(key) is not str and not isinstance(key, str):
        raise ConfigurationError(f"A key must be a str, not {key!r} ({type(key).__name__}): write str(key).")
    return f"{prefix}:{version}:{key}"


def check_stored(text: str) -> str:
    """A stored key as given. Raises `ConfigurationError` where it could be mistaken for something else of memover's."""
    if _OF_OTHERS.match(text):
        raise ConfigurationError(
            f"The key {text[:300]!r} reads like one that memover makes itself (a decorated function's entry is "
            f"prefix:version:namespace: and 32 hex digits; prefix:gen:, prefix:tag: and leases are its bookkeeping), so one "
            f"could replace the other. Put a word of your own before the digits, say 'page:' or 'v:'."
        )
    return text


class Name(Key):
    """The names of one key-value entry; `spread` is true where keys live on different nodes."""

    __slots__ = ()

    def __init__(self, text: str, names: tuple[bytes, ...], *, spread: bool = False) -> None:
        try:
            super().__init__(text, names)
        except UnicodeEncodeError:
            raise ConfigurationError(
                f"The key {text[:300]!r} holds half a character (a lone surrogate): decode it first."
            ) from None
        if len(self.entry) > KEY_LIMIT_BYTES:
            raise ConfigurationError(
                f"The key {text[:60]!r}... has {len(self.entry):,} bytes, more than {KEY_LIMIT_BYTES:,}: use a digest of it."
            )
        if "}" in text:
            self._apart(text, spread)

    def _apart(self, text: str, spread: bool) -> None:
        opened = text.find("{")
        closed = text.find("}", opened + 1) if opened >= 0 else -1
        if closed > opened + 1:
            self.lease = f"{{{text[opened + 1 : closed]}}}:lease:{text}".encode()
        elif spread:
            raise ConfigurationError(
                f"The key {text[:300]!r} holds a brace that Redis Cluster cannot place together with its lease: leave out the "
                f"'}}', or put text between the braces."
            )
