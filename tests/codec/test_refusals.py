"""What would not come back as it was is refused when stored, with function, path, and what to do."""

from __future__ import annotations

import copy
import datetime as dt
import functools
import io
import pickle
import sys
import threading
from array import array
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from memover.codec.mv1.codec import ValueCodec
from memover.errors import UnencodableValue
from tests.codec import things as t
from tests.codec.same import same

CODEC = ValueCodec(t.anything)


def cycle() -> Any:
    value: list[Any] = [1]
    value.append({"k": (value,)})
    return value


def cyclic_friend() -> Any:
    friend = t.Friend("x")
    friend.photo = [friend]
    return friend


class Zone(dt.tzinfo):
    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(0)


def generator() -> Iterator[int]:
    yield 1


REFUSED: dict[str, tuple[Any, str, str]] = {
    "object": (object(), "$", "register_value"),
    "function": (len, "$", "function"),
    "lambda": ([lambda: None], "$[0]", "function"),
    "class": ({"kind": int}, "$.kind", "class"),
    "module": ({"two words": [pytest]}, "$['two words'][0]", "module"),
    "generator": (generator(), "$", "list"),
    "memoryview": ({"a": (1, memoryview(b"x"))}, "$.a[1]", "bytes"),
    "memoryview as key": ({memoryview(b"x"): 1}, "$[<memoryview>]<key>", "bytes"),
    "memoryview in dataclass": (t.Friend("x", memoryview(b"x")), "$.photo", "bytes"),
    "lock": (t.Friend("x", [threading.Lock()]), "$.photo[0]", "register_value"),
    "file": (io.BytesIO(), "$", "register_value"),
    "deep path": (
        t.Profile(1, "x", [t.Friend("a"), t.Friend("b"), t.Friend("c"), t.Friend("d", object())]),
        "$.friends[3].photo",
        "register_value",
    ),
    "slots": (t.Slotted(1, {5: object()}), "$.y[5]", "register_value"),
    "named tuple": (t.Pair(1, object()), "$.right", "register_value"),
    "added attribute": (t.attribute(t.Friend("x"), lock=object()), "$.lock", "register_value"),
    "beside a msgpack ext": ([msgpack.ExtType(5, b""), object()], "$[1]", "register_value"),
    "key": ({(1, object): 2}, "$[<tuple>]<key>[1]", "class"),
    "canary": (t.Canary(), "$", "register_value"),
    "factory": ([defaultdict(lambda: 1)], "$[0]", "factory"),
    "cycle": (cycle(), "$[1].k[0]", "contains itself"),
    "cycle in dataclass": (cyclic_friend(), "$.photo[0]", "contains itself"),
    "zone": (dt.datetime(2024, 1, 1, tzinfo=Zone()), "$[1]", "Zone"),
    "exception": (ValueError(object()), "$.args[0]", "register_value"),
    "subclass": (t.MyDict(a=object()), "$.a", "register_value"),
    "array": (array("w" if sys.version_info >= (3, 13) else "u", "x"), "$", "characters"),
    "too deep": (functools.reduce(lambda inner, _: [inner], range(2000), 1), None, "deeper"),
}  # type: ignore[dict-item]


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_function_path_and_remedy(name: str) -> None:
    """The error says where the value is that cannot be kept, of which class it is, and what can be done."""
    value, path, word = REFUSED[name]
    with pytest.raises(UnencodableValue, match=word) as caught:
        CODEC.encode(value)
    error = caught.value
    assert error.function == "anything"
    assert path is None or error.path == path
    assert path is None or f"at {path} " in str(error)
    assert ". To store it, " in str(error)
    assert isinstance(error, TypeError)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("starlette.responses", "JSONResponse"),
        ("flask", "Response"),
        ("werkzeug.sansio.response", "Response"),
        ("django.http", "HttpResponse"),
    ],
)
def test_the_response_of_a_web_framework_is_refused_with_what_to_return(module: str, name: str) -> None:
    """A decorated endpoint returns one; `register_value` would not be the remedy."""
    response = object.__new__(getattr(pytest.importorskip(module), name))
    with pytest.raises(UnencodableValue, match=r"at \$ there is a .*Response, which is made anew") as caught:
        CODEC.encode(response)
    assert "return the data that the response is made from" in str(caught.value)
    assert "register_value" not in str(caught.value)


def test_a_refusal_leaves_the_codec_as_it_was() -> None:
    """After a refused value the same codec stores others as before."""
    for _ in range(3):
        for name in REFUSED:
            with pytest.raises(UnencodableValue):
                CODEC.encode(copy.copy(REFUSED[name][0]) if name == "deep path" else REFUSED[name][0])
        value = [t.Friend("x", (1, bytearray(b"y"))), "\ud800"]
        assert same(CODEC.decode(CODEC.encode(value)), value)


def test_a_name_for_errors_stands_for_the_function() -> None:
    """Without a function, the name given says whose value it was."""
    with pytest.raises(UnencodableValue, match="of the key 'x' cannot") as caught:
        ValueCodec(name_for_errors="the key 'x'").encode(object())
    assert caught.value.function == "the key 'x'"


def test_a_subclass_of_what_is_kept_is_not_its_base() -> None:
    """Subclasses that the program does not name, or that cannot be rebuilt, are refused rather than flattened."""
    for base in (dict, list, tuple, str, int, float, bytes, set, dt.datetime, dt.date, ValueError):
        kind = type("Below", (base,), {"__module__": "nowhere"})
        made = kind(2024, 1, 1) if base in (dt.datetime, dt.date) else kind()
        with pytest.raises(UnencodableValue):
            CODEC.encode(made)


def test_a_long_int_on_the_path_hides_no_reason() -> None:
    """Python makes no text of an int of more than 4,300 digits."""
    with pytest.raises(UnencodableValue, match=r"at \$\[<int>\] there is a builtins.object"):
        ValueCodec(t.anything).encode({10**5000: object()})
