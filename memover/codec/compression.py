"""Payloads made smaller, from a size on, and never larger again than the reader allows.

What is stored never expands to more than `FREE_BYTES`, or `RATIO_LIMIT` times its own length if that is more: `expand` makes
no byte beyond it, and `compress` leaves a payload that would need it as it is.

    flag  how
    0     as it is
    1     zlib (RFC 1950)
    2     zstd (RFC 8878), one frame that says its content's size

zstd comes from the standard library where it has it (Python 3.14), else from the `zstandard` package; without
either, zlib is written.
"""

from __future__ import annotations

import functools
import sys
import zlib
from typing import TYPE_CHECKING, Any

from memover.codec.faults import FAULTS, from_outside
from memover.errors import DamagedEntry

if TYPE_CHECKING:
    from collections.abc import Callable

    Ways = tuple[Callable[[bytes], bytes], Callable[[bytes | memoryview, int], bytes]]

__all__ = ["FREE_BYTES", "NONE", "RATIO_LIMIT", "ZLIB", "ZSTD", "compress", "expand"]

NONE, ZLIB, ZSTD = 0, 1, 2

ZLIB_LEVEL = 1
ZSTD_LEVEL = 1
SAMPLE_BYTES = 16 * 1024
SAMPLE_FROM_BYTES = 8 * SAMPLE_BYTES
WINDOW_LIMIT_BITS = 27
FREE_BYTES = 256 * 1024 * 1024
RATIO_LIMIT = 64
MOST_KEPT = 0.9
"""A payload that is longer than this share of itself when compressed stays as it is."""


def compress(payload: bytes, *, threshold_bytes: int = 4096) -> tuple[int, bytes]:
    """The flag and the bytes to store for a payload.

    Payloads shorter than `threshold_bytes` stay as they are, and so do those that compression would not make
    shorter by a tenth, or shorter than they may be; of large ones, samples are tried first. Raises
    nothing.
    """
    if len(payload) < threshold_bytes:
        return NONE, payload
    zstd = _zstd()
    flag, (squeeze, _) = (ZLIB, _ZLIB) if zstd is None else (ZSTD, zstd)
    if len(payload) >= SAMPLE_FROM_BYTES:
        middle = len(payload) // 2
        sample = payload[:SAMPLE_BYTES] + payload[middle : middle + SAMPLE_BYTES] + payload[-SAMPLE_BYTES:]
        if len(squeeze(sample)) > len(sample) * MOST_KEPT:
            return NONE, payload
    smaller = squeeze(payload)
    if len(smaller) > len(payload) * MOST_KEPT or len(payload) > _most(len(smaller)):
        return NONE, payload
    return flag, smaller


def expand(flag: int, data: bytes | memoryview, *, limit_bytes: int) -> bytes | memoryview:
    """The payload of stored bytes; one that was not compressed is handed back as it came.

    Raises `DamagedEntry`: "too-large" when it has more than `limit_bytes` bytes, or more than `compress` makes stored bytes of
    this length of (no more than that is ever made), "no-zstd" when this process has no zstd, "compression" for anything
    that `compress` did not write.
    """
    if flag == NONE:
        if len(data) > limit_bytes:
            raise _too_large(limit_bytes)
        return data
    ways = _ZLIB if flag == ZLIB else _zstd() if flag == ZSTD else None
    if ways is None and flag == ZSTD:
        raise DamagedEntry(
            "The entry is compressed with zstd, which this process does not have. It counts as a miss; "
            "install the zstandard package (memover[zstd]) wherever entries are shared.",
            reason="no-zstd",
        )
    if ways is None:
        raise DamagedEntry(
            f"The entry is compressed in an unknown way ({flag!r}). It counts as a miss.", reason="compression"
        )
    try:
        return ways[1](data, min(limit_bytes, _most(len(data))))
    except DamagedEntry:
        raise
    except _refusals() as error:
        if from_outside(error):
            raise
        raise DamagedEntry(
            f"The stored bytes do not expand: {error}. The entry counts as a miss.", reason="compression"
        ) from error


def _most(stored_bytes: int) -> int:
    """The greatest length of a payload that may be stored in so many bytes."""
    return max(FREE_BYTES, RATIO_LIMIT * stored_bytes)


def _too_large(limit_bytes: int) -> DamagedEntry:
    return DamagedEntry(
        f"The entry expands to more than {limit_bytes:,} bytes. It counts as a miss; "
        "raise the limit if results are that large.",
        reason="too-large",
    )


def _whole(stream: Any, data: bytes | memoryview, limit_bytes: int) -> bytes:
    """All that a decompressor of the standard library makes of these bytes."""
    payload: bytes = stream.decompress(data, limit_bytes + 1)
    if len(payload) > limit_bytes:
        raise _too_large(limit_bytes)
    if not stream.eof or stream.unused_data:
        raise ValueError("cut off, or followed by other bytes")
    return payload


_ZLIB: Ways = (
    lambda payload: zlib.compress(payload, ZLIB_LEVEL),
    lambda data, limit_bytes: _whole(zlib.decompressobj(), data, limit_bytes),
)


def _refusals() -> tuple[type[Exception], ...]:
    """What bytes that do not expand raise; asked only when something was raised."""
    modules = [sys.modules.get(name) for name in ("compression.zstd", "zstandard")]
    own = [error for module in modules if (error := getattr(module, "ZstdError", None)) is not None]
    return (zlib.error, EOFError, *own, *FAULTS)


@functools.lru_cache(maxsize=1)
def _zstd() -> Ways | None:
    """The ways in and out of zstd that this process has."""
    try:
        from compression import zstd  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
    except ImportError:
        return _zstd_package()

    def unsqueeze(data: bytes | memoryview, limit_bytes: int) -> bytes:
        options = {zstd.DecompressionParameter.window_log_max: WINDOW_LIMIT_BITS}
        return _whole(zstd.ZstdDecompressor(options=options), data, limit_bytes)

    return lambda payload: zstd.compress(payload, ZSTD_LEVEL), unsqueeze


def _zstd_package() -> Ways | None:
    try:
        import zstandard
    except ImportError:
        return None

    def squeeze(payload: bytes) -> bytes:
        # A compressor must not be used by two threads at once; making one costs little beside using it.
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(payload)

    def unsqueeze(data: bytes | memoryview, limit_bytes: int) -> bytes:
        size = zstandard.frame_content_size(data)
        if size < 0:
            raise ValueError("a frame that does not say its content's size")
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        reader = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LIMIT_BITS)
        payload = reader.decompress(data, max_output_size=limit_bytes, allow_extra_data=False)
        if len(payload) != size:
            raise ValueError("another size than the frame says")
        return payload

    return squeeze, unsqueeze
