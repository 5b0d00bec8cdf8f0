"""A tag that has no text is refused with what to do; an exception of the value's own code comes through as it is."""

from __future__ import annotations

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


@pytest.mark.parametrize("template", ["t:{x}", "t:{x!r}"])
def test_what_a_signal_handler_raises_meanwhile_comes_through(template: str) -> None:
    """Even of the type that stands for a value which cannot be written."""
    fill = partial(_Texts("f", template).vformat, template, (), {"x": 1})

    def ring() -> None:
        raise ValueError("of a handler")

    for at in range(len(places(fill))):
        with pytest.raises(ValueError, match="of a handler") as caught:
            strike(fill, at, ring)
        assert type(caught.value) is ValueError, at


def test_a_template_that_names_what_is_ignored_is_refused_at_decoration() -> None:
    """Every call would have failed."""
    with pytest.raises(ConfigurationError, match="which ignore= leaves out"):
        Cache().versioned(namespace="f", tags="t:{x.id}", ignore=("x",))(lambda x, y: 1)
