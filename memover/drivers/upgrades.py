"""What the entries of older versions are good for: the steps from each of them to this one.

An upgrade stands in the place of a load: under the lease, from an entry that is valid under the tokens captured with it,
stamped with the same tokens and with those of what the upgrade itself used. It keeps what the older entry said of
time, so that a result never lives longer than it was meant to when it was loaded, or than this version means it to.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from memover.clocks import wall
from memover.codec.compression import compress
from memover.codec.envelope import KIND_VALUE, Header, read_header, seal
from memover.drivers.guard import chain
from memover.drivers.site import enter, leave
from memover.engine.flows import MARKS_LIMIT, together
from memover.engine.ops import Outcome, Sealed
from memover.errors import DamagedEntry
from memover.keys.names import entry_key
from memover.model import Key, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memover.drivers.plan import Plan
    from memover.drivers.site import BaseSite
    from memover.engine.ops import Marks, Reading

__all__ = ["Step", "Upgrading", "older_key", "older_keys"]

logger = logging.getLogger("memover")


class Step(NamedTuple):
    """One upgrade of a chain; `plain` prepares what it is given."""

    function: Callable[[Any], Any]
    plain: Callable[[Any], Any]


def older_key(plan: Plan, key: Key, version: int) -> Key:
    """The names of the same call under another version; only what is required of it is read along."""
    policy, prefix = plan.policy, plan.shared.prefix
    text = key.text[len(entry_key(prefix, plan.version_text, policy.namespace, "")) :]
    return Key(entry_key(prefix, version, policy.namespace, text), key.names[: key.required])


def older_keys(plan: Plan, key: Key) -> list[Key]:
    """The names of the same call under each version it is upgraded from; none for another version's key."""
    own = entry_key(plan.shared.prefix, plan.version_text, plan.policy.namespace, "")
    return [older_key(plan, key, version) for version in chain(plan.upgrades)] if key.text.startswith(own) else []


class Upgrading:
    """One upgrade under way, in a `with` that keeps its lease alive and collects what it uses."""

    def __init__(self, site: BaseSite, token: str, version: int, reading: Reading) -> None:
        assert reading.raw is not None and reading.header is not None, "it was judged fresh"
        self._site = site
        self._plan = site.plan
        self._token = token
        self._version = version
        self._raw = reading.raw
        self._header: Header = reading.header
        self._used: Marks | None = ()

    def __enter__(self) -> None:
        self._plan.hold(self._site, self._site.key, self._token)
        self._mark = enter((self._site,))

    def __exit__(self, *_: object) -> None:
        leave(self._mark)
        self._plan.let_go(self._site)
        collector = self._mark[0].collector
        self._used = () if collector is None else collector.result()

    def old(self) -> Any:
        """The older result as plain builtins. Raises `DamagedEntry`."""
        plan, header = self._plan, self._header
        if header.kind != KIND_VALUE or header.codec != plan.codec_name:
            raise DamagedEntry("no value of this codec", reason="codec")
        payload = plan.payload(self._raw, header)
        plain = getattr(plan.codec, "plain", None)
        return plan.codec.decode(payload) if plain is None else plain(payload)

    def steps(self) -> Iterator[Step]:
        """The upgrades from the older version to this one, in order; each is given plain builtins."""
        plan = self._plan
        for at in sorted(plan.upgrades):
            if at >= self._version:
                yield Step(plan.upgrades[at], _as_is if at == self._version else self._plain)

    def _plain(self, value: Any) -> Any:
        plain = getattr(self._plan.codec, "plain", None)
        return value if plain is None else plain(self._plan.codec.encode(value))

    def done(self, value: Any) -> Outcome | None:
        """The result as an outcome with its entry; None, counted and told, when it is none of this function's."""
        plan, key, header, now = self._plan, self._site.key, self._header, wall()
        ttl = plan.policy.ttl
        if ttl is None:
            ttl = plan.shared.default_ttl
        fresh_until = min(header.fresh_until, math.inf if callable(ttl) else header.created_at + ttl)
        stale_window = 0.0 if header.fresh_until == math.inf else header.usable_until - header.fresh_until
        usable_until = fresh_until + stale_window
        marks = together(((plan.generation_name, header.generation), *header.marks), self._used)
        if fresh_until <= now or marks is None or len(marks) > MARKS_LIMIT:
            return None
        try:
            _check(plan, value)
            payload = plan.encode(value)
        except Exception as error:
            return self.failed(error)
        compression, payload = compress(payload, threshold_bytes=plan.shared.compress_from_bytes)
        raw = seal(
            payload,
            key=key.entry,
            generation=header.generation,
            codec=plan.codec_name,
            created_at=header.created_at,
            load_time=header.load_time,
            fresh_until=fresh_until,
            usable_until=usable_until,
            marks=marks[1:],
            compression=compression,
            fingerprint=plan.own_fingerprint(),
        )
        left = usable_until - now
        expire_ms = 0 if left == math.inf else max(1, min(math.ceil(left * 1000), 1 << 52))
        plan.counters.upgrades += 1
        plan.emit("upgrade", key, detail=f"from version {self._version}")
        sealed = Sealed(raw, expire_ms, read_header(raw, key.entry), value)
        return Outcome(value, source=Source.UPGRADED, load_time=header.load_time, sealed=sealed, marks=marks)

    def failed(self, error: BaseException) -> Outcome | None:
        """What went wrong in it is a miss, told, and the function runs; what ends the caller goes on to the caller."""
        plan, key = self._plan, self._site.key
        if not isinstance(error, Exception):
            return Outcome(error=error)
        if isinstance(error, DamagedEntry):
            plan.damaged(key, error)
            return None
        plan.counters.upgrade_errors += 1
        plan.emit("upgrade-error", key, error=error, detail=f"from version {self._version}")
        if plan.counters.upgrade_errors == 1:
            logger.warning(
                "%s: the upgrade from version %d failed, so the function runs instead (further failures are only "
                "counted): %r",
                plan.name,
                self._version,
                error,
            )
        return None


def _check(plan: Plan, value: Any) -> None:
    # A hit must have the type that a load gives.
    from memover.schema.derive import result_class

    expected = result_class(plan.function)
    if expected is not None and not isinstance(value, expected):
        raise TypeError(f"it returned a {type(value).__qualname__}, and {plan.name} returns a {expected.__qualname__}")


def _as_is(value: Any) -> Any:
    return value
