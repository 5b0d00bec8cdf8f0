"""Canonical bytes: injective, the same everywhere, and never changed."""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import fractions
import functools
import ipaddress
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types
import uuid
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memover import errors
from memover.keys.canonical import encode
from tests.keys import samples as s

GOLDEN: list[tuple[Any, bytes]] = [
    (None, b"N"),
    (True, b"T"),
    (0, b"i0x0;"),
    (-255, b"i-0xff;"),
    (2**64, b"i0x10000000000000000;"),
    (1.5, b"f0x1.8000000000000p+0;"),
    (-0.0, b"f-0x0.0p+0;"),
    (float("nan"), b"fnan;"),
    (float("-inf"), b"f-inf;"),
    (1 + 2j, b"j0x1.0000000000000p+0,0x1.0000000000000p+1;"),
    ("é\ud800", b"s2:\xc3\xa9\xed\xa0\x80"),
    (b"\x00a", b"b2:\x00a"),
    ((1, "a"), b"t2:i0x1;s1:a"),
    ([1, ["b"]], b"l2:i0x1;l1:s1:b"),
    ({2, 1}, b"e2:i0x1;i0x2;"),
    (frozenset({"b", "a"}), b"z2:s1:as1:b"),
    ({"b": 1, "a": None}, b"d2:s1:aNs1:bi0x1;"),
    (bytearray(b"a"), b"x1:s9:bytearrayb1:a"),
    (memoryview(b"ab"), b"x3:s10:memoryviews1:Bt1:i0x2;b2:ab"),
    (array.array("i", [1]), b"x2:s5:arrays1:il1:i0x1;"),
    (range(1, 9, 2), b"x3:s5:rangei0x1;i0x9;i0x2;"),
    (slice(None, 3), b"x3:s5:sliceNi0x3;N"),
    (..., b"x0:s8:Ellipsis"),
    (dt.date(2024, 2, 29), b"x3:s4:datei0x7e8;i0x2;i0x1d;"),
    (dt.time(1, 2, 3, 4), b"x6:s4:timei0x1;i0x2;i0x3;i0x4;i0x0;N"),
    (
        dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=s.ROME),
        b"x9:s8:datetimei0x7e8;i0xa;i0x1b;i0x2;i0x1e;i0x0;i0x0;i0x1;x1:s8:ZoneInfos11:Europe/Rome",
    ),
    (
        dt.datetime(2024, 1, 2, tzinfo=s.UTC),
        b"x9:s8:datetimei0x7e8;i0x1;i0x2;i0x0;i0x0;i0x0;i0x0;i0x0;x2:s8:timezonei0x0;s3:UTC",
    ),
    (dt.timedelta(-1, 2, 3), b"x3:s9:timedeltai-0x1;i0x2;i0x3;"),
    (decimal.Decimal("-1.50"), b"x3:s7:Decimali0x1;s3:150i-0x2;"),
    (decimal.Decimal("NaN"), b"x3:s7:Decimali0x0;s0:s1:n"),
    (fractions.Fraction(-1, 3), b"x2:s8:Fractioni-0x1;i0x3;"),
    (uuid.UUID(int=255), b"x1:s4:UUIDi0xff;"),
    (pathlib.PurePosixPath("/a/b"), b"x2:s4:Paths13:PurePosixPaths4:/a/b"),
    (ipaddress.ip_address("::1"), b"x2:s9:ipaddresss11:IPv6Addresss3:::1"),
    (re.compile("a", re.IGNORECASE), b"x2:s10:re.Patterns1:ai0x22;"),
    (s.Color.RED, b"x2:s4:enums24:tests.keys.samples:Colors3:RED"),
    (s.Level.LOW, b"x2:s4:enums24:tests.keys.samples:Levels3:LOW"),
    (s.Access.READ | s.Access.WRITE, b"x2:s4:flags25:tests.keys.samples:Accessi0x3;"),
    (s.Point(1, 2), b"x5:s10:namedtuples24:tests.keys.samples:Points1:xi0x1;s1:yi0x2;"),
    (
        s.User("a", [s.User("b")]),
        b"x7:s9:dataclasss23:tests.keys.samples:Users4:names1:as7:friendsl1:x7:s9:dataclasss23:tests.keys.samples:Users4:names1:bs7:friendsl0:s4:notes0:s4:notes0:",
    ),
    (collections.OrderedDict([("b", 1), ("a", 2)]), b"x2:s11:OrderedDicts1:bi0x1;s1:ai0x2;"),
    (collections.deque([1], 3), b"x2:s5:dequei0x3;l1:i0x1;"),
    (collections.Counter("aab"), b"x1:s7:Counterd2:s1:ai0x2;s1:bi0x1;"),
    (collections.defaultdict(list, a=[1]), b"x2:s11:defaultdictx1:s5:classs13:builtins:listd1:s1:al1:i0x1;"),
    (collections.ChainMap({1: 2}), b"x1:s8:ChainMapl1:d1:i0x1;i0x2;"),
    (collections.UserDict({1: 2}), b"x2:s7:mappings20:collections:UserDictd1:i0x1;i0x2;"),
    (types.MappingProxyType({1: 2}), b"x1:s12:mappingproxyd1:i0x1;i0x2;"),
    (types.SimpleNamespace(a=1), b"x1:s15:SimpleNamespaced1:s1:ai0x1;"),
    (
        functools.partial(s.anything, 1, a=2),
        b"x3:s7:partialx1:s8:functions27:tests.keys.samples:anythingt1:i0x1;d1:s1:ai0x2;",
    ),
    (s.Color, b"x1:s5:classs24:tests.keys.samples:Color"),
    (len, b"x1:s8:functions12:builtins:len"),
    ("a".upper, b"x2:s6:methods9:str.uppers1:a"),
    (str.upper, b"x2:s10:descriptors12:builtins:strs5:upper"),
    (
        s.Keyed(1).method,
        b"x2:s6:methods31:tests.keys.samples:Keyed.methodx2:s3:keys24:tests.keys.samples:Keyedi0x1;",
    ),
    (s.KeyedToo((1, "a")), b"x2:s3:keys27:tests.keys.samples:KeyedToot2:i0x1;s1:a"),
]

# The package's own __init__ imports what another interpreter may not have installed, so a bare one stands in for it.
CHILD = """
import sys, types
from hashlib import blake2b
sys.modules["memover"] = package = types.ModuleType("memover")
package.__path__ = ["memover"]
from memover.keys.canonical import encode
from tests.keys.samples import distinct
print(blake2b(b"".join(encode(value) for value in distinct())).hexdigest())
"""

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters())
    | st.text("ab:;0123is", max_size=6)
    | st.binary()
    | st.datetimes()
    | st.dates()
    | st.timedeltas()
    | st.decimals().filter(lambda value: not value.is_snan())  # which cannot be hashed
    | st.fractions()
    | st.uuids()
)
hashables = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=8,
)
anything = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashables, inner, max_size=4)
        | st.sets(hashables, max_size=4)
        | st.builds(s.Point, inner, inner)
        | st.builds(s.Client, inner, inner)
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Whether two values are the same to memover: an independent, slow statement of the rule."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return bool((math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b)))
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, decimal.Decimal):
        return bool(a.as_tuple() == b.as_tuple())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (set, frozenset)):
        return matched(list(a), list(b))
    if isinstance(a, dict):
        return matched(list(a.items()), list(b.items()))
    if isinstance(a, s.Client):
        return same(vars(a), vars(b))
    if isinstance(a, (dt.datetime, dt.time)):
        return bool(a == b and a.fold == b.fold)
    return bool(a == b)


def matched(a: list[Any], b: list[Any]) -> bool:
    rest = list(b)
    for item in a:
        found = next((index for index, one in enumerate(rest) if same(item, one)), None)
        if found is None:
            return False
        del rest[found]
    return not rest


@pytest.mark.parametrize(("value", "data"), GOLDEN, ids=lambda value: type(value).__name__)
def test_released_bytes_never_change(value: Any, data: bytes) -> None:
    """Each known value has the bytes it was released with."""
    assert encode(value) == data


def test_no_two_samples_share_their_bytes() -> None:
    """Values of different types, or that a function could tell apart, have different bytes."""
    values = s.distinct()
    assert len({encode(value) for value in values}) == len(values)


def test_equal_values_made_anew_have_equal_bytes() -> None:
    """Identity does not count: the same samples made twice have the same bytes."""
    assert [encode(value) for value in s.distinct()] == [encode(value) for value in s.distinct()]


@given(anything, anything)
def test_bytes_are_equal_iff_the_values_are(a: Any, b: Any) -> None:
    """The encoding is injective and a function of the value."""
    assert (encode(a) == encode(b)) == same(a, b)


@given(st.lists(hashables, max_size=6), st.randoms())
def test_order_of_sets_and_dicts_does_not_count(items: list[Any], random: Any) -> None:
    """A set or dict filled in another order has the same bytes."""
    shuffled = list(items)
    random.shuffle(shuffled)
    one, two = dict.fromkeys(items, 1), dict.fromkeys(shuffled, 1)
    if matched(list(one), list(two)):  # 1 and True are one key, and the first of them stays
        assert encode(one) == encode(two)
        assert encode(set(one)) == encode(set(two))


@given(anything, anything)
def test_neighbours_cannot_trade_bytes(a: Any, b: Any) -> None:
    """Where one value ends and the next begins is part of the bytes."""
    assert encode((a, b)) != encode(((a, b),))
    assert encode([a, [b]]) != encode([[a], b])
    assert encode((a, b)).endswith(encode(a) + encode(b))


def interpreters() -> list[Any]:
    found = {}
    for minor in range(10, 20):
        path = shutil.which(f"python3.{minor}")
        if path is None or minor == sys.version_info.minor:
            continue
        reason = "" if _runs(path) else f"python3.{minor} on PATH does not start"
        found[minor] = pytest.param(path, id=f"3.{minor}", marks=pytest.mark.skipif(bool(reason), reason=reason))
    if not found:
        return [pytest.param("", marks=pytest.mark.skip(reason="no other python3.x on PATH"))]
    return list(found.values())


def _runs(path: str) -> bool:
    return subprocess.run([path, "-c", ""], check=False, capture_output=True).returncode == 0


def digest_in_a_child(python: str, seed: str) -> str:
    root = str(pathlib.Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}
    answer = subprocess.run(
        [python, "-c", CHILD], env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def digest_here() -> str:
    return blake2b(b"".join(encode(value) for value in s.distinct())).hexdigest()


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_bytes_are_the_same_under_every_hash_seed(seed: str) -> None:
    """A process with another PYTHONHASHSEED makes the same bytes."""
    assert digest_in_a_child(sys.executable, seed) == digest_here()


@pytest.mark.parametrize("python", interpreters())
def test_bytes_are_the_same_on_every_python(python: str) -> None:
    """The other Pythons of this machine make the same bytes."""
    assert digest_in_a_child(python, "random") == digest_here()


# ------------------------------------------------------------------ what is refused


class Plain:
    pass


class MyInt(int): ...


class MyStr(str):
    __slots__ = ()


class MyDict(dict): ...  # type: ignore[type-arg]


class Undecorated(s.Client): ...


class Tuple(collections.namedtuple("Tuple", "a")): ...


def extended_tuple() -> Tuple:
    value = Tuple(1)
    value.more = 2  # type: ignore[attr-defined]
    return value


@pytest.mark.parametrize(
    "value",
    [
        Plain(),
        object(),
        MyInt(1),
        MyStr("a"),
        MyDict(),
        Undecorated("a"),
        extended_tuple(),
        lambda: 1,
        types,
        iter([1]),
        {}.keys(),
        ValueError("a"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_told_apart_is_refused(value: Any) -> None:
    """Foreign objects, subclasses of builtins, and one-shot iterators never enter by repr, hash or id."""
    with pytest.raises(errors.UnkeyableArgument, match="cannot be part of a key"):
        encode(value)


def closure(n: int) -> Any:
    def inner() -> int:
        return n

    return inner


def local_class() -> type:
    class Local: ...

    return Local


def decorated() -> Any:
    @functools.wraps(s.function)
    def wrapper() -> None: ...

    return wrapper


@pytest.mark.parametrize(
    "value", [closure(1), local_class(), decorated(), closure(1).__call__, functools.partial(closure(1))]
)
def test_closures_are_refused(value: Any) -> None:
    """Two closures have one name, so neither a lambda, a local function nor a local class is taken by name."""
    with pytest.raises(errors.UnkeyableArgument, match=r"define it at module level|cannot be part of a key"):
        encode(value)


def test_an_instance_of_a_local_class_counts_by_its_fields() -> None:
    """A class made inside a function is known by its qualified name, its instances by class and fields."""
    import dataclasses

    local = dataclasses.make_dataclass("local", ["a"])
    assert encode(local(1)) == encode(local(1)) != encode(local(2))


def cyclic_list() -> Any:
    value: list[Any] = [1]
    value.append({"a": value})
    return value


def cyclic_dataclass() -> Any:
    value = s.Client("a")
    value.friends.append(value)  # type: ignore[arg-type]
    return value


def cyclic_key() -> Any:
    value = s.Keyed(None)
    value.key = [value]
    return value


def nested(depth: int, wrap: Any) -> Any:
    value: Any = ()
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("make", [cyclic_list, cyclic_dataclass, cyclic_key])
def test_a_structure_that_holds_itself_is_refused(make: Any) -> None:
    """Cycles are refused, not looped over."""
    with pytest.raises(errors.UnkeyableArgument, match="holds itself"):
        encode(make())


@pytest.mark.parametrize(
    "wrap", [lambda v: [v], lambda v: (v,), lambda v: {"a": v}, s.Keyed, lambda v: s.Client("", v)]
)
@pytest.mark.parametrize("depth", [101, 50_000])
def test_absurd_depth_is_refused(wrap: Any, depth: int) -> None:
    """Depth is bounded, and passing the bound is no RecursionError."""
    value = nested(depth, wrap)
    with pytest.raises(errors.UnkeyableArgument, match="nested more than 100 deep"):
        encode(value)


def test_a_shared_part_is_no_cycle() -> None:
    """The same object twice, side by side, is encoded twice."""
    part = [1]
    assert encode([part, part]) == encode([[1], [1]])


def test_depth_within_the_bound_is_encoded() -> None:
    """A hundred levels are no trouble."""
    assert encode(nested(99, lambda v: [v]))


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        (Plain(), "user", "Plain"),
        ([1, [Plain()]], "user[1][0]", "Plain"),
        ({"a": {"b": Plain()}}, "user['a']['b']", "Plain"),
        ({Plain(): 1}, "user.keys()", "Plain"),
        ({frozenset({Plain()})}, "user{...}{...}", "Plain"),
        (s.Client("a", [s.Client("b", [1, Plain()])]), "user.friends[0].friends[1]", "Plain"),  # type: ignore[list-item]
        (s.Point(1, Plain()), "user.y", "Plain"),  # type: ignore[arg-type]
        (s.Keyed([Plain()]), "user.__memover_key__()[0]", "Plain"),
        (functools.partial(s.anything, Plain()), "user.args[0]", "Plain"),
        ({"x" * 100: Plain()}, "user['" + "x" * 36 + "...]", "Plain"),
        (collections.deque([Plain()]), "user[0]", "Plain"),
    ],
)
def test_the_error_names_the_place(value: Any, path: str, kind: str) -> None:
    """Function, parameter, path inside it, type, and what to do."""
    with pytest.raises(errors.UnkeyableArgument) as caught:
        encode(value, "user", "load")
    error = caught.value
    assert (error.function, error.parameter, error.path) == ("load", "user", path)
    assert error.kind.endswith(kind)
    for part in ("load()", path, kind, "__memover_key__", "memover.register_key", "ignore=('user',)", "key="):
        assert part in str(error)
    # What is left out is shared by all: whoever follows the advice is to know what for.
    assert ("depends on nothing in it" if path != "user" else "does not depend on it") in str(error)


@pytest.mark.parametrize("value", [nested(99, lambda v: [v]), s.Keyed([1])], ids=["nested", "keyed"])
def test_a_stack_nearly_used_up_is_a_recursion_error(value: Any) -> None:
    """A value that has a key is never refused because the caller has used up the stack: the error is as it was raised."""

    def deeper(left: int) -> bytes:
        return encode(value) if left == 0 else deeper(left - 1)

    whole, outcomes = encode(value), []
    for depth in range(0, sys.getrecursionlimit(), 7):
        try:
            outcomes.append(deeper(depth))
        except RecursionError:
            outcomes.append(b"")
    assert set(outcomes) == {whole, b""}
