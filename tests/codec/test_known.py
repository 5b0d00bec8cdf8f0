"""Stored bytes make instances only of classes that the program itself names; all others are refused when stored."""

from __future__ import annotations

import enum
import functools
import subprocess
import sys
import types
import typing
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import InitVar, dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar, Union

import pytest

from memover.classes.registered import register_value
from memover.codec.mv1.codec import ValueCodec
from memover.codec.mv1.known import KnownClasses
from memover.errors import ConfigurationError, DamagedEntry, UnencodableValue
from tests.codec import things as t
from tests.codec.same import same

T = TypeVar("T", bound="Bound")


def elsewhere(*names: str) -> list[type]:
    """Make classes whose module is not that of the functions here, so that only annotations can name them."""
    module = sys.modules.setdefault("memover_elsewhere", types.ModuleType("memover_elsewhere"))
    made = []
    for name in names:
        kind = dataclass(type(name, (), {"__annotations__": {"a": Any}, "a": None, "__module__": module.__name__}))
        setattr(module, name, kind)
        made.append(kind)
    return made


A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q = elsewhere(*"ABCDEFGHIJKLMNOPQ")  # noqa: E741
Bound, Alone, Local = elsewhere("Bound", "Alone", "Local")


@dataclass
class Below:
    b: list[B]
    c: InitVar[Union[C, None]] = None  # noqa: UP007


class Typed(TypedDict, total=False):
    d: typing.Required[D] if sys.version_info >= (3, 11) else D  # type: ignore[valid-type]


class Named(NamedTuple):
    e: Optional[E] = None  # noqa: UP045


@dataclass
class Parent:
    f: F


@dataclass
class Child(Parent):
    pass


class Container(Generic[T]):
    pass


class Sub(Container[G]):
    pass


class Tone(enum.Enum):
    LOUD = 1


Alias = NewType("Alias", H)  # type: ignore[valid-newtype]


class Later:
    """Names a class that only a quoted annotation names."""

    i: dict[str, "tuple[I, ...]"]  # noqa: UP037


def everything() -> (
    dict[str, A] | Below | Typed | Named | Child | Sub | Alias | Later | Annotated[J, "x"] | type[K] | Awaitable[L]
    | Callable[[M], N] | Literal[Tone.LOUD] | T | Iterator[O]
):  # fmt: skip
    """Names each of the classes in another way."""


@pytest.mark.parametrize("kind", [A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, Bound, Tone])
def test_the_annotation_names_classes(kind: type) -> None:
    """A class is known however deep in the return annotation it stands."""
    assert KnownClasses(everything, ()).admits(kind)
    assert not KnownClasses(test_the_annotation_names_classes, ()).admits(A)


def test_a_class_nobody_names_is_refused() -> None:
    """A value of a class from elsewhere that the annotation does not name is refused, and the message says what to do."""
    with pytest.raises(UnencodableValue, match=r"name memover_elsewhere\.Alone in the return annotation") as caught:
        ValueCodec(everything).encode({"k": [Alone(1)]})
    assert caught.value.path == "$.k[0]"
    assert caught.value.kind == "memover_elsewhere.Alone"
    assert caught.value.function == "everything"


def test_types_are_named_by_argument() -> None:
    """What `types` lists is known, with all that its fields name."""
    assert same(ValueCodec(types=[Alone]).decode(ValueCodec(types=[Alone]).encode(Alone(1))), Alone(1))
    assert ValueCodec(types=[Below])._known.admits(B)


def test_forward_references_are_read_when_needed() -> None:
    """A class defined after the function is decorated is known when the first value is stored."""
    module = types.ModuleType("memover_later")
    sys.modules["memover_later"] = module
    exec("from __future__ import annotations\ndef function() -> Defined: ...", vars(module))
    codec = ValueCodec(module.function)
    with pytest.raises(UnencodableValue):
        codec.encode(Alone(1))
    vars(module)["Defined"] = Alone
    assert codec.decode(codec.encode(Alone(1))) == Alone(1)
    del sys.modules["memover_later"]


def test_local_classes_are_known_by_annotation() -> None:
    """A class made inside a function is known if the annotation names it."""

    @dataclass
    class Inner:
        more: list[Inner]

    def function() -> Inner:
        return Inner([])

    codec = ValueCodec(function)
    assert codec.decode(codec.encode(Inner([Inner([])]))) == Inner([Inner([])])


def test_coroutine_functions_name_their_result() -> None:
    """For `async def` the annotation is what is awaited."""

    async def function() -> Alone:
        return Alone(1)

    assert ValueCodec(function).encode(Alone(1))


def test_wrapped_functions_count_as_themselves() -> None:
    """Partials, methods, class and static methods, wrappers and callables name what the function inside names."""

    def function(self: Any = None) -> Alone: ...

    class Holder:
        static = staticmethod(function)
        bound = function

        def __call__(self) -> Alone: ...

    wrapper = functools.wraps(function)(lambda: None)
    for each in (
        functools.partial(function), staticmethod(function), classmethod(function), Holder().bound,
        Holder.static, Holder(), wrapper,
    ):  # fmt: skip
        assert KnownClasses(each, ()).admits(Alone)


def test_a_class_must_be_what_its_name_finds() -> None:
    """A class that another of the same name has replaced is refused: its bytes would come back as the other."""
    old = t.Friend
    try:
        t.Friend = dataclass(type("Friend", (), {"__module__": t.__name__, "__annotations__": {"name": str}}))
        with pytest.raises(UnencodableValue):
            ValueCodec(t.anything).encode(old("x"))
    finally:
        t.Friend = old


def test_two_classes_of_one_name_are_refused() -> None:
    """Of two classes that stored bytes could not tell apart neither is stored."""
    one, other = (dataclass(type("Twin", (), {"__module__": "memover_gone"})) for _ in range(2))
    codec = ValueCodec(types=[one, other])
    for kind in (one, other):
        with pytest.raises(UnencodableValue):
            codec.encode(kind())


def test_no_module_is_asked_for_attributes() -> None:
    """A module's `__getattr__`, which may import, is not called by a lookup."""
    asked: list[str] = []
    module = types.ModuleType("memover_lazy")
    module.__getattr__ = asked.append  # type: ignore[method-assign]
    sys.modules["memover_lazy"] = module
    exec("def function(): ...", vars(module))
    known = KnownClasses(module.function, ())
    assert known.find("memover_lazy:Anything") is None
    assert known.find("memover_lazy:Any.thing") is None
    assert asked == []
    del sys.modules["memover_lazy"]


def test_registered_types_come_back() -> None:
    """A taught type goes through its functions, by any function's codec, also below others and as a key."""

    class Money:
        def __init__(self, cents: int) -> None:
            self.cents = cents

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Money) and other.cents == self.cents

        def __hash__(self) -> int:
            return self.cents

    codec = ValueCodec(t.anything)
    with pytest.raises(UnencodableValue, match="register_value"):
        codec.encode(Money(5))
    assert register_value(Money, lambda value: (value.cents, "EUR"), lambda data: Money(data[0])) is Money
    value = {Money(1): [t.Friend("x", Money(2)), (Money(3),)]}
    assert codec.decode(codec.encode(value)) == value
    assert ValueCodec().decode(ValueCodec().encode(Money(7))) == Money(7)
    register_value(Money, lambda value: value.cents, lambda data: "other")  # type: ignore[arg-type,return-value]
    with pytest.raises(DamagedEntry):
        codec.decode(codec.encode(Money(5)))
    register_value(Money, lambda value: 1 // 0, Money)
    with pytest.raises(UnencodableValue, match="ZeroDivisionError") as caught:
        codec.encode([Money(5)])
    assert caught.value.path == "$[0]"


def test_registering_a_class_names_it() -> None:
    """Without functions, register_value lets every function store a class that memover understands."""

    @register_value
    @dataclass
    class Everywhere:
        a: int

    assert ValueCodec().decode(ValueCodec().encode([Everywhere(1)])) == [Everywhere(1)]


@pytest.mark.parametrize(
    "arguments", [(int, int, int), (5, int, int), (Alone, int, None), (dict, dict, dict), (Alone, 1, 2)]
)
def test_wrong_registrations_are_refused(arguments: Any) -> None:
    """Builtins, instances, and one function without the other are mistakes."""
    with pytest.raises(ConfigurationError):
        register_value(*arguments)


SCRIPT = """
import sys
from dataclasses import dataclass
from memover.codec.mv1.codec import ValueCodec

@dataclass
class Result:
    a: int

def function(): ...

codec = ValueCodec(function)
if len(sys.argv) > 1:
    print(codec.decode(bytes.fromhex(sys.argv[1])))
else:
    print(codec.encode(Result(5)).hex())
"""


def test_classes_of_main_work(tmp_path: Any) -> None:
    """A script's own classes are read by another run of it; `python -m` and import name a module alike."""
    (tmp_path / "memover_job.py").write_text(SCRIPT)

    def run(*arguments: str) -> str:
        env = {"PYTHONPATH": f"{tmp_path}:{':'.join(path for path in sys.path if path)}"}
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, check=True, cwd=tmp_path, env=env
        )
        return done.stdout.strip()

    script = str(tmp_path / "memover_job.py")
    assert run(script, run(script)) == "Result(a=5)"
    as_module = run("-m", "memover_job")
    reader = f"import sys; sys.argv = ['x', {as_module!r}]; import memover_job"
    assert run("-c", reader) == "Result(a=5)"
