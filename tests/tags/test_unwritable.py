"""A tag that has no text is refused with what to do; an exception of the value's own code comes through as it is."""

from __future__ import annotations

import re
import signal
from functools import partial
from typing import Any

import pytest

from memover import Cache, ConfigurationError
from memover.errors import UnkeyableArgument
from memover.keys.tags import _Texts
from tests.interrupts.striking import places, strike

LONG = 10**5000
"""More digits than Python writes (`sys.set_int_max_str_digits`)."""


class Raising(int):
    def __memover_key__(self) -> int:
        return 1

    def __format__(self, spec: str) -> str:
        raise ValueError("of its own")


@pytest.mark.parametrize(
    ("tags", "argument"),
    [("t:{x}", LONG), ("t:{x}", (1, -LONG)), ("t:{x!r}", {"a": LONG}), ("t:{x!s:>9}", LONG), ("t:{x:d}", "text")],
    ids=["int", "tuple", "repr", "str", "format"],
)
def test_a_template_that_cannot_be_filled_is_refused(tags: Any, argument: Any) -> None:
    """As an argument that cannot be keyed, by every verb that needs the tag."""
    f: Any = Cache().versioned(namespace="f", tags=tags)(lambda x: 1)
    for verb in (f, f.peek, f.refresh, f.invalidate):
        with pytest.raises(UnkeyableArgument, match=r"cannot be written: .*Correct the template"):
            verb(argument)


class Lazy:
    """As a model that looks for what it is asked for."""

    def __str__(self) -> str:
        return "lazy"

    def __memover_key__(self) -> int:
        return 1

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no row for {name}")


@pytest.mark.parametrize(
    ("tags", "argument", "why"),
    [
        ("t:{x.nope}", 1, "AttributeError: 'int' object has no attribute 'nope'"),
        ("t:{x.real.nope}", 1, "AttributeError: 'int' object has no attribute 'nope'"),
        ("t:{x.owner}", Lazy(), "AttributeError: no row for owner"),
        ("t:{x[a]}", {"b": 1}, "KeyError: 'a'"),
        ("t:{x[3]}", (1,), "IndexError: tuple index out of range"),
        ("t:{x[a]}", 1, "TypeError: 'int' object is not subscriptable"),
        ("t:{y:>{x[a]}}", {"b": 1}, "KeyError: 'a'"),
    ],
    ids=["attribute", "of-attribute", "own", "item", "index", "no-items", "in-format"],
)
def test_a_template_that_asks_for_what_is_not_there_is_refused(tags: str, argument: Any, why: str) -> None:
    """With the function, the template, the place, and what to do, as a key template is; by every verb that needs the tag."""
    f: Any = Cache().versioned(namespace="f", tags=tags)(lambda x, y=1: 1)
    for verb in (f, f.peek, f.refresh, f.invalidate):
        with pytest.raises(UnkeyableArgument) as caught:
            verb(argument)
        error = caught.value
        place = tags.removeprefix("t:{y:>").removeprefix("t:").strip("{}")
        for part in ("<lambda>", repr(tags), repr(place), why, "Correct the template"):
            assert part in str(error)
        assert (error.function.rpartition(".")[2], error.parameter, error.path) == ("<lambda>", "x", place)
        assert error.kind.rpartition(".")[2] == type(argument).__qualname__
        assert isinstance(error.__cause__, (AttributeError, LookupError, TypeError))


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ("t:{x.}", "cannot be read: Empty attribute"),
        ("t:{x[a]b}", "cannot be read: Only"),
        ("t:{x!q}", "cannot be read: Unknown conversion"),
        ("t:{x:{y:{x}}}", "cannot be read: its formats are nested too deep"),
        ("t:{x:{nobody}}", "names ['nobody']; the parameters are: x, y"),
        ("t:{0}", "names ['0']"),
        ("t:{}", "names ['']"),
    ],
)
def test_a_template_that_no_arguments_fill_is_refused_at_decoration(tags: str, why: str) -> None:
    """Every call would have failed."""
    with pytest.raises(ConfigurationError, match=re.escape(why)):
        Cache().versioned(namespace="f", tags=tags)(lambda x, y: 1)


def test_what_a_format_names_makes_tags_of_its_own() -> None:
    """Calls of one key that differ in the format alone have each its own tags."""
    f: Any = Cache().versioned(namespace="f", tags="t:{x:.{y}f}", key="{x}")(lambda x, y: 1)
    f.set(1, 0.5, 1)
    assert f.peek(0.5, 1).tags == ("t:0.5",)
    f.set(1, 0.5, 2)
    assert f.peek(0.5, 2).tags == ("t:0.50",)


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize(
    "answer", [LONG, [LONG], 5, True, [None], [b"a"], [""], [["a"]]], ids=lambda each: type(each).__name__
)
def test_a_callable_that_answers_with_no_text_is_refused(answer: Any, late: bool) -> None:
    """By ConfigurationError, whatever it answered with."""
    tags: Any = (lambda call, result: answer) if late else (lambda call: answer)
    f: Any = Cache().versioned(namespace="f", tags=tags)(lambda: 1)
    with pytest.raises(ConfigurationError, match=r"must be a str, not|answered with one|must not be empty"):
        f()


@pytest.mark.parametrize("answer", [None, [], (), "", 0, False])
def test_a_callable_may_have_no_tag(answer: Any) -> None:
    """An empty answer of whatever kind."""
    f: Any = Cache().versioned(namespace="f", tags=lambda call: answer)(lambda: 1)
    if answer == "" and isinstance(answer, str):
        with pytest.raises(ConfigurationError, match="must not be empty"):
            f()
    else:
        assert f() == 1
        assert f.peek().tags == ()


def test_what_a_value_raises_itself_comes_through() -> None:
    """An error of the value's class is not said to be the template's."""
    f: Any = Cache().versioned(namespace="f", tags="t:{x}")(lambda x: 1)
    with pytest.raises(ValueError, match="of its own") as caught:
        f(Raising(1))
    assert type(caught.value) is ValueError


@pytest.mark.parametrize("kind", [ValueError, AttributeError, KeyError, TypeError])
@pytest.mark.parametrize("template", ["t:{x}", "t:{x!r}", "t:{x.real}"])
def test_what_a_signal_handler_raises_meanwhile_comes_through(template: str, kind: type[Exception]) -> None:
    """Even of the type that stands for a value which cannot be written."""
    fill = partial(_Texts("f", template).vformat, template, (), {"x": 1})

    def ring(*_: object) -> None:
        raise kind("of a handler")

    before = signal.signal(signal.SIGUSR2, ring)
    try:
        for at in range(len(places(fill))):
            with pytest.raises(kind, match="of a handler") as caught:
                strike(fill, at, ring)
            assert type(caught.value) is kind, at
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_template_that_names_what_is_ignored_is_refused_at_decoration() -> None:
    """Every call would have failed."""
    with pytest.raises(ConfigurationError, match="which ignore= leaves out"):
        Cache().versioned(namespace="f", tags="t:{x.id}", ignore=("x",))(lambda x, y: 1)
