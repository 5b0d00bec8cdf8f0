"""What of this process is asked before the store, for one function: a near cache, a memory store, or reads that the store keeps."""

from __future__ import annotations

from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Any, NamedTuple

from memover.clocks import boottime, real, wall
from memover.engine.judge import FRESH_SOURCE, is_fresh
from memover.runtime.again import made
from memover.runtime.near import handed_out, standing

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.engine.store import Rereads
    from memover.model import Key
    from memover.runtime.function import Function

__all__ = ["FunctionTier", "tier_of"]


class FunctionTier(NamedTuple):
    """How the calls of one function ask this process's tier, and the source of what `hot_call` asks of an item.

    `find(key)` returns an item that stands, `serve(item)` what a caller gets of it or MISSING. `kept(item)` says whether what
    `stands` asks is all there is to ask of it. `pausing` is the source of when not to ask; `names` are those of both sources."""

    find: Callable[[Key], Any]
    serve: Callable[[Any], Any]
    kept: Callable[[Any], bool]
    stands: str
    pausing: str
    names: dict[str, Any]
    near: bool
    kept_read: bool = False
    """Whether an item is a read of the store that need not be done again: the read itself finds it, too."""


def fresh(generation: str, token: str, fresh_until: str, now: str = "{p}time.time()") -> str:
    """The source of `is_fresh` of an item, now."""
    return FRESH_SOURCE.format(generation=generation, token=token, now=now, fresh_until=fresh_until)


def tier_of(function: Function) -> FunctionTier | None:
    """The tier of a function, None where every call goes to the store."""
    memory, near = function.state.memory, function.near
    rereads = function.state.store.rereads()
    if near is not None:
        # In the round in which it was found to stand no token has moved. One clock is asked for its end and for the fence.
        stands = fresh("{p}item.round", "{p}tier.round", "{p}item.until", now="({p}now := {p}boottime())")
        return FunctionTier(
            partial(standing, function),
            partial(handed_out, function),
            lambda item: not item.versions,
            f"{{p}}time.time is {{p}}real and {stands} and {{p}}now - {{p}}tier.fence <= {{p}}staleness",
            "{p}observers.busy or ({p}under_way and {p}inside() is not None)",
            {"boottime": boottime, "real": real, "tier": near, "staleness": function.policy.near},
            True,
        )
    if rereads is not None:
        return kept_reads(function, rereads)
    if memory is None or not function.simple:
        return None
    name, tokens = function.generation_name, memory.tokens
    stands = fresh("{p}item.cohort.generation", "{p}tokens[{p}name]", "{p}item")  # an item is its own fresh_until
    return FunctionTier(
        lambda key: memory.standing(key.text, name, function.fingerprint),
        methodcaller("serve"),
        lambda item: True,
        stands,
        "{p}observers.busy or ({p}under_way and {p}inside() is not None)",
        {"tokens": tokens, "name": name},
        False,
    )


def kept_reads(function: Function, rereads: Rereads) -> FunctionTier | None:
    """The reads that the store keeps of a function whose entries carry their generation alone."""
    if not function.simple or function.last_answers is not None:
        return None
    name, last = function.generation_name, function.witness.last

    def find(key: Key) -> Any:
        kept = rereads.find(key)
        item = None if kept is None else kept.decoded
        if item is None or item.form is not function.form or item.form is None or len(key.names) > 1:
            return None
        token = last(name)
        if token is None or token != item.generation or not is_fresh(token, item.fresh_until, item.generation, wall()):
            return None
        item.generation = token  # the same object, by which generated calls know it
        return item

    stands = fresh("{p}item.generation", "{p}believed[{p}name][0]", "{p}item.fresh_until")
    return FunctionTier(
        find,
        made,
        lambda item: True,
        f"{rereads.stands} and {stands}",
        "{p}observers.busy or {p}owed or ({p}under_way and {p}inside() is not None)",
        {"believed": function.witness.believed, "owed": function.witness.owed, "name": name, **rereads.names},
        False,
        True,
    )
