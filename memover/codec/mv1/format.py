"""The bytes of codec "mv1": the one place that says what stored values look like. Stable for good.

A payload is one msgpack document (https://github.com/msgpack/msgpack/blob/master/spec.md), in one of two forms:

    plain    any first byte but C1     nil, bool, int of 64 bits, float64, str, bin (bytes), array (list), map (dict),
                                       and the scalar extensions below: what most results are made of, as msgpack
                                       itself writes it
    marked   C1 · 00 · body            C1 (which msgpack never uses), and a msgpack document with marks
             C1 · n · (n + 1) × u64 · body · n buffers
                                       the same with the raw buffers of 1 to 255 large arrays behind it; the
                                       big-endian lengths are those of the buffers in order, then the body's

Strings are UTF-8, lone surrogates included (as `surrogatepass` writes them).

Scalar extensions carry the whole value in their data (integers big-endian):

    code  kind            data
    -1    Timestamp       msgpack's own; a msgpack.Timestamp comes back as one
    -2    constant        u8: 0 Ellipsis · 1 NotImplemented · 2 msgspec.UNSET · 3 pandas.NA · 4 pandas.NaT
    -3    int             two's complement, beyond msgpack's 64 bits
    -4    complex         2 × f64
    -5    bytearray       the bytes
    -6    date            u16 year · u8 month · u8 day
    -7    time            u8 hour · u8 minute · u8 second · u32 microsecond · u8 fold · zone
    -8    datetime        date · time
    -9    timedelta       i32 days · i32 seconds · i32 microseconds
    -10   tzinfo          zone
    -11   Decimal         ASCII, as str() writes it (signs, exponents, NaN payloads, sNaN)
    -12   Fraction        u32 length of the numerator · numerator · denominator, as -3
    -13   UUID            16 bytes · u8 is_safe: 0 safe · 1 unsafe · 2 unknown
    -14   path            u8 class: 0 PurePosixPath · 1 PureWindowsPath · 2 PosixPath · 3 WindowsPath · text
    -15   ipaddress       u8 class: 0 IPv4Address · 1 IPv6Address · 2 IPv4Network · 3 IPv6Network ·
                          4 IPv4Interface · 5 IPv6Interface · text
    -16   re.Pattern      u8: 0 str, 1 bytes · u32 flags · pattern
    -17   array.array     u8 typecode · u8 item size · u8: 0 little-endian, 1 big-endian · items
    -18   numpy scalar    u8 length of the dtype · dtype (`dtype.str`, or "str"/"bytes") · the item's bytes

    zone: u8 0 naive · 1 timezone.utc · 2 fixed offset (timedelta as -9) · 3 fixed offset, then its name ·
          4 ZoneInfo, then its key

A mark is an extension at the head of an array; the array as a whole is then one value of another kind. Plain lists
never begin with a mark and no mark stands elsewhere, so nothing is mistaken for anything else:

    code  mark            the rest of the array
    -40   tuple           items
    -41   set             items
    -42   frozenset       items
    -43   deque           maxlen or nil · items
    -44   Counter         a map
    -45   defaultdict     factory (nil, a name, or [name, factory of the inner defaultdict]) · a map
    -46   OrderedDict     keys and values in turn
    -47   ChainMap        maps
    -48   mappingproxy    a map
    -49   range           start · stop · step
    -50   slice           start · stop · step
    -51   SimpleNamespace a map of its attributes
    -52   aware time      naive time or datetime · tzinfo of another kind (a registered one)
    -53   numpy array     dtype (`dtype.str`; structured: see `arrays._dtype_text`) · shape (array) ·
                          flags (1 Fortran order · 2 writable) · bin, or the index of a buffer
    -54   numpy objects   shape · flags · items in C order
    -55   frame           library and kind ("pandas.DataFrame", ...) · extra (a map) · bin (Arrow IPC stream)
    -64   definition      data: msgpack [kind, "module:qualname", field names]; see `records`; what follows
                          depends on the kind
    -65   reference       data: u8 or u32 index of a definition made earlier in this payload

Codes 0..127 are msgpack's for applications: memover leaves them alone, so that a msgpack.ExtType inside a result
comes back as itself and can never be read as one of the above.
"""

from __future__ import annotations

from typing import Any

from msgpack import ExtType

__all__ = ["Mark", "Unencodable", "extension"]

CONSTANT = -2
INT = -3
COMPLEX = -4
BYTEARRAY = -5
DATE = -6
TIME = -7
DATETIME = -8
TIMEDELTA = -9
TZINFO = -10
DECIMAL = -11
FRACTION = -12
UUID = -13
PATH = -14
IPADDRESS = -15
PATTERN = -16
ARRAY = -17
NUMPY_SCALAR = -18

TUPLE = -40
SET = -41
FROZENSET = -42
DEQUE = -43
COUNTER = -44
DEFAULTDICT = -45
ORDEREDDICT = -46
CHAINMAP = -47
MAPPINGPROXY = -48
RANGE = -49
SLICE = -50
NAMESPACE = -51
AWARE = -52
NUMPY_ARRAY = -53
NUMPY_OBJECTS = -54
FRAME = -55
DEFINITION = -64
REFERENCE = -65

MARKED = 0xC1


class Unencodable(Exception):
    """Says, inside the codec only, that one object cannot be kept; becomes an `UnencodableValue` with its path."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why, hint)
        self.why = why
        self.hint = hint


class Mark:
    """The head of an array that stands for one value of another kind: `build` makes it from the whole array."""

    __slots__ = ("build",)

    def __init__(self, build: Any) -> None:
        self.build = build


def extension(code: int, data: bytes) -> ExtType:
    """An extension of one of memover's codes, which `ExtType(...)` itself refuses (it admits 0..127)."""
    return tuple.__new__(ExtType, (code, data))
