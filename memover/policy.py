"""What a decorated function asked for, checked once and kept as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from memover.durations import seconds_of
from memover.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.durations import Duration
    from memover.model import Call

__all__ = ["OnStoreError", "Policy", "staleness_of"]

OnStoreError = Literal["load", "raise", "stale"]

NEAR_SECONDS, NEAR_LEAST_SECONDS = 1.0, 0.1
"""What `near=True` means, and the least that can be asked for."""


def staleness_of(near: Any) -> float | None:
    """The greatest staleness in seconds that `near=` allows, None without a near cache. Raises `ConfigurationError`."""
    if near is None or near is False:
        return None
    if near is True:
        return NEAR_SECONDS
    if isinstance(near, str):
        from memover.spelling import switch

        meant = switch(near)
        if meant is not None and not near.strip().isdigit():
            raise ConfigurationError(f"near={near!r} is text; write near={meant}")
    return seconds_of(near, "near", least=NEAR_LEAST_SECONDS, zero=True, never=False)


def _check_share(name: str, value: Any, meaning: str, below: float = math.inf) -> None:
    """Raises `ConfigurationError` for what is no number from 0 to 1, and below this one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1 or value >= below:
        from memover.spelling import number, write

        raise ConfigurationError(f"{name}={value!r}: give {meaning}{write(name, number(value), least=0, most=1)}.")


@dataclass(frozen=True)
class Policy:
    """The checked options of one decorated function; durations in seconds, infinity for never.

    `ttl` is None where the cache's default applies, a float, or a callable `(result, call) -> duration`;
    `wait_timeout` and `lease_ttl` are None where the cache's apply.
    """

    namespace: str
    version: int
    ttl: float | Callable[[Any, Call], Duration] | None = None
    cache_if: Callable[[Any, Call], bool] | None = None
    jitter: float = 0.0
    on_store_error: OnStoreError = "load"
    wait_timeout: float | None = None
    lease_ttl: float | None = None
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    beta: float = 0.0
    soft_timeout: float | None = None
    cache_errors: tuple[type[Exception], ...] = ()
    error_ttl: float = 10.0
    track_dependencies: bool = True
    near: float | None = None
    """The greatest staleness in seconds of an answer from the near cache, None without one."""
    audit: float = 0.0

    def __post_init__(self) -> None:
        if self.on_store_error not in get_args(OnStoreError):
            raise ConfigurationError(f'on_store_error={self.on_store_error!r}: give "load", "raise" or "stale".')
        _check_share("jitter", self.jitter, "the greatest share of the ttl to take away, 0 to below 1", below=1)
        _check_share("audit", self.audit, "the share of the hits to compare with the source, 0 to 1")
        for kind in self.cache_errors:
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                meant = f": write cache_errors=({kind},)" if isinstance(kind, str) and kind.isidentifier() else ""
                raise ConfigurationError(f"cache_errors= takes classes of exceptions, not {kind!r}{meant}.")
        if self.cache_if is not None and not callable(self.cache_if):
            raise ConfigurationError("cache_if= takes a callable (result, call) -> bool.")
        for name, asked in (("cache_if", self.cache_if), ("ttl", self.ttl)):
            if callable(asked):
                from inspect import iscoroutinefunction

                if iscoroutinefunction(asked) or iscoroutinefunction(type(asked).__call__):
                    raise ConfigurationError(f"{name}= takes a callable that is not awaited: write def, not async def.")

    @property
    def stale_window(self) -> float:
        """Seconds for which an entry may be of use after it was fresh."""
        return max(self.stale_while_revalidate, self.stale_if_error)

    def keeps(self, error: BaseException) -> bool:
        """Whether this error is a result to be cached."""
        return isinstance(error, self.cache_errors)

    def fixed(self, default: float) -> tuple[float, float] | None:
        """Seconds for which every result stays fresh, and may be of use after that; None where that depends on the result."""
        if callable(self.ttl) or self.cache_if is not None or self.jitter:
            return None
        return max(default if self.ttl is None else self.ttl, 0.0), self.stale_window

    def lifetime(self, result: Any, describe: Callable[[], Call], default: float, chance: float) -> float:
        """Seconds for which this result stays fresh, 0 when it must not be stored. `chance` is in [0, 1).

        `describe` makes the call as the user's callables are given it, where there are any."""
        if self.cache_if is not None and not self.cache_if(result, describe()):
            return 0.0
        ttl = self.ttl
        if ttl is None:
            fresh_for = default
        elif callable(ttl):
            fresh_for = seconds_of(ttl(result, describe()), f"ttl of {self.namespace!r}", least=-math.inf)
        else:
            fresh_for = ttl
        if self.jitter and fresh_for < math.inf:
            fresh_for *= 1 - self.jitter * chance
        return max(fresh_for, 0.0)
