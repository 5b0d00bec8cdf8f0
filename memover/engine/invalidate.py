"""Every invalidation there is: of a call, a namespace, tags, and key-value entries.

An invalidation is acknowledged by the store or raises `InvalidationFailed`. In the second case the names are owed: this
process serves and stores nothing under them, and the invalidation is repeated until the store has taken it (P8). It is
idempotent through its nonce. Each is counted once and emits one `invalidate` event, whichever way it ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from memover.errors import StoreError, failed_invalidation
from memover.keys.shards import with_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow
    from memover.engine.store import Store
    from memover.engine.tokens import Witness
    from memover.model import Key

__all__ = ["OWED_LIMIT", "Ledger", "Subject", "acknowledged", "bumped", "drop", "move"]

T = TypeVar("T")

OWED_LIMIT = 1000
"""So many invalidations may be owed one by one; beyond that a whole namespace is owed instead: it covers more in one step."""


class Ledger(Protocol):
    """Where invalidations are owed and settled; see `runtime.state`."""

    store: Store
    witness: Witness
    coarse_name: bytes

    def owing(self, names: Sequence[bytes]) -> dict[bytes, Callable[[], Flow[object]]]: ...
    def owe(self, name: bytes, repeat: Callable[[], Flow[object]]) -> None: ...
    def settled(self, before: dict[bytes, Callable[[], Flow[object]]]) -> None: ...


class Subject(Protocol):
    """What an invalidation concerns, as its caller describes it."""

    what: str
    """What it concerns, for messages."""
    names: tuple[bytes, ...]
    """The names in the store that `InvalidationFailed.what` lists."""

    def begin(self) -> None:
        """What this process keeps of the invalidated entries is dropped: called before the store is asked, and after."""
        ...

    def failed(self, error: StoreError, failure: Exception) -> None:
        """The store did not acknowledge it: count and tell."""
        ...

    def done(self) -> None:
        """The store acknowledged it: count and tell."""
        ...


def acknowledged(
    ledger: Ledger,
    subject: Subject,
    names: Sequence[bytes],
    step: Callable[[], Flow[T]],
    wider: tuple[bytes, Callable[[], Flow[object]]] | None = None,
) -> Flow[T]:
    """Runs one invalidation of `names`: settles what was owed of them when it succeeds, owes it when it fails.

    `wider` is a name and its invalidation that cover this one: it is owed instead when very many are owed already."""
    subject.begin()
    before = ledger.owing(names)
    try:
        answer = yield from step()
    except StoreError as error:
        if wider is not None and len(ledger.witness.owed) + len(names) > OWED_LIMIT:
            ledger.owe(*wider)
        else:
            for name in names:
                ledger.owe(name, step)
        failure = failed_invalidation(subject.what, subject.names, ledger.store.address)
        subject.failed(error, failure)
        raise failure from error
    subject.begin()
    ledger.settled(before)
    subject.done()
    return answer


def bumped(ledger: Ledger, names: Sequence[bytes], nonce: str, along: Sequence[bytes]) -> Flow[list[bytes]]:
    """Moves names to new tokens and notes these; those in `along` move too if they exist. One command; on a Cluster one for
    each name and each of its shards, side by side, whose tokens follow those of the names."""
    names = with_shards(names, ledger.store.generation_shards)
    floors = [ledger.witness.floor(name) for name in names]
    tokens = yield from ledger.store.bump(names, nonce, floors, along)
    ledger.witness.trusts(names, tokens)
    ledger.witness.doubt(*along)
    return tokens


def move(
    ledger: Ledger, subject: Subject, names: Sequence[bytes], nonce: str, *, along: Sequence[bytes] = ()
) -> Flow[list[bytes]]:
    """Invalidates by moving tokens: a namespace's generation, its soft mark, or tags with their clock."""
    return (yield from acknowledged(ledger, subject, names, lambda: bumped(ledger, names, nonce, along)))


def drop(
    ledger: Ledger, subject: Subject, call: CachedCall, nonce: str, older: Sequence[Key], generation_name: bytes
) -> Flow[None]:
    """Removes one call's entry and its lease, so that no load under way can store, and moves the tokens that stand for it.

    The entries of older versions that it could be upgraded from go first: after the last step nothing is left to make it
    from."""
    key, call_name = call.key, call.function.call_name(call.key)
    along = (call_name, ledger.coarse_name)

    def remove() -> Flow[None]:
        for each in older:
            yield from ledger.store.drop(each.entry, each.lease, nonce, ())
        yield from ledger.store.drop(key.entry, key.lease, nonce, along)
        ledger.witness.doubt(*along)

    # Under the call's own token too, which closes what used its result.
    wider = (generation_name, lambda: bumped(ledger, (generation_name,), nonce, (ledger.coarse_name,)))
    yield from acknowledged(ledger, subject, (key.entry, call_name), remove, wider)
