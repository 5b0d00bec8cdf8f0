"""Bindings: two calls share a key iff they are the same call, however they are written."""

from __future__ import annotations

import functools
import inspect
import random
import sys
import threading
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memover.errors import ConfigurationError, UnkeyableArgument
from memover.keys.canonical import encode
from memover.keys.compiler import digest
from memover.keys.memo import CallMemo
from tests.keys import samples as s
from tests.keys.samples import Binding

DEFAULT = ["shared"]


def f(a: Any, b: Any = None, *args: Any, c: Any = "c", d: Any = DEFAULT, **kwargs: Any) -> None: ...


def plain(a: Any, b: Any = 1) -> None: ...


def positional(a: Any, b: Any = 1, /) -> None: ...


def keyword(*, a: Any, b: Any = 1) -> None: ...


def mixed(a: Any, /, b: Any, *, c: Any = 3) -> None: ...


def starred(*args: Any, **kwargs: Any) -> None: ...


def none() -> None: ...


def awkward(
    type: Any, str: Any, _m: Any, _mtype: Any = 1, self: Any = 2, memo: Any = 3, Exception: Any = 4
) -> None: ...


FUNCTIONS: list[Any] = [f, plain, positional, keyword, mixed, starred, none, awkward]

simple = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text("ab1", max_size=2) | st.binary(max_size=2)
)
values = simple | st.lists(simple, max_size=2) | st.tuples(simple) | st.just(s.Point(1, 2))
calls = st.tuples(
    st.lists(values, max_size=4).map(tuple),
    st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e", "args", "kwargs"]), values, max_size=4),
)


def bound(function: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    arguments = inspect.signature(function).bind(*args, **kwargs)
    arguments.apply_defaults()
    return dict(arguments.arguments)


def canonical(function: Any, *args: Any, **kwargs: Any) -> bytes:
    """The bytes of a call, as the head of `binding` says."""
    letters: dict[Any, bytes] = {inspect.Parameter.VAR_POSITIONAL: b"a", inspect.Parameter.VAR_KEYWORD: b"k"}
    arguments = bound(function, args, kwargs)
    parts = [
        letters.get(parameter.kind, b"p") + encode(name) + encode(arguments[name])
        for name, parameter in inspect.signature(function).parameters.items()
    ]
    return b"c%d:" % len(parts) + b"".join(parts)


def digested(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def attempt(function: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except TypeError as error:
        return type(error), str(error)


@pytest.mark.parametrize("function", FUNCTIONS)
@given(call=calls)
def test_calls_bind_as_the_function_binds_them(function: Any, call: Any) -> None:
    """The arguments are those of Signature.bind, and wrong calls raise the function's own TypeError."""
    args, kwargs = call
    binding = Binding(function)
    refused = attempt(function, *args, **kwargs)
    if refused is not None:
        for ask in (binding.text, binding.compile(str)):
            assert attempt(ask, *args, **kwargs) == refused
        return
    assert repr(binding.arguments(args, kwargs)) == repr(bound(function, args, kwargs))
    assert binding.text(*args, **kwargs) == digested(canonical(function, *args, **kwargs))


@given(one=calls, two=calls)
def test_two_calls_share_a_text_iff_they_are_the_same_call(one: Any, two: Any) -> None:
    """Compared with the bound arguments, types and all."""
    if attempt(f, *one[0], **one[1]) is not None or attempt(f, *two[0], **two[1]) is not None:
        return
    binding = Binding(f)
    same = encode(bound(f, *one)) == encode(bound(f, *two))
    assert (binding.text(*one[0], **one[1]) == binding.text(*two[0], **two[1])) == same


@given(st.lists(calls, max_size=12))
def test_the_memo_never_changes_an_answer(sequence: list[Any]) -> None:
    """Whatever was asked before, the compiled lookup gives the text that the long way gives."""
    binding = Binding(f)
    lookup = binding.compile(lambda text: text, memo_size=3)
    for args, kwargs in sequence + sequence:
        assert attempt(lookup, *args, **kwargs) == attempt(binding.text, *args, **kwargs)


def test_a_call_is_the_same_however_it_is_written() -> None:
    """Positions, names, defaults and the order of **kwargs make no difference."""
    texts = {
        Binding(f).text(1, None, c="c"),
        Binding(f).text(1),
        Binding(f).text(a=1),
        Binding(f).text(b=None, a=1),
        Binding(f).text(1, d=["shared"]),
    }
    assert len(texts) == 1
    assert Binding(f).text(1, x=1, y=2) == Binding(f).text(1, y=2, x=1)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ((("a b", "c"), {}), (("a", "b c"), {})),
        (((1, None, "x", 2, "y"), {}), ((1,), {"x": 2, "y": None})),
        (((1, None, "x", 2), {}), ((1,), {"x": 2})),
        (((1, None, ("x", 2)), {}), ((1,), {"x": 2})),
        (((1, 2, 3), {}), ((1, (2, 3)), {})),
        (((1, 2, 3), {}), ((1, 2, "3"), {})),
        (((1,), {}), ((1.0,), {})),
        (((1,), {}), ((True,), {})),
        (((1,), {}), (("1",), {})),
        (((0,), {}), ((False,), {})),
        (((None,), {}), (("None",), {})),
        ((("a",), {}), ((b"a",), {})),
        ((([1],), {}), (((1,),), {})),
        ((([1],), {}), (("[1]",), {})),
        (((1,), {"kwargs": {"x": 1}}), ((1,), {"x": 1})),
        (((1,), {"args": (2,)}), ((1, None, 2), {})),
        (((1,), {"x": 1}), ((1,), {"x": True})),
        (((1, None, 1), {}), ((1, None, True), {})),
        ((("",), {}), ((None,), {})),
        (((0.0,), {}), ((-0.0,), {})),
        ((("a", "b:c"), {}), (("a:b", "c"), {})),
        ((("a\x00", "b"), {}), (("a", "\x00b"), {})),
    ],
)
def test_calls_that_look_alike_are_kept_apart(one: Any, two: Any) -> None:
    """The pairs that other libraries confuse, with and without the memo, in either order."""
    binding = Binding(f)
    assert binding.text(*one[0], **one[1]) != binding.text(*two[0], **two[1])
    for first, second in ((one, two), (two, one)):
        lookup = binding.compile(lambda text: text)
        assert lookup(*first[0], **first[1]) != lookup(*second[0], **second[1])
        assert lookup(*first[0], **first[1]) == binding.text(*first[0], **first[1])


def test_a_keyword_may_have_the_name_of_a_positional_only_parameter() -> None:
    """`f(1, a=2)` of `def f(a, /, **kwargs)` is a call of its own."""

    def g(a: Any, /, **kwargs: Any) -> None: ...

    binding = Binding(g)
    assert binding.arguments((1,), {"a": 2}) == {"a": 1, "kwargs": {"a": 2}}
    assert len({binding.text(1), binding.text(1, a=2), binding.text(2, a=1), binding.text(1, kwargs=2)}) == 4


def test_canonical_bytes_of_a_call_never_change() -> None:
    """The released form of a call."""
    assert Binding(f).text(1, 2, 3, x="y") == digested(
        b"c6:ps1:ai0x1;ps1:bi0x2;as4:argst1:i0x3;ps1:cs1:cps1:dl1:s6:sharedks6:kwargsd1:s1:xs1:y"
    )
    assert Binding(plain).text(7) == "4ce43647026a572d957fe586a412a934"
    assert Binding(none).text() == digested(b"c0:")


def test_parameter_names_are_part_of_the_key() -> None:
    """A renamed parameter, positional-only or not, or another order never reads old entries."""

    def renamed(x: Any, b: Any = 1) -> None: ...

    def renamed_positional(x: Any, b: Any = 1, /) -> None: ...

    def reordered(b: Any = 1, a: Any = 1) -> None: ...

    def more(a: Any, b: Any = 1, c: Any = None) -> None: ...

    texts = [Binding(g).text(1) for g in (plain, renamed, reordered, more)]
    assert len(set(texts)) == 4
    assert Binding(positional).text(1) != Binding(renamed_positional).text(1)


# ------------------------------------------------------------------ ignore


def test_ignored_parameters_do_not_count() -> None:
    """Whatever they hold, unkeyable objects too."""
    binding = Binding(f, ignore=("b", "d", "kwargs"))
    assert binding.text(1, object(), d=object(), z=object()) == binding.text(1)
    assert binding.text(1) != binding.text(2)
    assert binding.arguments((1, 2), {"z": 1}) == {"a": 1, "args": (), "c": "c"}


def test_everything_may_be_ignored() -> None:
    """Then all calls are one."""
    binding = Binding(plain, ignore=("a", "b"))
    assert binding.text(1) == binding.text([], object())
    lookup = binding.compile(lambda text: [text])
    assert lookup(1) is lookup([], object())


@pytest.mark.parametrize("ignore", [("z",), "a", ("a", "z")])
def test_ignore_names_parameters(ignore: Any) -> None:
    """A name that is no parameter, or a bare str, is refused when the function is decorated."""
    with pytest.raises(ConfigurationError, match="ignore="):
        Binding(plain, ignore=ignore)


# ------------------------------------------------------------------ the memo


def test_a_repeated_call_gives_the_record_made_before() -> None:
    """One record for a call, however often and however written."""
    lookup = Binding(plain).compile(lambda text: [text])
    for value in (1, "a", None, True, b"a", 1.5, -1):
        assert lookup(value) is lookup(value, 1) is lookup(b=1, a=value)
    starring = Binding(starred).compile(lambda text: [text])
    assert starring(1, "a", x=2) is starring(1, "a", x=2)


@pytest.mark.parametrize(
    "value",
    [
        "x" * 201,
        b"x" * 201,
        2**60,
        -(2**60),
        0.0,
        -0.0,
        float("nan"),
        [1],
        (1,),
        {},
        s.Point(1, 2),
        s.Word.RED,
    ],
)
def test_long_and_compound_values_are_not_kept_in_the_memo(value: Any) -> None:
    """The memo pins nothing big, and nothing whose equality is not its identity."""
    lookup = Binding(plain).compile(lambda text: [text])
    assert lookup(value) == lookup(value)
    assert lookup(value) is not lookup(value)
    starring = Binding(starred).compile(lambda text: [text])
    assert starring(1, value) is not starring(1, value)
    assert starring(x=value) is not starring(x=value)


def test_the_memo_is_bounded() -> None:
    """It never holds more records than its size, over all types of arguments."""
    lookup = Binding(plain).compile(lambda text: [text], memo_size=8)
    for number in range(100):
        for value in (number, str(number), float(number), str(number).encode()):
            lookup(value)
    memo: Any = next(v for k, v in lookup.__globals__.items() if k.endswith("memo"))
    assert 0 < sum(map(len, memo.values())) <= 8


@pytest.mark.parametrize(("distinct", "least"), [(1250, 0.4), (2000, 0.1)])
def test_more_arguments_than_the_memo_holds_are_found_in_part(distinct: int, least: float) -> None:
    """One after another, again and again: where the oldest went, or all, none would be found."""
    made: list[str] = []

    def make(text: str) -> list[str]:
        made.append(text)
        return [text]

    lookup = Binding(plain).compile(make, memo_size=1000)
    for _ in range(20):
        made.clear()
        for number in range(distinct):
            lookup(number)
    assert distinct - len(made) >= least * distinct
    kept: Any = next(v for k, v in lookup.__globals__.items() if k.endswith("memo"))
    assert sum(map(len, kept.values())) == 1000


def test_what_is_asked_for_often_comes_into_a_full_memo() -> None:
    """Whatever filled it."""
    lookup = Binding(plain).compile(lambda text: [text], memo_size=100)
    for number in range(1000):
        lookup(number)
    for _ in range(200):
        for number in range(5000, 5010):
            lookup(number)
    assert all(lookup(number) is lookup(number) for number in range(5000, 5010))


def test_the_memo_takes_no_numbers_of_the_program() -> None:
    """Of a generator that it has seeded."""
    random.seed(1)
    numbers = [random.random() for _ in range(3)]
    random.seed(1)
    lookup = Binding(plain).compile(lambda text: [text], memo_size=4)
    for number in range(100):
        lookup(number)
    assert [random.random() for _ in range(3)] == numbers


def test_what_is_kept_again_takes_its_own_place() -> None:
    """Entries that are replaced all the time drive out no others."""
    memo = CallMemo(8, None)
    for round_ in range(100):
        for number in range(5):
            memo.keep((int,), number, (number,), (round_, number))
        assert memo.known == {int: {number: (round_, number) for number in range(5)}}


def test_the_memo_of_a_call_is_bounded() -> None:
    """It holds no more than its size over all types, and forgets all at once when it is to."""
    memo = CallMemo(8, None)
    for number in range(100):
        for value in (number, str(number), float(number + 1)):
            memo.keep((type(value),), value, (value,), object())
    assert 4 < sum(map(len, memo.known.values())) <= 8
    memo.clear()
    assert not memo.known
    memo.keep((int,), 1, (1,), "item")
    assert memo.known == {int: {1: "item"}}


def test_the_memo_runs_no_code_of_the_arguments() -> None:
    """Neither hash nor equality of a foreign object is asked for, nor that of its class."""

    class Meta(type):
        __hash__ = None  # type: ignore[assignment]

        def __eq__(cls, other: object) -> bool:
            raise AssertionError

    class Odd(metaclass=Meta):
        def __hash__(self) -> int:
            raise AssertionError

        def __eq__(self, other: object) -> bool:
            raise AssertionError

    lookup = Binding(plain, ignore=("b",)).compile(lambda text: text)
    assert lookup(1, Odd())
    with pytest.raises((UnkeyableArgument, AssertionError, TypeError)):
        Binding(plain).compile(str)(Odd())

    class Hashless:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise AssertionError

        def __memover_key__(self) -> int:
            return 1

    lookup = Binding(plain).compile(lambda text: text)
    assert lookup(Hashless()) == lookup(Hashless())


def test_threads_share_a_lookup() -> None:
    """Calls from many threads, with a memo that keeps filling up, get the right texts."""
    binding = Binding(plain)
    lookup = binding.compile(lambda text: text, memo_size=16)
    expected = {n: binding.text(n) for n in range(64)}
    wrong: list[Any] = []

    def run(start: int) -> None:
        for step in range(3000):
            number = (start * 7 + step) % 64
            if lookup(number) != expected[number]:
                wrong.append(number)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_a_mutable_default_counts_as_it_is_at_the_call() -> None:
    """The lookup's defaults are the function's own objects."""

    def g(a: Any = []) -> None: ...  # noqa: B006

    binding = Binding(g)
    lookup = binding.compile(lambda text: text)
    before = lookup()
    g.__defaults__[0].append(1)  # type: ignore[index]
    assert lookup() != before
    assert lookup() == binding.text([1])


def test_the_lookup_has_the_functions_signature() -> None:
    """Names, kinds and defaults are the same objects; the qualified name too."""
    for function in FUNCTIONS:
        lookup = Binding(function).compile(str)
        ours, theirs = inspect.signature(lookup).parameters, inspect.signature(function).parameters
        assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()]
        assert all(ours[name].default is theirs[name].default for name in ours)
        assert lookup.__qualname__ == function.__qualname__


# ------------------------------------------------------------------ what can be decorated


class Adder:
    def __init__(self, start: int) -> None:
        self.start = start

    def __call__(self, number: int, times: int = 1) -> int:
        return self.start + number * times

    def method(self, number: int) -> int:
        return number

    @classmethod
    def make(cls, number: int) -> int:
        return number

    @staticmethod
    def static(number: int) -> int:
        return number


@dataclass
class Data:
    name: str

    def method(self, number: int) -> None: ...


def test_a_plain_self_is_refused_with_what_to_do() -> None:
    """The message suggests __memover_key__() and ignore=("self",)."""
    with pytest.raises(UnkeyableArgument) as caught:
        Binding(Adder.method).text(Adder(1), 2)
    for part in ("Adder.method()", "self", "__memover_key__()", 'ignore=("self",)'):
        assert part in str(caught.value)
    assert caught.value.parameter == "self"
    assert Binding(Adder.method, ignore=("self",)).text(Adder(1), 2) == Binding(Adder.method, ignore=("self",)).text(
        Adder(2), 2
    )


def test_self_enters_like_any_argument() -> None:
    """A dataclass by its fields, an object by its __memover_key__()."""
    assert Binding(Data.method).text(Data("a"), 1) == Binding(Data.method).text(Data("a"), 1)
    assert Binding(Data.method).text(Data("a"), 1) != Binding(Data.method).text(Data("b"), 1)
    binding = Binding(s.Keyed.method)
    assert binding.text(s.Keyed(1)) == binding.text(s.Keyed(1)) != binding.text(s.KeyedToo(1))


def test_cls_enters_by_qualified_name() -> None:
    """The function of a classmethod takes its class as an argument."""
    function = Adder.make.__func__  # type: ignore[attr-defined]
    assert Binding(function).text(Adder, 1) != Binding(function).text(Data, 1)


@pytest.mark.parametrize(
    ("function", "args", "same"),
    [
        (Adder(1), (1,), (1, 1)),
        (Adder(1).method, (1,), (1,)),
        (Adder.make, (1,), (1,)),
        (Adder.static, (1,), (1,)),
        (functools.partial(plain, 1), (), (1,)),
        (len, ("abc",), ("abc",)),
        (divmod, (1, 2), (1, 2)),
        (Adder, (1,), (1,)),
        (functools.lru_cache(plain), (1,), (1, 1)),
    ],
)
def test_any_callable_with_a_signature_can_be_bound(function: Any, args: Any, same: Any) -> None:
    """Instances, bound methods, partial objects, builtins with a signature, classes, decorated functions."""
    binding = Binding(function)
    assert binding.text(*args) == binding.text(*same)
    with pytest.raises(TypeError):
        binding.text(*(None,) * 9)


def test_a_callable_without_a_signature_needs_a_key_callable() -> None:
    """Its arguments have no names; a key= callable does without."""
    for function in (max, dict):
        with pytest.raises(ConfigurationError, match="pass a callable as key="):
            Binding(function)
    binding = Binding(max, key=lambda *args, **kwargs: args)
    assert binding.text(1, 2) == binding.text(1, 2) != binding.text(2, 1)


def test_what_is_not_callable_is_refused() -> None:
    """Decorating a value is a mistake found at once."""
    with pytest.raises(ConfigurationError, match="not callable"):
        Binding(7)  # type: ignore[arg-type]


def test_messages_use_the_name_given() -> None:
    """`name=` is what errors call the function."""
    with pytest.raises(UnkeyableArgument, match=r"^shop\.views\.profile\(\): argument a\[0\] of type object"):
        Binding(plain, name="shop.views.profile").text([object()])


def test_a_parameter_of_another_script_is_just_a_name() -> None:
    """Identifiers outside ASCII work as any others."""

    def g(größe: Any, *, 名: Any = 1) -> None: ...  # noqa: PLC2401

    assert Binding(g).text(1) == Binding(g).text(größe=1, 名=1)
    assert Binding(g).text(1) == digested(canonical(g, 1))


@given(st.lists(simple.filter(lambda value: not isinstance(value, bytes)), max_size=5))
def test_the_inline_digest_is_that_of_the_canonical_bytes(items: list[Any]) -> None:
    """The fast text form and the canonical encoder agree on every simple value."""
    heads = tuple(b"p" + encode(f"v{n}") for n in range(len(items)))
    data = b"c%d:" % len(items) + b"".join(head + encode(item) for head, item in zip(heads, items, strict=True))
    assert digest(heads, pytest.fail)(*items) == blake2b(data, digest_size=16).hexdigest()
