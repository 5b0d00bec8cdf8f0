"""One decorated function on one cache: everything a call needs that does not depend on its arguments."""

from __future__ import annotations

import logging
import math
import os
import random
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from memover.clocks import monotonic, wall
from memover.codec import codec_name
from memover.codec.compression import compress, expand
from memover.codec.envelope import KIND_ERROR, KIND_VALUE, NO_FINGERPRINT, Header, payload_of, read_header, seal
from memover.drivers.guard import Guard, chain
from memover.drivers.watch import Counters
from memover.engine.judge import VERSION
from memover.engine.ops import Outcome, Reading, Sealed
from memover.engine.terms import Terms
from memover.errors import DamagedEntry, StoreError, UnencodableValue
from memover.keys.names import coarse_key, entry_key, generation_key, soft_key, stripe_key, tag_clock_key
from memover.keys.ownership import UNCLAIMED, Claimed
from memover.model import MISSING, Call, Event, Key, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from memover.drivers.shared import Shared
    from memover.engine.ops import Marks
    from memover.keys.binding import Binding
    from memover.policy import Policy
    from memover.engine.store import Seen
    from memover.keys.tags import Tags

__all__ = ["Plan", "new_nonce"]

logger = logging.getLogger("memover")


def new_nonce(_random: Callable[[int], bytes] = os.urandom) -> str:
    """16 hex digits that no other lease or bump will have, in this process or its forks."""
    return _random(8).hex()


class Plan:
    """A function, its policy and its codec on a cache's shared parts."""

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        policy: Policy,
        binding: Binding,
        codec: Any,
        tags: Tags,
        shared: Shared,
        claimed: Claimed = UNCLAIMED,
    ) -> None:
        self.claimed = claimed
        self.function = function
        self.name = name
        self.policy = policy
        self.binding = binding
        self.codec = codec
        self.codec_name = codec_name(codec)
        self.shared = shared
        self.watch = shared.watch
        self.witness = shared.witness
        self.counters = Counters()
        self.upgrades: Mapping[int, Callable[[Any], Any]] = {}
        self.guard = Guard(function, name, policy, shared.prefix, claimed)
        self.fingerprint = b""  # known at the first entry: until then classes may still be missing
        self.generation_name = generation_key(shared.prefix, policy.namespace).encode()
        prefix, namespace = shared.prefix, policy.namespace
        self.soft_name = soft_key(prefix, namespace).encode() if policy.stale_window > 0 else None
        self.names: tuple[bytes, ...] = (self.generation_name,)
        if self.soft_name is not None:
            self.names = (*self.names, self.soft_name)
        self.version_name = VERSION + namespace.encode()
        shared.witness.versions[self.version_name] = claimed.token(policy.version)
        self.tags = tags
        self.late = tags.late or "depends_on" in names_in(function)
        self.learned: OrderedDict[str, tuple[bytes, ...]] = OrderedDict()
        self.simple = self.soft_name is None and not tags.early and not policy.beta
        """Whether an entry can be served from one generation alone, without asking who else wants to know."""
        self.refreshing: dict[bytes, float] = {}
        self.lease_seconds = shared.lease_ttl if policy.lease_ttl is None else policy.lease_ttl
        self.wait_seconds = shared.wait_timeout if policy.wait_timeout is None else policy.wait_timeout
        self.lease_ms = max(1, min(round(self.lease_seconds * 1000), 1 << 52))
        self.last_known: OrderedDict[bytes, Reading] | None = (
            OrderedDict() if policy.on_store_error == "stale" and shared.remote else None
        )
        self._underway: dict[object, tuple[Key, str, float]] = {}
        self._renewing = False
        self._lock = threading.Lock()
        shared.plans.add(self)

    def after_fork(self) -> None:
        """In a child: no load or refresh of the parent is under way here."""
        self._underway = {}
        self.refreshing = {}
        self._renewing = False
        self._lock = threading.Lock()

    def key(self, text: str, version: int | None = None) -> Key:
        """The names in the store of a call whose arguments come to `text`."""
        policy = self.policy
        part = self.version_text if version in (None, policy.version) else str(version)
        return Key(entry_key(self.shared.prefix, part, policy.namespace, text), self.names)

    @property
    def version_text(self) -> str:
        """The version part of entry keys."""
        return self.claimed.version(self.policy.version)

    @property
    def version_mark(self) -> tuple[bytes, bytes]:
        """What stands for the version in entries whose load used a result of this function."""
        return self.version_name, self.version_text.encode()

    def lookup(self, version: int | None = None) -> Callable[..., Key]:
        """The way from a call's arguments to its key: bound, digested, tagged, and remembered where that is safe."""
        tags = self.tags
        if not tags.early and version is None:
            return self.binding.compile(self.key)
        plain = self.binding.compile(lambda text: self.key(text, version))
        prefix, arguments = self.shared.prefix, self.binding.arguments

        def tagged(*args: Any, **kwargs: Any) -> Key:
            key = plain(*args, **kwargs)
            if len(key.names) > len(self.names) or not tags.early:
                return key
            names = tags.early_names(prefix, self.call(key, args, kwargs), arguments(args, kwargs))
            full = Key(key.text, (*self.names, *names))
            if tags.stable:  # the record is in the binding's memo: what is written twice is the same
                key.required, key.names = full.required, full.names
            return full

        return tagged

    def call_name(self, key: Key) -> bytes:
        """The token that stands for this call in entries whose load used its result."""
        return stripe_key(self.shared.prefix, self.policy.namespace, key.text.split(":", 3)[3]).encode()

    def along(self, key: Key | None = None) -> tuple[bytes, ...]:
        """The tokens that move, if they exist, when the namespace or one call of it is invalidated."""
        coarse = coarse_key(self.shared.prefix).encode()
        return (coarse,) if key is None else (self.call_name(key), coarse)

    def known_key(self, key: Key) -> Key:
        """The key with what was learned of its entry."""
        names = self.learned.get(key.text)
        return key if names is None else key.asking(names)

    def learn(self, key: Key, names: Sequence[bytes]) -> Key:
        """Read these tokens with this key from now on."""
        wanted = tuple(name for name in names if not name.startswith(VERSION))
        with self._lock:
            self.learned[key.text] = wanted
            self.learned.move_to_end(key.text)
            while len(self.learned) > self.shared.max_entries:
                self.learned.popitem(last=False)
        return key.asking(wanted)

    def call(self, key: Key, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        return Call(
            args,
            kwargs,
            key=key.text,
            namespace=self.policy.namespace,
            version=self.policy.version,
            bind=self.binding.arguments,
        )

    def terms(self, key: Key, max_age: float | None = None, *, tracked: bool = False) -> Terms:
        """What the flows of a call are told; `tracked` when a load that collects what it uses asks."""
        policy, shared = self.policy, self.shared
        return Terms(
            entry=key.entry,
            names=key.names[: key.required],
            soft=self.soft_name,
            call_name=self.call_name(key) if tracked else b"",
            clock_name=tag_clock_key(shared.prefix).encode() if self.late and not shared.store.spread else b"",
            coarse_name=coarse_key(shared.prefix).encode(),
            spread=shared.store.spread,
            beta=policy.beta,
            stale_while_revalidate=policy.stale_while_revalidate,
            stale_if_error=policy.stale_if_error,
            soft_timeout=policy.soft_timeout,
            chance=random.random,
            keeps=policy.keeps,
            witness=self.witness,
            on_store_error=policy.on_store_error,
            wait_seconds=self.wait_seconds,
            max_age=max_age,
            now=wall,
            monotonic=monotonic,
            new_token=new_nonce,
            upgrades=chain(self.upgrades),
        )

    # -- bytes to values and back ---------------------------------------------------------------------------------

    def reading(self, key: Key, seen: Seen) -> Reading:
        """What was read, its header parsed; damage is counted and read as absence."""
        header: Header | None = None
        if seen.raw is not None:
            try:
                header = read_header(seen.raw, key.entry)
            except DamagedEntry as error:
                self.damaged(key, error)
        return Reading(seen.names, seen.tokens, seen.raw, header, seen.lease)

    def decode(self, raw: bytes, header: Header) -> Any:
        """The value of an entry whose header was read; raises `DamagedEntry` and nothing else."""
        if header.codec != self.codec_name:
            raise DamagedEntry(f"written by the codec {header.codec!r}, not {self.codec_name!r}", reason="codec")
        if header.fingerprint != self.fingerprint:
            self._other_shape(raw, header)
        payload = payload_of(raw, header)
        if header.compression:
            payload = expand(header.compression, payload, limit_bytes=self.shared.expanded_bytes_limit)
        try:
            return self.codec.decode(payload)
        except DamagedEntry:
            raise
        except Exception as error:
            raise DamagedEntry(f"the codec cannot read it: {error!r}", reason="undecodable") from error

    def payload(self, raw: bytes, header: Header) -> bytes | memoryview:
        """The payload as the codec wrote it."""
        payload = payload_of(raw, header)
        if header.compression:
            payload = expand(header.compression, payload, limit_bytes=self.shared.expanded_bytes_limit)
        return payload

    def _other_shape(self, raw: bytes, header: Header) -> None:
        # Reached by the first entry, and by every entry whose fingerprint is not the function's own.
        if not self.fingerprint:
            self.fingerprint = self.guard.fingerprint()
        if not self.guard.differs(header, self.fingerprint):
            return
        first = self.guard.first_sight(header)
        if first:
            self.counters.other_shape += 1
            self.guard.warn(self.codec, lambda: self.payload(raw, header))
        raise DamagedEntry(
            f"{self.name} returns another shape than this entry has, under one version: it counts as a miss.",
            reason="other-shape" if first else "other-shape-again",
        )

    def outcome(self, key: Key, reading: Reading, source: Source) -> Outcome | None:
        """A reading as an outcome, None when it is damaged after all."""
        if reading.raw is None or reading.header is None:
            return None
        try:
            value = self.decode(reading.raw, reading.header)
        except DamagedEntry as error:
            self.damaged(key, error)
            return None
        self.know(key, reading)
        header = reading.header
        marks = ((self.generation_name, header.generation), *header.marks)
        sealed = Sealed(reading.raw, header=header)
        if header.kind == KIND_ERROR:
            if not isinstance(value, Exception):
                self.damaged(key, DamagedEntry("an error that is none", reason="undecodable"))
                return None
            return Outcome(error=value, source=source, sealed=sealed, marks=marks)
        return Outcome(value, source=source, sealed=sealed, marks=marks)

    def own_copy(self, outcome: Outcome) -> Any:
        """A shared outcome's value for one more caller, who may change what it gets."""
        sealed = outcome.sealed
        try:
            if sealed is not None and sealed.header is not None:
                return self.decode(sealed.raw, sealed.header)
            return self.codec.decode(self.codec.encode(outcome.value))
        except Exception:
            return outcome.value  # it was not to be stored, so it may be of any kind: shared, as a future would be

    def sealed(
        self, key: Key, outcome: Outcome, marks: Marks, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Sealed | None:
        """A result as an entry stamped with what was read before its load; None when it is not to be stored."""
        result = outcome.value if outcome.error is None else outcome.error
        stale_for = self.policy.stale_window
        if outcome.error is not None:
            fresh_for, stale_for = self.policy.error_ttl, 0.0
        else:
            try:
                fresh_for = self.policy.lifetime(
                    result, self.call(key, args, kwargs), self.shared.default_ttl, random.random()
                )
            except Exception as error:
                return Sealed(error=error)
        if fresh_for <= 0:
            self.counters.refused_stores += 1
            return None
        try:
            payload = self.encode(result)
        except UnencodableValue as error:
            self.counters.unencodable += 1
            if self.shared.on_unencodable == "raise":
                return Sealed(error=error)
            self.emit("unencodable", key, error=error)
            if self.counters.unencodable == 1:
                logger.warning("%s: a result was not stored, and such results will not be: %s", self.name, error)
            return None
        compression, payload = compress(payload, threshold_bytes=self.shared.compress_from_bytes)
        now = wall()
        fresh_until = now + fresh_for
        raw = seal(
            payload,
            key=key.entry,
            generation=marks[0][1],
            marks=marks[1:],
            kind=KIND_VALUE if outcome.error is None else KIND_ERROR,
            codec=self.codec_name,
            created_at=now,
            load_time=outcome.load_time,
            fresh_until=fresh_until,
            usable_until=fresh_until + stale_for,
            compression=compression,
            fingerprint=self.own_fingerprint(),
        )
        expire_ms = 0 if fresh_until == math.inf else max(1, min(math.ceil((fresh_for + stale_for) * 1000), 1 << 52))
        shared_value = MISSING if outcome.error is not None else outcome.value
        return Sealed(raw, expire_ms, read_header(raw, key.entry), shared_value)

    def own_fingerprint(self) -> bytes:
        """What is written into the header of an entry: 8 bytes, zeros when nothing is known of the result."""
        if not self.fingerprint:
            self.fingerprint = self.guard.fingerprint()
        return self.fingerprint or NO_FINGERPRINT

    def encode(self, value: Any) -> bytes:
        """The payload of a value; raises `UnencodableValue` and nothing else."""
        try:
            encoded: bytes = self.codec.encode(value)
        except UnencodableValue:
            raise
        except Exception as error:
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            raise UnencodableValue(
                f"{self.name}: the codec {self.codec_name!r} cannot store a {kind}: {error!r}. Return something it can "
                f"store, give the function another codec=, or leave it out with cache_if=.",
                function=self.name,
                kind=kind,
            ) from error
        return encoded

    # -- what happened ----------------------------------------------------------------------------------------------

    def emit(
        self,
        name: str,
        key: Key | None,
        *,
        error: BaseException | None = None,
        detail: str = "",
        size: int = 0,
        load_time: float = 0.0,
    ) -> None:
        """Tell the observers, if there are any."""
        if self.watch.busy:
            self.watch.emit(
                Event(
                    name,
                    self.policy.namespace,
                    "" if key is None else key.text,
                    error=error,
                    detail=detail,
                    size=size,
                    load_time=load_time,
                )
            )

    def disabled(self) -> None:
        """A call ran with caching turned off."""
        self.counters.bypasses += 1
        if self.watch.busy:
            self.watch.emit(Event("lookup", self.policy.namespace, "", Source.BYPASSED))

    def damaged(self, key: Key, error: DamagedEntry) -> None:
        if error.reason.startswith("other-shape"):  # counted where it was found
            if error.reason == "other-shape":
                self.emit("other-shape", key, error=error)
            return
        self.counters.damaged += 1
        self.emit("damaged", key, error=error, detail=error.reason)

    def store_failed(self, key: Key | None, error: StoreError) -> None:
        self.counters.store_errors += 1
        self.emit("store-error", key, error=error)

    # -- the last answer, for those who would rather have it than a load ---------------------------------------------

    def know(self, key: Key, reading: Reading) -> None:
        """Keep an answer for the time when the store cannot be asked (`on_store_error="stale"` only)."""
        known = self.last_known
        if known is not None:
            with self._lock:
                known[key.entry] = reading
                known.move_to_end(key.entry)
                while len(known) > self.shared.max_entries:
                    known.popitem(last=False)

    def forget(self, entry: bytes | None = None) -> None:
        """Drop the last answer for one entry, or all."""
        if self.last_known is not None:
            with self._lock:
                if entry is None:
                    self.last_known.clear()
                else:
                    self.last_known.pop(entry, None)

    # -- leases of loads that take long -------------------------------------------------------------------------------

    def hold(self, mark: object, key: Key, token: str) -> None:
        """Keep a lease alive from now on, from the keeper's thread, until `let_go`."""
        self._underway[mark] = (key, token, monotonic())
        if not self._renewing:
            with self._lock:
                if not self._renewing:
                    self._renewing = True
                    self.shared.keeper.later(self.lease_seconds / 6, self._renew)

    def let_go(self, mark: object) -> None:
        self._underway.pop(mark, None)

    def _renew(self) -> float | None:
        # Twice per third of the lease, so that every lease is prolonged before a third of it is over.
        with self._lock:
            # In this order: a load that begins meanwhile is either in the list, or finds that nobody renews.
            self._renewing = False
            underway = list(self._underway.items())
            if not underway:
                return None
            self._renewing = True
        oldest = monotonic() - self.lease_seconds / 6
        for mark, (key, token, since) in underway:
            if since <= oldest and mark in self._underway:
                try:
                    self.shared.store.renew(key, token, self.lease_ms)
                except StoreError as error:
                    self.store_failed(key, error)
                    break
        return self.lease_seconds / 6


def names_in(function: Any) -> tuple[str, ...]:
    """The names that a function's code uses, as far as can be seen."""
    code = getattr(function, "__code__", None)
    return () if code is None else tuple(code.co_names)
