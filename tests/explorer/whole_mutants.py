"""Whole processes with one rule broken at a time: of the near tier, of leases, of what is owed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from memover.runtime import heart
from memover.runtime.heart import Heart
from memover.runtime.renewal import Leases
from memover.runtime.state import CacheState
from memover.stores.near import Tier
from memover.stores.redis import scripts
from memover.stores.redis.commands import RedisCommands, call
from tests.near import mutants as of_near

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MUTANTS", "Mutant"]


class Mutant(NamedTuple):
    """One broken rule: what is wrong, the promise that falls with it, the scenario that shows it, and what breaks it."""

    wrong: str
    promise: str
    scenario: str
    breaks: Callable[[], Callable[[], None]]


def replaced(owner: Any, name: str, what: Any) -> Callable[[], None]:
    """Put something in the place of an attribute; what is returned puts it back."""
    real = getattr(owner, name)
    setattr(owner, name, what)
    return lambda: setattr(owner, name, real)


# -- the near tier --------------------------------------------------------------------------------------------------------------


def without_the_calls_token() -> Callable[[], None]:
    """An entry stands under the tokens in its header alone, which an invalidation of one call does not move."""
    real = Tier.fill

    def fill(self: Tier, ticket: Any, item: Any, name: bytes) -> bool:
        came = real(self, ticket, item, name)
        if came:
            item.second = item.first
        return came

    return replaced(Tier, "fill", fill)


def a_round_goes_on_when_a_token_moves() -> Callable[[], None]:
    """What was found to stand in a round is served to the end of it, whatever has moved since."""
    real = Tier.moved

    def moved(self: Tier, names: Any) -> None:
        before = self.round
        real(self, names)
        self.round = before

    return replaced(Tier, "moved", moved)


def a_lost_token_of_all_is_the_known_one() -> Callable[[], None]:
    """A beat that finds no token of all goes on as if nothing had moved."""
    real = Heart._beat

    def beat(self: Any, life: Any, feed: Any) -> None:
        sent, pulse = heart.boottime(), feed.pulse()
        if pulse is None and life.known is not None:
            self.tier.fence = sent
            return
        feed.pulse = lambda: pulse
        try:
            real(self, life, feed)
        finally:
            del feed.pulse

    return replaced(Heart, "_beat", beat)


def the_tier_stays_open_while_it_is_read_anew() -> Callable[[], None]:
    """What comes in between the question for all tokens and its answer is not among them, and is believed."""
    return replaced(Tier, "begin_reading", lambda self: list(self.cells.values()))


def tokens_before_the_token_of_all() -> Callable[[], None]:
    """A beat reads every token first, and then the one that says whether they are new."""

    def beat(self: Any, life: Any, feed: Any) -> None:
        tier, sent = self.tier, heart.boottime()
        cells = tier.begin_reading()
        names = [cell.name for cell in cells]
        tokens = feed.tokens(names) if names else []
        life.known = feed.pulse()
        if life.known is None:
            return
        tier.end_reading(cells, tokens)
        tier.fence = sent

    real = Heart._beat

    def both(self: Any, life: Any, feed: Any) -> None:
        if life.known is None or not self.tier.ready:
            real(self, life, feed)
        elif feed.pulse() == life.known:
            self.tier.fence = heart.boottime()
        else:
            beat(self, life, feed)

    return replaced(Heart, "_beat", both)


def the_token_of_all_moves_first() -> Callable[[], None]:
    """In a cluster, an invalidation moves the token of all before its own."""
    real = RedisCommands.bump

    def bump(self: Any, names: Any, nonce: str, floors: Any, along: Any = ()) -> Any:
        for name in along:
            yield from self.asked([call(scripts.MOVE, (name,), nonce.encode(), b"0")])
        return (yield from real(self, names, nonce, floors, ()))

    return replaced(RedisCommands, "bump", bump)


# -- leases, and what is owed ---------------------------------------------------------------------------------------------------


def leases_are_not_noted() -> Callable[[], None]:
    """A lease is asked for without being noted first: nobody knows of one whose caller was interrupted."""
    return replaced(Leases, "hold", lambda self, call, token: None)


def leases_are_noted_when_granted() -> Callable[[], None]:
    """A lease is noted when the store has granted it."""
    from memover.engine.call import CachedCall

    real = CachedCall.acquire

    def acquire(self: Any, token: str, *, force: bool = False) -> Any:
        function = self.function
        hold, noted = function.hold, []
        function.hold = lambda *told: noted.append(told)
        try:
            grant = yield from real(self, token, force=force)
        finally:
            function.hold = hold
        for told in noted if grant.ours else ():
            hold(*told)
        return grant

    return replaced(CachedCall, "acquire", acquire)


def what_is_owed_is_not_repeated() -> Callable[[], None]:
    """A name whose invalidation failed is closed, and stays closed."""

    def owe(self: Any, name: bytes, repeat: Any) -> None:
        self.witness.owed[name] = repeat
        self.heart.tier.moved(())

    return replaced(CacheState, "owe", owe)


def what_is_owed_closes_nothing() -> Callable[[], None]:
    """An invalidation that failed is forgotten."""
    return replaced(CacheState, "owe", lambda self, name, repeat: None)


MUTANTS: tuple[Mutant, ...] = (
    Mutant("the fence is when the answer came", "P3", "another process invalidates all", of_near.fence_from_receive_time),
    Mutant("a fill does not ask for tokens that moved", "P3", "an entry that is read again while another process invalidates all", of_near.fill_without_tokens),
    Mutant("a beat does not look at the token of all", "P3", "another process invalidates all", of_near.the_token_of_all_is_not_looked_at),
    Mutant("a lost token of all is taken for the known one", "P4", "the token of all is evicted", a_lost_token_of_all_is_the_known_one),
    Mutant("tokens are read before the token of all", "P3", "another process invalidates all", tokens_before_the_token_of_all),
    Mutant("the tier takes entries in while it is read anew", "P3", "an entry that is read again while another process invalidates all",
           the_tier_stays_open_while_it_is_read_anew),
    Mutant("a process hears of its own invalidation by message", "P3", "the process itself invalidates all",
           of_near.own_invalidation_by_message_only),
    Mutant("a round goes on when a token moves", "P3", "the process itself invalidates all between two calls",
           a_round_goes_on_when_a_token_moves),
    Mutant("an entry does not stand under its call's token", "P3", "another process invalidates the call", without_the_calls_token),
    Mutant("in a cluster, the token of all moves first", "P3", "in a cluster, another process invalidates all",
           the_token_of_all_moves_first),
    Mutant("the fence never falls", "P3", "the connection is half open", of_near.fence_never_falls),
    Mutant("a child goes on with its parent's heartbeat", "P7", "the process forks", of_near.fence_kept_over_a_fork),
    Mutant("a lease is never noted", "P17", "a caller is interrupted", leases_are_not_noted),
    Mutant("a lease is noted when it is granted", "P17", "a caller is interrupted", leases_are_noted_when_granted),
    Mutant("what is owed is not repeated", "P7", "the process's own invalidation is not answered", what_is_owed_is_not_repeated),
    Mutant("what is owed closes nothing", "P8", "the process's own invalidation is not answered", what_is_owed_closes_nothing),
)  # fmt: skip
