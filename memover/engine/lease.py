"""The bytes in a lease's slot, as every store writes them.

L <token> <tokens it was taken under, joined by commas>     a load is under way
F <token>                                                   that load left no entry (for `FAILED_MS`)
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["FAILED_MS", "failed", "held", "holder_of", "stamp"]

FAILED_MS = 1000
"""Longer than the slowest poll of a waiter; whoever calls anew does not heed the mark."""


def stamp(tokens: Sequence[bytes | None]) -> bytes:
    """The tokens a lease is taken under, as text."""
    return b",".join(token or b"" for token in tokens)


def held(token: str, under: bytes) -> bytes:
    return b"L %b %b" % (token.encode(), under)


def failed(token: str) -> bytes:
    return b"F " + token.encode()


def holder_of(lease: bytes | None, under: bytes) -> str:
    """The token that holds the lease under these very tokens, "" when nobody does."""
    if lease is None or not lease.startswith(b"L "):
        return ""
    token, _, taken_under = lease[2:].partition(b" ")
    return token.decode("latin-1") if taken_under == under else ""
