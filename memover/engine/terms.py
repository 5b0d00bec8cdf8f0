"""What the flows of one call are told, and what they note for one another while they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover.engine.tokens import parse
from memover.engine.judge import VERSION, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.engine.tokens import Witness
    from memover.engine.ops import Reading
    from memover.policy import OnStoreError

__all__ = ["Terms"]


class Terms:
    """Names, limits and clocks of one call; durations in seconds.

    `names` are the required ones, and `required` how many; `soft` is the one of them that makes stale. `call_name` is
    the call's own token, "" unless a load that tracks what it uses is waiting for the answer; `clock_name` the
    tag clock, "" unless tags may be known late; `coarse_name` the token for too many; `upgrades` the older versions that
    an entry can be made from, the newest first. `spread` is whether keys are on
    different nodes. `call_token` and `usable` (the last reading that was stale) are noted by the flows.
    """

    __slots__ = (
        "beta",
        "call_name",
        "call_token",
        "chance",
        "clock_name",
        "coarse_name",
        "entry",
        "keeps",
        "max_age",
        "monotonic",
        "names",
        "new_token",
        "now",
        "on_store_error",
        "required",
        "soft",
        "soft_timeout",
        "spread",
        "stale_if_error",
        "stale_while_revalidate",
        "upgrades",
        "usable",
        "wait_seconds",
        "witness",
    )

    def __init__(
        self,
        *,
        entry: bytes,
        names: Sequence[bytes],
        witness: Witness,
        on_store_error: OnStoreError,
        wait_seconds: float,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        new_token: Callable[[], str],
        chance: Callable[[], float],
        keeps: Callable[[BaseException], bool],
        max_age: float | None = None,
        soft: bytes | None = None,
        call_name: bytes = b"",
        clock_name: bytes = b"",
        coarse_name: bytes = b"",
        spread: bool = False,
        beta: float = 0.0,
        stale_while_revalidate: float = 0.0,
        stale_if_error: float = 0.0,
        soft_timeout: float | None = None,
        upgrades: Sequence[int] = (),
    ) -> None:
        self.entry = entry
        self.names = names
        self.required = len(names)
        self.witness = witness
        self.on_store_error = on_store_error
        self.wait_seconds = wait_seconds
        self.now = now
        self.monotonic = monotonic
        self.new_token = new_token
        self.chance = chance
        self.keeps = keeps
        self.max_age = max_age
        self.soft = soft
        self.call_name = call_name
        self.clock_name = clock_name
        self.coarse_name = coarse_name
        self.spread = spread
        self.beta = beta
        self.stale_while_revalidate = stale_while_revalidate
        self.stale_if_error = stale_if_error
        self.soft_timeout = soft_timeout
        self.upgrades = upgrades
        self.call_token: bytes | None = None
        self.usable: Reading | None = None

    def closed(self) -> bool:
        """Whether an invalidation that would concern this call is still owed to the store."""
        return self.witness.owes(self.names, self.entry)

    def owing(self, names: Sequence[bytes]) -> bool:
        """Whether an invalidation of any of these names is still owed; the coarse token stands for all there are."""
        owed = self.witness.owed
        return bool(owed) and (self.coarse_name in names or self.witness.owes(names))

    def judge(self, reading: Reading) -> Verdict:
        """The verdict on a reading that is trusted."""
        return judge(
            reading.header,
            reading.names,
            reading.tokens,
            self.now(),
            self.max_age,
            required=self.required,
            soft=self.soft,
            versions=self.witness.versions,
        )

    @staticmethod
    def older(token: bytes, clock: bytes) -> bool:
        """Whether a tag's token was given before the tag clock stood at `clock`."""
        mark, limit = parse(token), parse(clock)
        return mark is not None and limit is not None and mark.number < limit.number

    @staticmethod
    def is_version(name: bytes) -> bool:
        """Whether a mark says which version of a function was used."""
        return name.startswith(VERSION)
