"""Entries of older versions made into this one's: the steps from each of them to this one.

An upgrade stands in the place of a load: under the lease, from an entry that is valid under the tokens captured with it,
stored with the same tokens and with those of what the upgrade itself used. It keeps the instants of the older entry, so
that a result never lives longer than it was meant to when it was loaded, or than this version means it to.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from memover.clocks import wall
from memover.codec.envelope import KIND_VALUE, Header
from memover.codec.faults import from_outside
from memover.engine.answers import Outcome
from memover.engine.marks import MARKS_LIMIT, together
from memover.engine.steps import Invoke, itself
from memover.errors import DamagedEntry
from memover.model import Source
from memover.runtime.dependencies import enter, leave
from memover.runtime.results import evaluating

if TYPE_CHECKING:
    from memover.engine.answers import Marks, Reading
    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow
    from memover.runtime.function import Function

__all__ = ["Upgrading"]

logger = logging.getLogger("memover")


class Upgrading:
    """One upgrade of one call, from the entry that `reading` found under an older version."""

    def __init__(self, function: Function, call: CachedCall, version: int, reading: Reading) -> None:
        assert reading.raw is not None and reading.header is not None, "it was judged fresh"
        self._function = function
        self._call = call
        self._version = version
        self._raw = reading.raw
        self._header: Header = reading.header

    def flow(self) -> Flow[Outcome | None]:
        """The outcome with its sealed entry; None when the function has to run after all.

        An exception in an upgrade counts as a miss: it is reported and the function runs. KeyboardInterrupt and other
        BaseExceptions are the outcome."""
        function = self._function
        entered = enter((self._call,), function.state, function.policy.track_dependencies)
        try:
            value = self._old()
            for version in sorted(each for each in function.upgrades if each >= self._version):
                older = value if version == self._version else self._plain(value)
                value = yield from Invoke(function.upgrades[version], (older,))
                value = yield from evaluating(value, awaited=function.is_async)
        except BaseException as error:
            return self._failed(itself(error))
        finally:
            leave(entered)
        used = entered[0]
        done = self._done(value, used.result())
        if done is not None:
            done.declared = tuple(used.tags)
        return done

    def _old(self) -> Any:
        """The older result as plain builtins. Raises `DamagedEntry`."""
        function, header = self._function, self._header
        if header.kind != KIND_VALUE or header.codec != function.codec_name:
            raise DamagedEntry("no value of this codec", reason="codec")
        payload = function.payload(self._raw, header)
        plain = getattr(function.codec, "plain", None)
        return function.codec.decode(payload) if plain is None else plain(payload)

    def _plain(self, value: Any) -> Any:
        """What the upgrade before it returned, as the plain builtins that each of them is given."""
        codec = self._function.codec
        plain = getattr(codec, "plain", None)
        return value if plain is None else plain(codec.encode(value))

    def _done(self, value: Any, used: Marks | None) -> Outcome | None:
        """The result as an outcome with its entry; None, counted and reported, when it is not one of this function's."""
        function, header, now = self._function, self._header, wall()
        ttl = function.policy.ttl
        if ttl is None:
            ttl = function.state.default_ttl
        fresh_until = min(header.fresh_until, math.inf if callable(ttl) else header.created_at + ttl)
        stale_window = 0.0 if header.fresh_until == math.inf else header.usable_until - header.fresh_until
        marks = together(((self._call.key.names[0], header.generation), *header.marks), used)
        if fresh_until <= now or marks is None or len(marks) > MARKS_LIMIT:
            return None
        try:
            _check(function, value)
            function.encode(value)
        except Exception as error:
            return self._failed(itself(error))
        sealed = function.packed(
            self._call,
            value,
            marks,
            KIND_VALUE,
            now,
            header.created_at,
            header.load_time,
            fresh_until,
            fresh_until + stale_window,
        )
        if sealed is None or sealed.error is not None:
            return None
        function.counters.upgrades += 1
        function.emit("upgrade", self._call.key, detail=f"from version {self._version}")
        return Outcome(value, source=Source.UPGRADED, load_time=header.load_time, sealed=sealed, marks=marks)

    def _failed(self, error: BaseException) -> Outcome | None:
        function, key = self._function, self._call.key
        if from_outside(error):
            outcome = Outcome(error=error)
            outcome.outside = True
            return outcome
        if isinstance(error, DamagedEntry):
            function.damaged(key, error, self._raw)
            return None
        function.counters.upgrade_errors += 1
        function.emit("upgrade-error", key, error=error, detail=f"from version {self._version}")
        if function.counters.upgrade_errors == 1:
            logger.warning(
                "%s: the upgrade from version %d failed, so the function runs instead (further failures are only "
                "counted): %r",
                function.name,
                self._version,
                error,
            )
        return None


def _check(function: Function, value: Any) -> None:
    # A hit must have the type that a load gives.
    from memover.schema.derive import result_class

    expected = result_class(function.function)
    if expected is not None and not isinstance(value, expected):
        kind = type(value).__qualname__
        raise TypeError(f"it returned a {kind}, and {function.name} returns a {expected.__qualname__}")
