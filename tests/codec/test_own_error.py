"""Each caller of a load that failed gets an exception of its own."""

from __future__ import annotations

import json
import pickle
import ssl
import subprocess
import sys
import threading
import traceback
import urllib.error
from dataclasses import dataclass
from typing import Any

import pytest

from memover import errors
from memover.codec.sharing import ERRORS_LIMIT, own_error


class Plain(Exception):
    """Nothing of its own."""


class Told(ValueError):
    """Takes other arguments than it hands on, so that pickle and copy fail on it."""

    def __init__(self, where: str, code: int) -> None:
        super().__init__(f"{where} failed")
        self.where = where
        self.code = code
        self.made = object()


class Slotted(Exception):
    """Keeps a fact in a slot."""

    __slots__ = ("fact",)

    def __init__(self, fact: int) -> None:
        super().__init__("slotted")
        self.fact = fact


@dataclass
class Declared(Exception):
    """A dataclass."""

    code: int


@dataclass(frozen=True)
class Frozen(Exception):
    """Nothing can be set by its own rules."""

    code: int


class Speechless(Exception):
    """Whatever its class is asked fails."""

    def __str__(self) -> str:
        return self.missing  # type: ignore[no-any-return, attr-defined]

    @property
    def args(self) -> Any:  # type: ignore[override]
        raise ZeroDivisionError

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    def __setattr__(self, name: str, value: object) -> None:
        raise ZeroDivisionError

    __hash__ = None  # type: ignore[assignment]


class Counting(Exception):
    """Its constructor must not run again."""

    made = 0

    def __init__(self) -> None:
        super().__init__("counted")
        Counting.made += 1


class Odd(Exception):
    """Decides itself how it is made."""

    def __new__(cls, where: str, *, code: int) -> Odd:
        made = super().__new__(cls, where)
        made.code = code
        return made

    def __init__(self, where: str, *, code: int) -> None:
        super().__init__(f"{where}: {self.code}")

    code: int


class Lying(Exception):
    """Says something else to pickle, and of what is behind it."""

    def __reduce__(self) -> Any:
        return ValueError, ("a lie",)

    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        return ZeroDivisionError("a lie")

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        return {"a": "lie"}


class Single(Exception):
    """Of which there is one."""

    only: Any = None

    def __new__(cls) -> Single:
        if cls.only is None:
            cls.only = super().__new__(cls)
        return cls.only  # type: ignore[no-any-return]


class Speaking(Exception):
    """Says what it is by an attribute."""

    def __str__(self) -> str:
        return f"speaking of {self.what}"  # type: ignore[attr-defined]


def raised(error: BaseException) -> BaseException:
    """The error with a traceback, a cause and a note."""
    try:
        try:
            raise KeyError("cause")
        except KeyError as cause:
            raise error from cause
    except BaseException as caught:
        if sys.version_info >= (3, 11) and type(caught).__setattr__ is BaseException.__setattr__:
            caught.add_note("noted")
        return caught


def speaking() -> Speaking:
    error = Speaking()
    error.what = "it"  # type: ignore[attr-defined]
    return error


def from_library(call: Any) -> BaseException:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("it raises")


def attribute_error() -> BaseException:
    try:
        return sys.nothing  # type: ignore[attr-defined, no-any-return]
    except AttributeError as error:
        return error


def stop() -> BaseException:
    return StopIteration(5)


COPIED = {
    "builtin": ValueError("a", 1),
    "no arguments": RuntimeError(),
    "plain": Plain("a"),
    "told": Told("there", 5),
    "slotted": Slotted(3),
    "declared": Declared(7),
    "counting": Counting(),
    "odd": Odd("there", code=3),
    "single": Single(),
    "tls": ssl.SSLError(1, "wrong version"),
    "speaking": speaking(),
    "os": FileNotFoundError(2, "No such file", "name", None, "other"),
    "os without number": OSError("text"),
    "unicode": from_library(b"\xff".decode),
    "json": from_library(lambda: json.loads("{")),
    "url": urllib.error.URLError("reason"),
    "http": urllib.error.HTTPError("http://x", 404, "gone", {}, None),  # type: ignore[arg-type]
    "import": from_library(lambda: __import__("nowhere")),
    "attribute": attribute_error(),
    "syntax": from_library(lambda: compile("a b", "file", "exec")),
    "process": subprocess.CalledProcessError(1, ["x"], b"out"),
    "stop": stop(),
    "exit": SystemExit(3),
    "store": errors.StoreTimeout("slow", store="redis://x"),
    "invalidation": errors.InvalidationFailed("not acknowledged", what=("a",), store="redis://x"),
    "unencodable": errors.UnencodableValue("no", function="f", path="$", kind="k", value=[1]),
}
COPIED["two bases"] = type("Both", (KeyError, AttributeError), {"__module__": __name__})("both")
COPIED["frozen"] = Frozen(3)
COPIED["configuration"] = errors.ConfigurationError("wrong")
if sys.version_info >= (3, 11):
    COPIED["group"] = ExceptionGroup(  # noqa: F821
        "several", [ValueError(1), Plain("b")]
    )  # type: ignore[assignment]


def facts(error: BaseException) -> dict[str, Any]:
    """All that can be seen of an error."""
    names = [
        name for name in dir(error) if not name.startswith("__") or name in ("__cause__", "__context__", "__notes__")
    ]
    # `characters_written` is an attribute that most OSErrors do not have.
    found = {
        name: getattr(error, name) for name in names if hasattr(error, name) and not callable(getattr(error, name))
    }
    args = error.args
    if "exceptions" in found:
        args, found["exceptions"] = args[:1], [facts(each) for each in found["exceptions"]]
    for name in ("__cause__", "__context__"):
        found[name] = None if found[name] is None else facts(found[name])
    return {**found, "type": type(error), "str": str(error), "args": args, "suppress": error.__suppress_context__}


def test_no_code_of_its_class_runs() -> None:
    """An error whose own methods fail is copied like any other, and reaches its callers."""
    made = own_error(raised(Speechless()))
    assert type(made) is Speechless


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups of exceptions came with Python 3.11")
def test_the_exceptions_of_a_group_are_copied_with_it() -> None:
    """Whoever raises one of them again, or adds a note to it, does that to his own."""
    inner: Any = raised(ValueError([1]))
    error: Any = raised(COPIED["group"].__class__("outer", [COPIED["group"].__class__("inner", [inner]), KeyError(1)]))
    made: Any = own_error(error)
    assert [type(each) for each in made.exceptions] == [type(each) for each in error.exceptions]
    assert made.exceptions[1] is not error.exceptions[1]
    own = made.exceptions[0].exceptions[0]
    assert own is not inner
    assert own.args[0] is inner.args[0]
    own.add_note("mine")
    assert inner.__notes__ == ["noted"]


@pytest.mark.parametrize("name", COPIED)
def test_a_copy_tells_what_the_error_tells(name: str) -> None:
    """Class, arguments, attributes, cause, notes and traceback are the same, and the object is another."""
    error = raised(COPIED[name])
    made = own_error(error)
    assert made is not error
    assert type(made) is type(error)
    if name == "told":
        assert made.made is error.made  # type: ignore[attr-defined]
    assert facts(made) == facts(error)
    assert traceback.format_exception(made) == traceback.format_exception(error)


@pytest.mark.parametrize("name", COPIED)
def test_what_one_caller_adds_no_other_sees(name: str) -> None:
    """Notes, attributes and frames."""
    error = raised(COPIED[name])
    before = traceback.format_exception(error), dict(error.__dict__)
    made = own_error(error)
    try:
        raise made
    except BaseException as caught:
        caught.__dict__.update(request=5, __notes__=["while serving another request"])
    assert (traceback.format_exception(error), dict(error.__dict__)) == before
    assert len(traceback.extract_tb(made.__traceback__)) == len(traceback.extract_tb(error.__traceback__)) + 1


def test_no_constructor_runs_again() -> None:
    """It may count, log or fail."""
    error = Counting()
    before = Counting.made
    assert own_error(error) is not error
    assert Counting.made == before


def test_a_class_that_lies_is_copied_as_it_is() -> None:
    """What it says of itself is not asked."""
    error = Lying("truth")
    vars(BaseException)["__dict__"].__get__(error)["kept"] = 5
    made = own_error(error)
    assert made is not error
    assert type(made) is Lying
    assert BaseException.args.__get__(made) == ("truth",)  # type: ignore[attr-defined]
    assert vars(BaseException)["__dict__"].__get__(made) == {"kept": 5}


def test_what_cannot_be_copied_faithfully_is_handed_on() -> None:
    """A class in C that is no builtin may keep what cannot be seen: the object itself says all that it did."""
    pydantic = pytest.importorskip("pydantic")
    with pytest.raises(pydantic.ValidationError) as caught:
        pydantic.TypeAdapter(int).validate_python("x")
    assert own_error(caught.value) is caught.value
    assert caught.value.errors()[0]["type"] == "int_parsing"


def test_causes_and_contexts_are_the_callers_own() -> None:
    """Whoever raises one of them again adds a traceback to it, and in it the locals of that request."""
    error = ValueError("outer")
    error.__cause__ = KeyError("cause")
    error.__cause__.__context__ = OSError("context")
    error.__cause__.__context__.__context__ = error  # in a circle
    made = own_error(error)
    cause: Any = made.__cause__
    assert (type(cause), type(cause.__context__), cause.__context__.__context__) == (KeyError, OSError, made)
    assert cause is not error.__cause__
    assert made.__suppress_context__
    assert not cause.__suppress_context__
    with pytest.raises(KeyError):
        raise cause
    assert error.__cause__.__traceback__ is None


@pytest.mark.parametrize("way", ["cause", "context", "group", "all in one group"])
def test_however_long_a_chain_is_an_error_is_copied(way: str) -> None:
    """The nearest ones are copied, those beyond are the same objects."""
    if "group" in way and sys.version_info < (3, 11):
        pytest.skip("groups of exceptions came with Python 3.11")
    error: Any = ValueError("innermost")
    group: Any = type(COPIED.get("group"))
    innermost = error
    for number in range(5000):
        if "group" in way:
            error = group(str(number), [error] if way == "group" else [ValueError(number), innermost])
        else:
            outer = ValueError(number)
            setattr(outer, f"__{way}__", error)
            error = outer
    if way == "all in one group":
        error = group("all", [ValueError(number) for number in range(5000)])
    made: Any = own_error(error)
    steps = 0
    while made is not error:
        steps += 1
        if "group" in way:
            assert len(made.exceptions) == len(error.exceptions)
            made, error = made.exceptions[0], error.exceptions[0]
        else:
            made, error = getattr(made, f"__{way}__"), getattr(error, f"__{way}__")
        if not hasattr(error, "exceptions") and "group" in way:
            break
    assert steps == (1 if way == "all in one group" else ERRORS_LIMIT)


def test_twenty_threads_raise_their_own() -> None:
    """As many errors as threads, none with another's frames."""
    error = raised(Told("there", 5))
    frames, objects = [], []

    def request(number: int) -> None:
        try:
            raise own_error(error)
        except Told as mine:
            frames.append(len(traceback.extract_tb(mine.__traceback__)))
            objects.append(mine)

    threads = [threading.Thread(target=request, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each) for each in objects}) == 20
    assert len(set(frames)) == 1


def test_a_copy_is_picklable_where_the_error_is() -> None:
    """A job queue sends it on."""
    assert pickle.loads(pickle.dumps(own_error(Plain("a")))).args == ("a",)
