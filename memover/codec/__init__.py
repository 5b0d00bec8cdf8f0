"""Codecs: how results become bytes and come back as they were.

base        what a codec is · resolve: from a `codec=` option to one · mv1: the default codec · pickle: signed pickles
envelope    the bytes of an entry around its payload · compression: of payloads
sharing     what several callers may be given as it is · copier: private copies, quicker than decoding
faults      whose fault an exception is: a value's, or somebody's outside
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover.later import late_names

if TYPE_CHECKING:
    from memover.classes.registered import register_value
    from memover.codec.base import Codec, codec_name
    from memover.codec.mv1.codec import ValueCodec
    from memover.codec.resolve import resolve_codec
    from memover.codec.sharing import shareable

__all__ = ["Codec", "ValueCodec", "codec_name", "register_value", "resolve_codec", "shareable"]

# Loaded when first asked for: a module of this package does not bring the others along.
_HOMES = {
    "Codec": "memover.codec.base",
    "ValueCodec": "memover.codec.mv1.codec",
    "codec_name": "memover.codec.base",
    "register_value": "memover.classes.registered",
    "resolve_codec": "memover.codec.resolve",
    "shareable": "memover.codec.sharing",
}

__getattr__ = late_names(__name__, _HOMES)
