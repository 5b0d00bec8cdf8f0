"""A signal handler may raise anything, a KeyError or an IndexError too, so an `except` of such a type asks whose error it was (P17)."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import memover
from memover.living import Living

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(memover.__file__).parent

CALLED = ("latch.py", "living.py", "loops.py", "engine", "runtime", "stores", "codec", "keys")
"""What runs in the middle of a call."""

MISTAKEN = {
    "Exception", "LookupError", "KeyError", "IndexError", "RuntimeError", "ValueError", "TypeError", "AttributeError",
}  # fmt: skip
ASKING = {"raised_beneath", "raised_by_handler", "from_outside"}

ELSEWHERE = {
    # While a URL is read, a function is decorated, or a command looks on: there is no call in the middle.
    "stores/redis/url.py": "parse_url _plain_options _node",
    "stores/redis/opening.py": "check_options",
    "stores/redis/scan.py": "_int",
    "runtime/report.py": "read_report",
    "keys/binding.py": "_signature _key_arguments",
    "keys/code.py": "wrapped_by",
    "keys/places.py": "_held",
    "keys/tags.py": "_positional _check",
    "keys/template.py": "parse",
    # In threads and tasks of memover's own, or where a finalizer runs.
    "runtime/audit/auditor.py": "_differing _confirmed",
    "runtime/background.py": "_run_first _serve submit",
    "runtime/audit/differences.py": "equal",
    "runtime/heart.py": "_work",
    "runtime/renewal.py": "_look _release _some_to_release",
    "runtime/state.py": "attempt",
    "stores/redis/loops.py": "_left",
    # What was caught is the outcome, or asked about where it is looked at.
    "runtime/batch.py": "_disabled",
    "runtime/loading.py": "late_names",
    "runtime/observers.py": "span emit",
    "runtime/run.py": "run",  # it is raised again, whichever it is
    "runtime/stepwise.py": "advance",
    "runtime/upgrades.py": "_done",
    "codec/mv1/reader.py": "read_plain read_marked",
    "codec/mv1/limits.py": "_at_most",
    "codec/pickle.py": "reducer_override",
    "keys/canonical.py": "_asked",
}
"""The functions whose clauses need not ask."""


def clauses(source: str) -> Iterator[tuple[str, str]]:
    """The `except` clauses that take a type which handlers raise too and do not ask: the function, and the types."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            types = {each.id for each in ast.walk(node.type) if isinstance(each, ast.Name)} & MISTAKEN
            if types and not ASKING & {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}:
                inside = [each.name for each in functions if each.lineno <= node.lineno <= (each.end_lineno or 0)]
                yield inside[-1] if inside else "", ", ".join(sorted(types))


def modules() -> Iterator[tuple[str, str]]:
    for name in CALLED:
        for path in [ROOT / name] if name.endswith(".py") else sorted((ROOT / name).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text()


def test_a_clause_that_takes_what_handlers_raise_asks_whose_it_was() -> None:
    """In the middle of a call a KeyError need not come from the dictionary that was asked."""
    assert [
        f"{name}: {function} takes {types}"
        for name, source in modules()
        for function, types in clauses(source)
        if function not in ELSEWHERE.get(name, "").split()
    ] == []


def test_the_exceptions_to_the_rule_are_there() -> None:
    """A function that asks now, or is gone, is taken off the list."""
    found = {(name, function) for name, source in modules() for function, _ in clauses(source)}
    assert {(name, each) for name, functions in ELSEWHERE.items() for each in functions.split()} - found == set()


def test_the_check_sees_a_clause_that_does_not_ask() -> None:
    """The check itself fails where it should."""
    source = "def take(idle):\n    try:\n        return idle.pop()\n    except IndexError{}:\n        {}pass\n"
    assert list(clauses(source.format("", ""))) == [("take", "IndexError")]
    assert list(clauses(source.format(" as error", "raised_beneath(error); "))) == []


class Held:
    """Something that goes."""


def test_what_is_dropped_leaves_a_set_that_was_interrupted() -> None:
    """A handler that raises while the living are looked through leaves nothing that holds on to the dead, at any line."""
    interrupted = 0
    for at in range(1, 40):
        living: Living[Held] = Living()
        things = [Held(), Held()]
        for thing in things:
            living.add(thing)
        left = at

        def strike(frame: Any, event: str, argument: object) -> Any:
            nonlocal left
            frame.f_trace_opcodes = True
            if event == "opcode":
                left -= 1
                if left == 0:
                    raise TypeError("from a handler")
            return strike

        sys.settrace(strike)
        try:
            list(living)
        except TypeError:
            interrupted += 1
        finally:
            sys.settrace(None)
        assert list(living) == things
        del thing
        things.pop()
        assert list(living) == things
    assert interrupted > 10
