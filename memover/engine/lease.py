"""The bytes in a lease's slot, as every store writes them.

L <token> <tokens it was taken under, joined by commas>     a load is under way
F <token>                                                   that load left no entry (for `FAILED_MS`)
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["FAILED_MS", "failed", "has_failed", "held", "holder_of", "is_held", "stamp", "taken_under"]

FAILED_MS = 1000
"""Longer than the slowest poll of a waiter. A caller that comes later ignores the mark."""


def stamp(tokens: Sequence[bytes | None]) -> bytes:
    """The tokens a lease is taken under, as text."""
    return b",".join([token or b"" for token in tokens])


def held(token: str, under: bytes) -> bytes:
    """The slot's text while the load `token` is under way."""
    return b"L %b %b" % (token.encode(), under)


def failed(token: str) -> bytes:
    """The slot's text after the load `token` left no entry."""
    return b"F " + token.encode()


def holder_of(lease: bytes | None, under: bytes) -> str:
    """The token that holds the lease under these very tokens, "" when there is none."""
    if lease is None or not lease.startswith(b"L "):
        return ""
    token, _, taken_under = lease[2:].partition(b" ")
    return token.decode("latin-1") if taken_under == under else ""


def taken_under(lease: bytes) -> list[bytes]:
    """The tokens that a lease was taken under."""
    return lease.split(b" ", 2)[2].split(b",") if lease.startswith(b"L ") else []


def is_held(lease: bytes | None, token: str) -> bool:
    """Whether the load `token` holds the lease, under whatever tokens."""
    return lease is not None and lease.startswith(b"L %b " % token.encode())


def has_failed(lease: bytes | None, token: str) -> bool:
    """Whether the load `token` ended without an entry a moment ago."""
    return lease == failed(token)
