"""Names, key parts and outlines of code: the same in every process, and for good."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import sys
import types
import uuid
from hashlib import blake2b
from typing import Any

import pytest

from memover.classes import naming
from memover.keys.code import outline, same_code
from memover.keys.identity import Identity
from tests.keys.samples import Binding


class Region(enum.Enum):
    EU = 1


Region.__module__ = "golden"


def closure(*captured: Any) -> Any:
    return lambda item: (captured, item)


def test_the_key_part_never_changes() -> None:
    """Golden digests: of every kind of captured value at once, of a bound object, and of a function that captured nothing."""
    values = (
        None, True, 7, 7.5, 2j, decimal.Decimal("1.0"), "eu", b"eu", dt.date(2026, 1, 2), dt.time(1, 2),
        dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc), dt.timedelta(1), uuid.UUID(int=5), Region.EU, (1, ("a",)), frozenset({1}),
    )  # fmt: skip

    def text(function: Any) -> str:
        binding = Binding(function)
        binding.part = Identity(function, "f", counting=binding.counting).part
        assert binding.text(7) == binding.text(item=7)
        return binding.text(7)

    def plain(item: int) -> int:
        return item

    assert text(plain) == Binding(plain).text(7)
    assert text(plain) == "b646d19317e93f6c8694f8c0059cabc6"
    assert text(closure(*values)) == "9b18047149b08b866f8bb896c3587896"
    assert text(closure("eu")) != text(closure("us"))


def test_a_part_goes_before_the_canonical_bytes() -> None:
    """With its length, so that no part and arguments run together."""
    binding = Binding(lambda item: item)
    assert binding.text(7) == blake2b(b"c1:ps4:itemi0x7;", digest_size=16).hexdigest()
    binding = Binding(lambda item: item)
    binding.part = b"abc"
    assert binding.text(7) == blake2b(b"g3:abc" + b"c1:ps4:itemi0x7;", digest_size=16).hexdigest()


def code(text: str) -> types.CodeType:
    made: dict[str, Any] = {}
    exec(text, made)
    function: types.CodeType = made["f"].__code__
    return function


BODY = "def f(x, y=1):\n    try:\n        z = [x + each for each in range(y)]\n    except ValueError:\n        z = {1, 2, 'a'}\n    return z, (lambda q: q + 1)\n"


@pytest.mark.parametrize(
    "same",
    [
        "# comment\n\n\n" + BODY,
        BODY.replace("    return", "    # why\n\n    return"),
        BODY.replace("    try", "    'A docstring.'\n    try"),
        BODY.replace("x, y=1", "x: int, y: int = 5").replace("):", ") -> list:"),
        BODY.replace("lambda q: q + 1", "lambda q: (\n        q\n        + 1)"),
    ],
)
def test_layout_and_words_are_no_other_code(same: str) -> None:
    """Comments, blank lines, docstrings, annotations, line breaks, and the values of defaults."""
    assert same_code(code(BODY), code(same))
    assert repr(outline(code(BODY))) == repr(outline(code(same)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x + each", "x - each"), ("x + each", "each + x"), ("ValueError", "KeyError"), ("q + 1", "q + 2"), ("q + 1", "q + True"),
        ("'a'", "b'a'"), ("range", "list"), ("x, y", "y, x"), ("x, y=1", "x, *, y=1"), ("x, y=1", "x, *y"), ("q: q", "q=1: q"), ("1)", "1.0)"),
        ("return z, ", "return z, z and "), ("def f", "async def f"),
    ],
)  # fmt: skip
def test_what_runs_otherwise_is_other_code(old: str, new: str) -> None:
    """Operators, constants and their types, names, parameters, inner functions, exceptions."""
    assert old in BODY
    assert not same_code(code(BODY), code(BODY.replace(old, new)))


@pytest.mark.parametrize(
    ("spec", "file", "name"),
    [
        ("shop.jobs", None, "shop.jobs"),
        ("pkg.__main__", None, "pkg.__main__"),
        ("__main__", "app.pyz/__main__.py", "__main__"),
        ("_pyrepl.__main__", None, "__main__"),
        ("asyncio.__main__", None, "__main__"),
        ("ipykernel_launcher", None, "__main__"),
        (None, None, "__main__"),
        (None, "<stdin>", "__main__"),
        (None, "no-such-file.py", "__main__"),
    ],
)
def test_the_name_of_a_program(monkeypatch: pytest.MonkeyPatch, spec: str | None, file: str | None, name: str) -> None:
    """By how it was started; what nobody can import stays `__main__`."""
    main = types.ModuleType("__main__")
    main.__dict__["__spec__"] = None if spec is None else types.SimpleNamespace(name=spec)
    if file is not None:
        main.__file__ = file
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.delitem(sys.modules, "__mp_main__", raising=False)  # what a spawned child calls it
    monkeypatch.setattr(sys, "argv", [""])
    assert naming.module_name("__main__") == name
    kind = type("Ref", (), {"__module__": "__main__"})
    assert naming.class_name(kind) == f"{name}:Ref"
    assert naming.program_names() == {name} - {"__main__"}
    assert naming.module_name("shop.other") == "shop.other"
    if name != "__main__":
        main.__dict__["Ref"] = kind
        assert naming.find_named(name, "Ref") is kind


def test_a_script_under_a_profiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """`python -m cProfile shop/jobs.py`: the module in sys.modules is the profiler's, the script is sys.argv's."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").touch()
    (tmp_path / "shop/jobs.py").touch()
    main = types.ModuleType("__main__")
    main.__dict__["__spec__"] = types.SimpleNamespace(name="cProfile")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "shop/jobs.py")])
    assert naming.module_name("__main__") == "shop.jobs"
