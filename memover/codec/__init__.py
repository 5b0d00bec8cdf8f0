"""Codecs: how results become bytes and come back as they were.

base        what a codec is, and which one a `codec=` option names · mv1: the default codec · pickle: signed pickles
envelope    the bytes of an entry around its payload · compression: of payloads
sharing     what several callers may be given as it is · copier: private copies, quicker than decoding
faults      whose fault an exception is: a value's, or somebody's outside
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover.later import late_names

if TYPE_CHECKING:
    from memover.codec.base import Codec
    from memover.codec.mv1.codec import ValueCodec

__all__ = ["Codec", "ValueCodec"]

# For options and annotations of programs. Loaded when first asked for: a module of this package does not bring the others along.
__getattr__ = late_names(__name__, {"Codec": "memover.codec.base", "ValueCodec": "memover.codec.mv1.codec"})
