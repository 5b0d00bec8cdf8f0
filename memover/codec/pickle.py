"""Pickle, for those who ask for it, and never unsigned: unpickling runs code, so bytes are verified before.

A payload is one version byte, a tag of 32 bytes, and the pickle. The tag is HMAC-SHA256 (RFC 2104) over a fixed
prefix, the version byte and the pickle. The algorithm is fixed here; nothing in the stored bytes chooses it.

The signature says that a holder of the key wrote these bytes for some entry, not for which: whoever can write to
the store can put one signed pickle in another's place.
"""

from __future__ import annotations

import copyreg
import hmac
import io
import pickle
import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any

from memover.classes.naming import find_named, module_of, program_names
from memover.codec.faults import from_outside
from memover.errors import ConfigurationError, DamagedEntry, UnencodableValue

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PickleCodec", "UnpicklableValue"]

VERSION = b"\x01"
TAG_BYTES = 32
PREFIX = b"memover.PickleCodec\x00"


class UnpicklableValue(UnencodableValue, pickle.PicklingError):
    """A result that pickle refuses; also a `pickle.PicklingError`, as users of pickling caches expect."""


class PickleCodec:
    """Stores whatever pickle can, signed with a secret of yours.

    `keys` are secrets (32 random bytes each are right): the first signs, any verifies, so that a key is replaced by
    putting the new one first, and dropped when the entries of the old one have expired. All processes that share
    entries need a key in common. `protocol` is pickle's, by default 4: readable by every supported Python.

    Pickling runs code of the user's (`__reduce__`, `__setstate__`, ...), whose exceptions count as `register_value` says.

    Raises `ConfigurationError` when there is no key, or an empty one.
    """

    name = "pickle+hmac-sha256"

    def __init__(self, keys: Sequence[bytes | str], *, protocol: int = 4) -> None:
        if isinstance(keys, (str, bytes, bytearray)) or not keys:
            raise ConfigurationError(
                'PickleCodec takes a list of keys: PickleCodec(keys=[os.environ["CACHE_KEY"]]). '
                "The first signs, all verify."
            )
        secrets = []
        for key in keys:
            secret = key.encode() if isinstance(key, str) else key
            if not isinstance(secret, bytes) or not secret:
                raise ConfigurationError(
                    "A key of PickleCodec is not empty, and bytes or str; 32 random bytes are right."
                )
            secrets.append(secret)
        if not 0 <= protocol <= pickle.HIGHEST_PROTOCOL:
            raise ConfigurationError(f"pickle has no protocol {protocol!r}; take one up to {pickle.HIGHEST_PROTOCOL}.")
        self._keys = tuple(secrets)
        self._protocol = protocol

    def __repr__(self) -> str:
        return f"PickleCodec(<{len(self._keys)} keys>)"

    def encode(self, value: Any) -> bytes:
        """The signed pickle of `value`; raises `UnpicklableValue` when pickle refuses it."""
        try:
            content = _dumps(value, self._protocol)
        except Exception as error:
            if from_outside(error):
                raise
            kind = type(value)
            raise UnpicklableValue(
                f"The result cannot be stored: pickle refuses this {kind.__qualname__} ({error}). "
                "Return something that pickle takes, or use the default codec and register_value(). To have such results "
                'returned and not stored, use on_unencodable="return". This result is the error\'s `value`.',
                kind=f"{kind.__module__}.{kind.__qualname__}",
                value=value,
            ) from error
        return b"".join((VERSION, self._tag(self._keys[0], content), content))

    def decode(self, data: bytes | memoryview) -> Any:
        """The value of a payload that was signed under one of the keys.

        Raises `DamagedEntry`: "signature" when no key made the tag (nothing is unpickled), "pickle" when a signed
        pickle no longer loads here, because a class was moved, say.
        """
        view = memoryview(data)
        tag, content = bytes(view[1 : 1 + TAG_BYTES]), view[1 + TAG_BYTES :]
        verified = False
        if bytes(view[:1]) == VERSION and len(tag) == TAG_BYTES:
            for key in self._keys:
                # Every key is tried, so that the time does not tell which one it was.
                verified |= hmac.compare_digest(self._tag(key, content), tag)
        if not verified:
            raise DamagedEntry(
                "The stored bytes were not signed with a key of this PickleCodec. The entry counts as a miss; "
                "if keys were replaced, keep the old ones behind the new one for a while.",
                reason="signature",
            )
        try:
            return _Unpickler(io.BytesIO(content)).load()
        except Exception as error:
            if from_outside(error):
                raise
            raise DamagedEntry(
                f"A signed pickle does not load here: {error!r}. The entry counts as a miss.", reason="pickle"
            ) from error

    @staticmethod
    def _tag(key: bytes, content: bytes | memoryview) -> bytes:
        mac = hmac.new(key, PREFIX, "sha256")
        mac.update(VERSION)
        mac.update(content)
        return mac.digest()


def _dumps(value: Any, protocol: int) -> bytes:
    numpy: Any = sys.modules.get("numpy")
    ours = bool(program_names())
    if numpy is None and not ours:
        return pickle.dumps(value, protocol)
    file = io.BytesIO()
    pickler = _Pickler(file, protocol) if ours else pickle.Pickler(file, protocol)
    if numpy is not None:
        arrays = [numpy.ndarray, numpy.matrix, numpy.recarray, numpy.ma.MaskedArray]
        pickler.dispatch_table = {
            **copyreg.dispatch_table,
            **dict.fromkeys(arrays, lambda each: _array(each, protocol)),
        }
    pickler.dump(value)
    return file.getvalue()


def _array(value: Any, protocol: int) -> Any:
    """A numpy array's own reduction, which makes one of another byte order native; such a one is converted back when it is read."""
    if value.dtype.isnative:
        return value.__reduce_ex__(protocol)
    return type(value).astype, (value.astype(value.dtype.newbyteorder("=")), value.dtype)


class _Pickler(pickle.Pickler):
    """Names the classes and functions of a program as an import would: `__main__` is another module elsewhere."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, (type, FunctionType)) and value.__module__ in ("__main__", "__mp_main__"):
            name = module_of(value)
            if name != "__main__":
                try:
                    if find_named(name, value.__qualname__) is value:
                        return find_named, (name, value.__qualname__)
                except (ImportError, AttributeError):
                    pass  # pickle says what is wrong with it
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    """Finds in the program what other processes stored under the name of its module."""

    def find_class(self, module: str, name: str) -> Any:
        return find_named(module, name) if module in program_names() else super().find_class(module, name)
