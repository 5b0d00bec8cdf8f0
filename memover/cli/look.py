"""One entry as it is stored: what its header says, whether a call would be answered from it and why not, and its value as text.

The text is made from the bytes alone: no class of the application is imported, looked up or called, and what is signed or
pickled is not opened.
"""

from __future__ import annotations

import math
import re
from pprint import pformat
from typing import TYPE_CHECKING, Any, NamedTuple

from memover.cli.census import KEY_VALUES
from memover.cli.text import ago, count_of, visible
from memover.clocks import wall
from memover.codec.envelope import KIND_ERROR, KIND_KEY_VALUE, NO_FINGERPRINT, Header, payload_of, read_header
from memover.engine.judge import VERSION
from memover.engine.store import INTEGER
from memover.engine.tokens import parse
from memover.errors import DamagedEntry
from memover.keys.names import generation_key, soft_key
from memover.keys.shards import parse_registry, registry_key, shard_of
from memover.schema.mismatch import Stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.cli.running import StoreContext

__all__ = ["Look", "Token", "look", "split_key"]

_KEY = re.compile(r"([A-Za-z0-9_.\-]{0,64}):([1-9][0-9]{0,18}(?:~[0-9a-f]{8})?):(.*)\Z", re.DOTALL)
_EXPANDED_LIMIT_BYTES = 64 * 1024 * 1024
_TEXT_LIMIT = 20_000
_DUMP_BYTES = 256
_KINDS = {0: "value", KIND_ERROR: "error", KIND_KEY_VALUE: "key-value"}
_COMPRESSIONS = {0: "none", 1: "zlib", 2: "zstd"}


class Token(NamedTuple):
    """A token in an entry's header beside what the store holds under its name now."""

    name: str
    stored: str | None
    current: str | None

    @property
    def holds(self) -> bool:
        return self.stored == self.current


class Look(NamedTuple):
    """All that can be said of one entry."""

    key: str
    namespace: str | None
    version: int | str | None
    verdict: str
    why: str
    header: dict[str, Any] | None = None
    tokens: tuple[Token, ...] = ()
    value: str | None = None

    def facts(self) -> dict[str, Any]:
        """As `memover inspect --format json` has it."""
        tokens = [{**each._asdict(), "holds": each.holds} for each in self.tokens]
        return {**self._asdict(), "tokens": tokens}


def split_key(key: str) -> tuple[str, int | str, str] | None:
    """The prefix, version and rest of an entry's key; None for another key."""
    found = _KEY.match(key)
    if found is None:
        return None
    return found[1], int(found[2]) if found[2].isdigit() else found[2], found[3]


def look(context: StoreContext, key: str) -> Look | None:
    """Reads one entry and judges it as a call would, now. None when there is none. Two round trips; raises `StoreError`."""
    survey = context.survey
    name = key.encode("utf-8", "surrogateescape")
    (facts,) = survey.facts([name])
    if facts is None:
        return None
    raw = survey.value(name)
    parts = split_key(key)
    version = None if parts is None else parts[1]
    if raw is None:
        return Look(key, None, version, "damaged", "what is stored under this key is not a string of bytes.")
    try:
        header = read_header(raw, name)
    except DamagedEntry as error:
        return Look(key, _namespace(parts, 0), version, "damaged", f"{error} ({error.reason}).", value=_dump(raw))
    namespace = _namespace(parts, header.kind)
    described = _described(header, facts.expires_ms, facts.size, len(raw))
    prefix = context.prefix if parts is None else parts[0]
    tokens = _tokens(context, prefix, namespace or "", header)
    try:
        value = _value(header, payload_of(raw, header))
    except DamagedEntry as error:
        return Look(key, namespace, version, "damaged", f"{error} ({error.reason}).", described, tokens)
    soft = soft_key(prefix, namespace or "")
    verdict, why = _verdict(context, header, tokens, soft, namespace, version)
    return Look(key, namespace, version, verdict, why, described, tokens, value)


def _namespace(parts: tuple[str, int | str, str] | None, kind: int) -> str | None:
    if kind == KIND_KEY_VALUE:
        return KEY_VALUES
    if parts is None:
        return None
    namespace, colon, _ = parts[2].partition(":")
    return namespace if colon else None


def _instant(value: float) -> float | None:
    return None if math.isinf(value) else value


def _described(header: Header, expires_ms: int | None, taken: int, size: int) -> dict[str, Any]:
    return {
        "kind": _KINDS.get(header.kind, str(header.kind)),
        "codec": header.codec,
        "compression": _COMPRESSIONS.get(header.compression, str(header.compression)),
        "created_at": header.created_at,
        "load_time": header.load_time,
        "fresh_until": _instant(header.fresh_until),
        "usable_until": _instant(header.usable_until),
        "expires_in": None if expires_ms is None else expires_ms / 1000,
        "fingerprint": None if header.fingerprint == NO_FINGERPRINT else header.fingerprint.hex(),
        "generation": header.generation.decode("latin-1"),
        "header_bytes": header.payload_at,
        "payload_bytes": header.size - header.payload_at,
        "size": size,
        "stored_bytes": taken,
    }


def _tokens(context: StoreContext, prefix: str, namespace: str, header: Header) -> tuple[Token, ...]:
    generation = generation_key(prefix, namespace).encode()
    stored = {generation: header.generation, **dict(header.marks)}
    names = [name for name in stored if not name.startswith(VERSION)]
    current: dict[bytes, bytes | None] = dict(zip(names, context.survey.tokens(names)))
    if current[generation] != header.generation:
        current[generation] = _shard(context, generation, header) or current[generation]
    known = context.named_in_lock()
    for name, token in stored.items():
        if name.startswith(VERSION):
            # Not in the store: the version of another function that the load used, as the source has it.
            version = known.get(name[len(VERSION) :].decode("latin-1"))
            current[name] = token if version is None else b"%d" % version
    return tuple(Token(_text(name) or "", _text(token), _text(current[name])) for name, token in stored.items())


def _shard(context: StoreContext, generation: bytes, header: Header) -> bytes | None:
    """The token that the entry is held against where its namespace's generation stands in shards; None where it does not."""
    parts = header.key.decode().split(":", 3)
    if len(parts) < 4:
        return None  # an entry of the key-value interface
    (registry,) = context.survey.tokens([registry_key(generation)])
    text = parts[3]
    counts = sorted(parse_registry(registry, unsure=False).counts - {1})
    tokens = context.survey.tokens([shard_of(generation, count, text) for count in counts]) if counts else []
    # Of several settings the one that the entry was stored under, if it is still good.
    there = [token for token in tokens if token is not None]
    return header.generation if header.generation in there else there[0] if there else None


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "backslashreplace")


def _verdict(
    context: StoreContext,
    header: Header,
    tokens: Sequence[Token],
    soft: str,
    namespace: str | None,
    version: int | str | None,
) -> tuple[str, str]:
    now = wall()
    generation, *marks = tokens
    if not generation.holds:
        if generation.current is None:
            return (
                "invalidated",
                f"its generation {generation.stored} is gone from the store: the next call makes a new one.",
            )
        moved = parse(generation.current.encode("latin-1", "replace"))
        when = f", {ago(moved.number / 1e6, now)}" if moved is not None else ""
        return (
            "invalidated",
            f"the namespace has moved to another generation{when}: {generation.stored} is now {generation.current}.",
        )
    moved_marks = [each for each in marks if not each.holds and not each.name.startswith(soft)]
    if moved_marks:
        names = ", ".join(visible(each.name) for each in moved_marks[:5])
        return "invalidated", f"{count_of(len(moved_marks), 'token')} of it moved since it was loaded: {names}."
    if now >= header.usable_until:
        return "expired", f"its time was over {ago(header.usable_until, now)}."
    shape = _shape_in_lock(context, namespace, version)
    if shape is not None and header.fingerprint not in (NO_FINGERPRINT, shape):
        return "other-shape", (
            f"it was stored with the shape {header.fingerprint.hex()}, and {context.project.lockfile} has {shape.hex()} for version "
            f"{version}: a class changed without a bump."
        )
    if any(each.name.startswith(soft) and not each.holds for each in marks):
        return "stale", "the namespace was invalidated softly: it is served while a new one is loaded."
    if now >= header.fresh_until:
        left = _instant(header.usable_until)
        until = "for ever" if left is None else f"until {ago(left, now)}"
        return "stale", f"its ttl was over {ago(header.fresh_until, now)}; it may still be served stale {until}."
    left = _instant(header.fresh_until)
    return "fresh", "it never expires." if left is None else f"its ttl ends {ago(left, now)}."


def _shape_in_lock(context: StoreContext, namespace: str | None, version: int | str | None) -> bytes | None:
    if context.lock is None:
        return None
    blocks = context.lock.blocks_of(namespace)
    shapes = {block.shape.fingerprint for block in blocks if block.version == version}
    (only,) = shapes if len(shapes) == 1 else (NO_FINGERPRINT,)
    return None if only == NO_FINGERPRINT else only


# -- the value as text -----------------------------------------------------------------------------------------------------


def _value(header: Header, payload: bytes | memoryview) -> str:
    from memover.codec.compression import expand
    from memover.codec.mv1.codec import ValueCodec

    stored_bytes = len(payload)
    payload = expand(header.compression, payload, limit_bytes=_EXPANDED_LIMIT_BYTES)
    if header.compression and header.codec == ValueCodec.name:
        ValueCodec.check_objects(payload, stored_bytes)
    if header.codec == INTEGER:
        return bytes(payload).decode("ascii", "backslashreplace")
    if header.codec != ValueCodec.name:
        return f"{len(payload):,} bytes of codec {visible(header.codec)!r}, not opened here:\n{_dump(bytes(payload[:_DUMP_BYTES]))}"
    try:
        value = ValueCodec().plain(payload, Stored)
        text = pformat(value, width=100, sort_dicts=False)
    except RecursionError:
        return f"{len(payload):,} bytes, nested too deep to be shown."
    except DamagedEntry:
        raise
    except Exception as error:
        return f"{len(payload):,} bytes that cannot be shown here ({type(error).__name__}: {error}):\n{_dump(bytes(payload[:_DUMP_BYTES]))}"
    if len(text) > _TEXT_LIMIT:
        return f"{text[:_TEXT_LIMIT]}\n… {len(text) - _TEXT_LIMIT:,} more characters"
    return text


def _dump(raw: bytes) -> str:
    lines = []
    for at in range(0, min(len(raw), _DUMP_BYTES), 16):
        part = raw[at : at + 16]
        shown = "".join(chr(each) if 0x20 <= each < 0x7F else "." for each in part)
        lines.append(f"{at:04x}  {part.hex(' '):<47}  {shown}")
    return "\n".join(lines)
