"""What the entries of older versions are good for: the steps from each of them to this one.

An upgrade stands in the place of a load: under the lease, from an entry that is valid under the tokens captured with it,
stamped with the same tokens. It keeps what the older entry said of time, so that a result never lives longer than it
was meant to when it was loaded, or than this version means it to.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from memover.clocks import wall
from memover.codec.compression import compress
from memover.codec.envelope import Header, read_header, seal
from memover.engine.judge import FRESH, judge
from memover.engine.ops import Outcome, Sealed
from memover.errors import DamagedEntry
from memover.keys.naming import entry_key
from memover.model import Key, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.drivers.plan import Plan
    from memover.stores.base import Seen

__all__ = ["Old", "Step", "chain", "failed", "older_keys", "steps", "upgraded", "usable"]

logger = logging.getLogger("memover")


class Old(NamedTuple):
    """An older version's entry that may be used: its value as plain builtins, and what its header says."""

    value: Any
    header: Header


class Step(NamedTuple):
    """One upgrade of a chain; `plain` prepares what it is given."""

    function: Callable[[Any], Any]
    plain: Callable[[Any], Any]


def chain(plan: Plan) -> list[int]:
    """The versions that can be upgraded from, the newest first."""
    return sorted(plan.upgrades, reverse=True)


def older_keys(plan: Plan, key: Key) -> list[Key]:
    """The names of the same call under each of these versions, in the order of `chain`; none for another version's key."""
    policy, prefix = plan.policy, plan.shared.prefix
    own = entry_key(prefix, policy.version, policy.namespace, "")
    if not key.text.startswith(own):
        return []
    text = key.text[len(own) :]
    return [Key(entry_key(prefix, version, policy.namespace, text), key.names) for version in chain(plan)]


def steps(plan: Plan, version: int) -> list[Step]:
    """The upgrades from a version to this one, in order; each later one is given plain builtins like the first."""
    found = []
    for at in sorted(plan.upgrades):
        if at >= version:
            found.append(Step(plan.upgrades[at], _as_is if at == version else lambda value: _plain(plan, value)))
    return found


def usable(
    plan: Plan, key: Key, seen: Seen, tokens: Sequence[bytes | None], max_age: float | None
) -> Old | None:
    """What was read under an older version's key, if it may answer a call that captured these tokens."""
    if seen.raw is None:
        return None
    try:
        header = read_header(seen.raw, key.entry)
        if judge(header, key.names, tokens, wall(), max_age) is not FRESH or header.codec != plan.codec_name:
            return None
        payload = plan.payload(seen.raw, header)
        plain = getattr(plan.codec, "plain", None)
        return Old(plan.codec.decode(payload) if plain is None else plain(payload), header)
    except DamagedEntry as error:
        plan.damaged(key, error)
    except Exception as error:  # a codec of the application's own
        plan.damaged(key, DamagedEntry(f"the codec cannot read it: {error!r}", reason="undecodable"))
    return None


def upgraded(plan: Plan, key: Key, version: int, old: Old, value: Any) -> Outcome | None:
    """An upgrade's result as an outcome with its entry; None, counted and told, when it is none of this function's."""
    header, now = old.header, wall()
    ttl = plan.policy.ttl
    if ttl is None:
        ttl = plan.shared.default_ttl
    fresh_until = min(header.fresh_until, math.inf if callable(ttl) else header.created_at + ttl)
    stale_window = 0.0 if header.fresh_until == math.inf else header.usable_until - header.fresh_until
    usable_until = fresh_until + stale_window
    if fresh_until <= now:
        return None
    try:
        _check(plan, value)
        payload = plan.encode(value)
    except Exception as error:
        failed(plan, key, version, error)
        return None
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
        marks=header.marks,
        compression=compression,
        fingerprint=plan.own_fingerprint(),
    )
    left = usable_until - now
    expire_ms = 0 if left == math.inf else max(1, min(math.ceil(left * 1000), 1 << 52))
    plan.counters.upgrades += 1
    plan.emit("upgrade", key, detail=f"from version {version}")
    sealed = Sealed(raw, expire_ms, read_header(raw, key.entry), value)
    return Outcome(value, source=Source.UPGRADED, sealed=sealed)


def failed(plan: Plan, key: Key, version: int, error: Exception) -> None:
    """An upgrade that raised, or returned what cannot be stored: a miss, told, and the function runs."""
    plan.counters.upgrade_errors += 1
    plan.emit("upgrade-error", key, error=error, detail=f"from version {version}")
    if plan.counters.upgrade_errors == 1:
        logger.warning(
            "%s: the upgrade from version %d failed, so the function runs instead (further failures are only counted): %r",
            plan.name,
            version,
            error,
        )


def _check(plan: Plan, value: Any) -> None:
    # A hit must have the type that a load gives.
    from memover.schema.derive import result_class

    expected = result_class(plan.function)
    if expected is not None and not isinstance(value, expected):
        raise TypeError(f"it returned a {type(value).__qualname__}, and {plan.name} returns a {expected.__qualname__}")


def _as_is(value: Any) -> Any:
    return value


def _plain(plan: Plan, value: Any) -> Any:
    plain = getattr(plan.codec, "plain", None)
    return value if plain is None else plain(plan.codec.encode(value))
