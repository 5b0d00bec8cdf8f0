"""Arrays of either byte order: other keys, and results of the order that the function returned, with every codec."""

from __future__ import annotations

from typing import Any

import pytest

np: Any = pytest.importorskip("numpy")

from memover import Cache  # noqa: E402
from memover.codec.pickle import PickleCodec  # noqa: E402

CODECS = {"own": None, **{f"pickle {protocol}": PickleCodec(["key"], protocol=protocol) for protocol in range(6)}}
KINDS = ["i2", "u8", "f4", "f8", "c16", "U3", "M8[s]", "m8[D]", [("a", "i4"), ("b", "f8")]]


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_an_array_comes_back_in_its_byte_order(kind: Any, codec: Any, prefix: str) -> None:
    """Whole, empty, of no dimension, in steps, in Fortran's order, and inside another value; and it is never the other's."""
    with Cache("memory://", prefix=prefix, codec=codec) as cache:
        cached: Any = cache.versioned(namespace="arrays")(lambda array: {"array": array})
        keys = set()
        for order in "<>":
            array = np.arange(6).astype("i4").astype(np.dtype(kind).newbyteorder(order))
            for each in (array, array[:0], array[3:4].reshape(()), array[::2], np.asfortranarray(array.reshape(2, 3))):
                for _ in range(2):
                    found = cached(each)["array"]
                    assert (type(found), found.dtype, found.shape) == (type(each), each.dtype, each.shape)
                    assert found.dtype.str == each.dtype.str
                    assert found.tobytes() == each.tobytes()
                keys.add(cached.key(each))
        assert len(keys) == 10
        assert cached.cache_info().hits == 10


@pytest.mark.parametrize("protocol", range(6))
def test_pickle_keeps_the_byte_order_of_numpys_other_arrays(protocol: int) -> None:
    """Masked ones, records, matrices, objects in records, and the columns of pandas."""
    pandas: Any = pytest.importorskip("pandas")
    codec = PickleCodec(["key"], protocol=protocol)
    array = np.array([1, 2, 3], ">i4")
    for value in (
        np.ma.MaskedArray(array, [0, 1, 0], fill_value=7),
        np.rec.array(np.zeros(3, [("a", ">i4"), ("b", "<f8")])),
        array.reshape(1, 3).view(np.matrix),
        np.zeros(3, [("a", ">i4"), ("b", "O")]),
        pandas.Series(array),
        pandas.DataFrame({"a": array}),
    ):
        found = codec.decode(codec.encode(value))
        assert type(found) is type(value)
        assert repr(found) == repr(value)
        if isinstance(value, np.ndarray):
            assert found.dtype == value.dtype
        elif isinstance(value, pandas.Series):
            assert found.to_numpy().dtype.str == ">i4"


def test_what_is_native_is_pickled_as_pickle_does() -> None:
    """The stored bytes of other values do not change."""
    import pickle

    for value in ([1, {"a": np.arange(3, dtype=np.dtype("i8"))}], np.float64(1), np.dtype(">i4"), ValueError("x")):
        for protocol in range(6):
            assert PickleCodec(["key"], protocol=protocol).encode(value)[33:] == pickle.dumps(value, protocol)
