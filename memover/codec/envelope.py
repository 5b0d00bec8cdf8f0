"""The envelope: the bytes in which an entry is stored. No other module takes them apart, but for the one byte at `KIND_AT`.

Format 1. Integers and floats are little-endian; instants are float seconds since the epoch (infinity: never).

    offset  size  field
         0     3  magic, b"mvr"
         3     1  format, 1
         4     4  header check: CRC-32 of bytes 8 .. P
         8     4  payload check: CRC-32 of bytes P .. end
        12     4  payload length, bytes
        16     8  created_at
        24     8  load time, seconds
        32     8  fresh_until
        40     8  usable_until
        48     8  fingerprint of the result's shape (zeros: not known)
        56     1  kind: 0 a value · 1 an error · 2 an entry of the key-value API
        57     1  compression: 0 none · 1 zlib · 2 zstd
        58     1  length of the codec's name
        59     1  length of the generation
        60     2  length of the key
        62     2  length of the marks
        64     C  codec's name, ASCII
         .     G  generation, as stored under the generation key
         .     K  the key this entry belongs to, UTF-8
         .     M  marks: b"", or msgpack [[name, token], ...] of every further token captured before the load
         P     .  payload, as the codec wrote it (then compressed)

The header (bytes 0 .. P) is readable alone: it carries its own check, so freshness is judged and keys are listed
without touching, or even fetching, the payload. The key is in the header, so that bytes copied from another
key are foreign, not fresh. Anything that is not exactly this is `DamagedEntry`, which the engine treats as
a miss. A new format gets a new number and older ones stay readable or become clean misses (golden bytes in tests).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from memover.errors import DamagedEntry
from memover.later import later

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import msgpack

    from memover.codec import faults
else:
    faults = later(__name__, "memover.codec.faults")
    msgpack = later(__name__, "msgpack")

__all__ = [
    "FORMAT", "HEAD_BYTES", "KIND_AT", "KIND_ERROR", "KIND_KEY_VALUE", "KIND_VALUE", "NO_FINGERPRINT", "Header",
    "marks_packer", "pack_marks", "payload_of", "plain_form", "read_header", "read_plain", "rewritten", "seal",
]  # fmt: skip

MAGIC = b"mvr"
FORMAT = 1
_PLAIN_LEAD = MAGIC + bytes((FORMAT,))
KIND_VALUE = 0
KIND_ERROR = 1
KIND_KEY_VALUE = 2
KIND_AT = 56
NO_FINGERPRINT = bytes(8)

_HEAD = struct.Struct("<3sBIIIdddd8sBBBBHH")
_LEAD = struct.Struct("<3sBI")
_HEAD_CHECKS = struct.Struct("<I")
_REST = struct.Struct("<IIdddd8sBBBBHH")
_FORM_AT = 48
_AROUND_FORM = struct.Struct("<4sIII16xd")
_LENGTHS = struct.Struct("<BHH")
HEAD_BYTES = _HEAD.size
_COPY_LIMIT_BYTES = 4096
"""Up to here a copied slice is quicker than a view of the whole answer."""


class Header(NamedTuple):
    """What an entry says of itself; `payload_at` is where its payload begins, `size` the whole in bytes."""

    kind: int
    codec: str
    compression: int
    generation: bytes
    key: bytes
    marks: tuple[tuple[bytes, bytes], ...]
    created_at: float
    load_time: float
    fresh_until: float
    usable_until: float
    fingerprint: bytes
    payload_at: int
    payload_check: int
    size: int


def seal(
    payload: bytes,
    *,
    key: bytes,
    generation: bytes,
    codec: str,
    created_at: float,
    load_time: float,
    fresh_until: float,
    usable_until: float,
    marks: tuple[tuple[bytes, bytes], ...] = (),
    fingerprint: bytes = NO_FINGERPRINT,
    kind: int = KIND_VALUE,
    compression: int = 0,
) -> bytes:
    """The bytes of an entry. Raises ValueError where a part is longer than its length field can say."""
    name = codec.encode("ascii")
    packed_marks = pack_marks(marks) if marks else b""
    try:
        rest = _REST.pack(
            crc32(payload), len(payload), created_at, load_time, fresh_until, usable_until, fingerprint, kind, compression,
            len(name), len(generation), len(key), len(packed_marks),
        )  # fmt: skip
    except struct.error as error:
        raise ValueError(f"entry of {key[:80]!r} does not fit the envelope: {error}") from None
    tail = b"".join((rest, name, generation, key, packed_marks))
    return b"".join((_LEAD.pack(MAGIC, FORMAT, crc32(tail)), tail, payload))


def read_header(raw: bytes, key: bytes, *, whole: bool = True) -> Header:
    """The header of `raw`, checked against damage and against the key it was found under.

    `whole=False` reads a header from the first bytes of an entry alone (`HEAD_BYTES` plus its variable parts).
    Raises `DamagedEntry` with the reason "foreign", "format", "truncated", "damaged" or "other-key".
    """
    try:
        (
            magic, form, header_check, payload_check, payload_length, created_at, load_time, fresh_until, usable_until,
            fingerprint, kind, compression, codec_length, generation_length, key_length, marks_length,
        ) = _HEAD.unpack_from(raw)  # fmt: skip
    except struct.error:
        raise DamagedEntry("shorter than a header", reason="foreign") from None
    if magic != MAGIC:
        raise DamagedEntry("not an entry of memover", reason="foreign")
    if form != FORMAT:
        raise DamagedEntry(f"format {form} is not known here", reason="format")
    generation_at = HEAD_BYTES + codec_length
    key_at = generation_at + generation_length
    marks_at = key_at + key_length
    payload_at = marks_at + marks_length
    size = payload_at + payload_length
    if len(raw) != size if whole else len(raw) < payload_at:
        raise DamagedEntry("not as long as its header says", reason="truncated")
    if crc32(raw[8:payload_at]) != header_check:
        raise DamagedEntry("the header's check does not hold", reason="damaged")
    if raw[key_at:marks_at] != key:
        raise DamagedEntry("belongs to another key", reason="other-key")
    marks: tuple[tuple[bytes, bytes], ...] = ()
    if marks_length:
        try:
            marks = tuple((bytes(name), bytes(token)) for name, token in msgpack.unpackb(raw[marks_at:payload_at]))
        except faults.FAULTS as error:
            if faults.from_outside(error):
                raise
            raise DamagedEntry("the marks cannot be read", reason="damaged") from error
    return Header(
        kind, raw[HEAD_BYTES:generation_at].decode("latin-1"), compression, raw[generation_at:key_at], key, marks, created_at,
        load_time, fresh_until, usable_until, fingerprint, payload_at, payload_check, size,
    )  # fmt: skip


def pack_marks(marks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Marks as they are in a header."""
    return marks_packer()(marks) if marks else b""


def marks_packer() -> Callable[[Sequence[tuple[bytes, bytes]]], bytes]:
    """What packs the marks of one header after another, of which none is empty; for one thread."""
    pack: Callable[[Sequence[tuple[bytes, bytes]]], bytes] = msgpack.Packer().pack
    return pack


def plain_form(codec: str, fingerprint: bytes) -> tuple[bytes, bytes] | None:
    """What the values of one function have in common where they are not compressed, for `read_plain`; None while the
    fingerprint is not known (b""), and for a codec of whose name there can be no entry."""
    if not fingerprint or not codec.isascii() or len(codec) > 255:
        return None
    return b"%b%c%c%c" % (fingerprint, KIND_VALUE, 0, len(codec)), codec.encode()


def read_plain(
    raw: bytes, form: tuple[bytes, bytes], generation: bytes, key: bytes, marks: bytes = b""
) -> tuple[float, bytes | memoryview] | None:
    """`fresh_until` and payload of an entry that is a value of this form, of this generation and with these very marks (as
    `pack_marks` packs them).

    None for any other entry and for whatever is damaged: `read_header` and `payload_of` then say what it is. They answer
    the same for every entry (a test holds them together); this is the short way for hits. All that is expected is compared
    at once, so nothing of it is taken apart."""
    head, codec = form
    try:
        lengths = _LENGTHS.pack(len(generation), len(key), len(marks))
    except struct.error:
        return None  # no entry is stored under names of that length
    expected = b"".join((head, lengths, codec, generation, key, marks))
    if not raw.startswith(expected, _FORM_AT):
        return None
    lead, header_check, payload_check, payload_length, fresh_until = _AROUND_FORM.unpack_from(raw)
    payload_at = _FORM_AT + len(expected)
    payload: bytes | memoryview
    payload = raw[payload_at:] if payload_length <= _COPY_LIMIT_BYTES else memoryview(raw)[payload_at:]
    if (
        lead != _PLAIN_LEAD
        or len(payload) != payload_length
        or crc32(raw[8:payload_at]) != header_check
        or crc32(payload) != payload_check
    ):
        return None
    return fresh_until, payload


def payload_of(raw: bytes, header: Header) -> bytes | memoryview:
    """The payload of an entry whose header was read; raises `DamagedEntry` when its check does not hold."""
    payload: bytes | memoryview
    if header.size - header.payload_at <= _COPY_LIMIT_BYTES:
        payload = raw[header.payload_at :]
    else:
        payload = memoryview(raw)[header.payload_at :]
    if crc32(payload) != header.payload_check:
        raise DamagedEntry("the payload's check does not hold", reason="damaged")
    return payload


def rewritten(
    raw: bytes,
    header: Header,
    *,
    key: bytes | None = None,
    generation: bytes | None = None,
    fresh_until: float | None = None,
    payload: bytes | None = None,
    codec: str | None = None,
    compression: int | None = None,
) -> bytes:
    """An entry whose header was read, with parts of it replaced and both checks made anew.

    `fresh_until` replaces both instants. Where the payload stays, so does its check: damage is not signed over.
    """
    sealed = seal(
        raw[header.payload_at :] if payload is None else payload,
        key=header.key if key is None else key,
        generation=header.generation if generation is None else generation,
        codec=header.codec if codec is None else codec,
        created_at=header.created_at,
        load_time=header.load_time,
        fresh_until=header.fresh_until if fresh_until is None else fresh_until,
        usable_until=header.usable_until if fresh_until is None else fresh_until,
        marks=header.marks,
        fingerprint=header.fingerprint,
        kind=header.kind,
        compression=header.compression if compression is None else compression,
    )
    if payload is None:
        tail = b"".join(
            (_HEAD_CHECKS.pack(header.payload_check), sealed[12 : len(sealed) - len(raw) + header.payload_at])
        )
        sealed = b"".join((_LEAD.pack(MAGIC, FORMAT, crc32(tail)), tail, raw[header.payload_at :]))
    return sealed
