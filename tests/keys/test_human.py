"""Human keys: readable, and as injective as the others."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memover.errors import ConfigurationError, UnkeyableArgument
from memover.keys.canonical import encode
from tests.keys import samples as s
from tests.keys.samples import Binding


def profile(user_id: Any, region: Any = "eu", *terms: Any, page: Any = 1, **options: Any) -> None: ...


def text(template: str, *args: Any, **kwargs: Any) -> str:
    return Binding(profile, key=template).text(*args, **kwargs)


@pytest.mark.parametrize(
    ("template", "args", "expected"),
    [
        ("{user_id}:{region}", (7, "eu"), "7:eu"),
        ("{user_id}:{region}", (7,), "7:eu"),
        ("{user_id}:{region}", ("a:b", "c"), "a%3Ab:c"),
        ("{user_id}:{region}", ("a", "b:c"), "a:b%3Ac"),
        ("{user_id}-{region}", ("a-b", -1), "a%2Db-%2D1"),
        ("user/{user_id}", ("a/b:c@d",), "user/a/b:c@d"),
        ("{user_id}", (True,), "True"),
        ("{user_id}", ("True",), "~sTrue"),
        ("{user_id}", (None,), "None"),
        ("{user_id}", ("None",), "~sNone"),
        ("{user_id}", ("7",), "~s7"),
        ("{user_id}", ("-7",), "~s-7"),
        ("{user_id}", ("",), "~s"),
        ("{user_id}", (1.5,), "~f1.5"),
        ("{user_id}", (b"a\n",), "~ba%0A"),
        ("{user_id}", ("a b\t{x}~%é",), "a%20b%09%7Bx%7D%7E%25%C3%A9"),
        ("{user_id}", (uuid.UUID(int=1),), "~u00000000-0000-0000-0000-000000000001"),
        ("{user_id}", (dt.date(2024, 1, 2),), "~d2024-01-02"),
    ],
)
def test_simple_values_are_readable(template: str, args: tuple[Any, ...], expected: str) -> None:
    """Numbers and texts stand as they are; what would be ambiguous is marked or escaped."""
    assert text(template, *args) == expected


def test_other_values_are_digests_of_their_canonical_bytes() -> None:
    """Lists, dataclasses and huge ints are marked digests."""
    for value in ([1], s.User("a"), 2**64, dt.datetime(2024, 1, 2), s.Color.RED):
        assert re.fullmatch("~x[0-9a-f]{32}", text("{user_id}", value))


def test_long_texts_are_marked_digests_of_bounded_length() -> None:
    """A text over 200 characters becomes one digest; texts that share a beginning stay apart."""
    assert text("{user_id}", "x" * 200) == "x" * 200
    one, two = text("{user_id}:{region}", "x" * 300, 1), text("{user_id}:{region}", "x" * 300, 2)
    assert one != two
    assert re.fullmatch("~h[0-9a-f]{32}", one)
    assert text("{user_id}", one) != one


values = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats()
    | st.text(":-%~{}a1sx", max_size=4)
    | st.text(st.characters())
    | st.sampled_from(["True", "None", "1", "-1", "~s1", "~x", ""])
    | st.binary(max_size=4)
    | st.lists(st.integers(0, 1), max_size=2)
)


@given(
    values,
    values,
    values,
    values,
    st.sampled_from(["{user_id}:{region}", "{user_id}-x-{region}", "a{user_id}b:-c{region}"]),
)
def test_human_keys_are_injective(a: Any, b: Any, c: Any, d: Any, template: str) -> None:
    """Two calls share a human key iff the named values are the same, types included."""
    made = Binding(profile, key=template)
    same = encode(a) == encode(c) and encode(b) == encode(d)
    assert (made.text(a, b) == made.text(c, d)) == same
    assert re.fullmatch(r"[!-z|~]+", made.text(a, b))


def test_attributes_and_items_can_be_named() -> None:
    """`{user.name}` and `{options[size]}` reach into the arguments, as str.format does."""
    user = s.User("ann", [s.User("bob")])
    assert text("{user_id.name}:{user_id.friends[0].name}", user) == "ann:bob"
    assert text("{options[size]}", 1, size=9) == "9"
    assert text("{terms[1]}", 1, "eu", "x", "y") == "y"


@pytest.mark.parametrize(("template", "value"), [("{user_id.nope}", 1), ("{user_id[a]}", {}), ("{user_id[3]}", [])])
def test_a_missing_attribute_names_the_place(template: str, value: Any) -> None:
    """What the template asks for and the argument lacks is an UnkeyableArgument."""
    with pytest.raises(UnkeyableArgument, match="which the key template asks for"):
        text(template, value)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("", "names no parameter"),
        ("user_id", "names no parameter"),
        ("{nobody}", "not a parameter; the parameters are: user_id, region"),
        ("{}", "not a parameter"),
        ("{0}", "not a parameter"),
        ("{user_id}{region}", "without a separator"),
        ("{user_id}x{region}", "without a separator"),
        ("{user_id!r}", "conversion"),
        ("{user_id:>5}", "conversion"),
        ("{user_id", "not a template"),
        ("a b{user_id}", "holds ' '"),
        ("{{{user_id}", r"holds '\{'"),
        ("~{user_id}", "holds '~'"),
        ("%{user_id}", "holds '%'"),
        ("é{user_id}", "holds 'é'"),
        ("{user_id..name}", "cannot be read"),
    ],
)
def test_bad_templates_are_refused_when_the_function_is_decorated(template: str, why: str) -> None:
    """Each mistake is a ConfigurationError that says what it is."""
    with pytest.raises(ConfigurationError, match=why):
        Binding(profile, key=template)


def test_a_template_cannot_name_what_is_ignored() -> None:
    """`ignore` and the template cannot disagree."""
    with pytest.raises(ConfigurationError, match="not a parameter"):
        Binding(profile, key="{region}", ignore=("region",))


# ------------------------------------------------------------------ key=callable


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("user:7", "user:7"),
        (7, "7"),
        ("7", "~s7"),
        (b"a", "~ba"),
        ("a b", "a%20b"),
        ("", "~s"),
        (True, "True"),
    ],
)
def test_what_a_key_callable_returns_is_escaped(value: Any, expected: str) -> None:
    """A str stays readable, and other types do not pass for it."""
    assert Binding(profile, key=lambda *a, **k: value).text(1) == expected


def test_a_key_callable_may_return_anything_keyable() -> None:
    """A tuple, say, enters by its canonical bytes."""
    assert Binding(profile, key=lambda user_id: (user_id, 1)).text(1).startswith("~x")


@pytest.mark.parametrize("value", [None, object(), [object()]])
def test_a_key_callable_must_return_a_key(value: Any) -> None:
    """None is taken for a forgotten return, other objects are refused by type."""
    with pytest.raises(UnkeyableArgument, match=r"what key= returned.* of type"):
        Binding(profile, key=lambda *a, **k: value).text(1)


def test_a_key_callable_gets_the_bound_arguments() -> None:
    """However the call is written the callable sees the same: defaults applied, positions first."""
    seen = []

    def key(*args: Any, **kwargs: Any) -> str:
        seen.append((args, kwargs))
        return "x"

    made = Binding(profile, key=key)
    made.text(1)
    made.text(user_id=1, page=1)
    made.text(1, "us", 3, page=2, size=4)
    assert seen == [
        ((1, "eu"), {"page": 1}),
        ((1, "eu"), {"page": 1}),
        ((1, "us", 3), {"page": 2, "size": 4}),
    ]


def test_a_key_callable_may_take_some_parameters_by_name() -> None:
    """`key=lambda region: ...` gets the region alone."""
    made = Binding(profile, key=lambda region: region)
    assert made.text(1) == made.text(2) == "eu"


@pytest.mark.parametrize("key", [lambda nobody: 1, lambda: 1, lambda a, b: 1, 7, ["user_id"]])
def test_a_key_callable_that_cannot_take_the_arguments_is_refused(key: Any) -> None:
    """It is found when the function is decorated, not at the first call."""
    with pytest.raises(ConfigurationError, match="key"):
        Binding(profile, key=key)


def test_a_key_callable_is_asked_at_every_call() -> None:
    """It may look at more than its arguments, so its answer is never remembered."""
    language = "it"
    lookup = Binding(profile, key=lambda user_id: f"{user_id}/{language}").compile(str)
    first = lookup(1)
    language = "de"
    assert (first, lookup(1)) == ("1/it", "1/de")


def test_key_callable_and_ignore_exclude_each_other() -> None:
    """The callable decides alone."""
    with pytest.raises(ConfigurationError, match="ignore= has no effect"):
        Binding(profile, key=lambda user_id: 1, ignore=("region",))


def test_what_a_key_callable_raises_comes_through() -> None:
    """A mistake in the callable is shown as it is."""
    with pytest.raises(ZeroDivisionError):
        Binding(profile, key=lambda user_id: 1 / user_id).text(0)


@dataclass
class Shop:
    name: str

    def price(self, article: int, currency: str = "EUR") -> None: ...


def test_templates_reach_through_self() -> None:
    """A method's key can name an attribute of its object."""
    assert Binding(Shop.price, key="{self.name}:{article}").text(Shop("x"), 3) == "x:3"
