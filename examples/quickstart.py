"""memover in one minute: how complex is the standard library that this Python came with?

    python examples/quickstart.py                              # in this process's memory
    python examples/quickstart.py redis://localhost:6379/0     # shared with a second process, through Redis

Parsing a module and measuring its functions takes a noticeable time, and the answer does not change while you look.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import IO

import memover
from memover import CachedFunction, versioned_cache

LIBRARY = Path(sysconfig.get_path("stdlib"))
MODULES = ("argparse", "ast", "difflib", "doctest", "inspect", "pdb", "subprocess", "tarfile", "typing", "zipfile")
BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.BoolOp, ast.IfExp, ast.comprehension)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Complexity:
    """What version 1 says of a module: its functions, and the one with the most branches."""

    functions: int
    hardest: str
    branches: int


@dataclass(frozen=True)
class ComplexityAndSize:
    """What version 2 says: the same, and the number of lines."""

    functions: int
    hardest: str
    branches: int
    lines: int


def release(version: int) -> CachedFunction[[str], Complexity | ComplexityAndSize]:
    """The function `complexity` as a release of our program declares it; the second one bumps the version."""

    @versioned_cache(namespace="quickstart/complexity", version=version, ttl="1h", key="{module}")
    def complexity(module: str) -> Complexity | ComplexityAndSize:
        source = source_of(module).read_text(encoding="utf-8")
        functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, FUNCTIONS)]
        branches = {node: sum(isinstance(inner, BRANCHES) for inner in ast.walk(node)) for node in functions}
        hardest = max(functions, key=branches.__getitem__)
        known = Complexity(len(functions), hardest.name, branches[hardest])
        if version == 1:
            return known
        return ComplexityAndSize(known.functions, known.hardest, known.branches, source.count("\n"))

    return complexity


def source_of(module: str) -> Path:
    """A module's source; some became packages in later releases of Python."""
    plain = LIBRARY / f"{module}.py"
    return plain if plain.exists() else LIBRARY / module / "__init__.py"


def main(url: str) -> None:
    memover.configure(url)
    complexity = release(1)
    complexity.invalidate_all()  # a store that outlives us may hold what an earlier run left

    title("The first run analyses", "every module is a miss")
    first = survey(complexity)
    title("The second run remembers", "every module is a hit")
    second = survey(complexity)
    info = complexity.cache_info()
    say(f"{first / second:,.0f} times faster: {info.hits} hits, {info.misses} misses, {info.loads} loads.")

    title("What the store holds", "prefix : version : namespace : call")
    entry = complexity.peek("argparse")
    assert entry is not None
    say(f"{bold(entry.key)}   {entry.size} bytes")
    say(f"{entry.value}")
    say(f"written under generation {entry.generation}")

    title("A new release wants the number of lines too", "version=2: one digit in the source, no command, no clean-up")
    upgraded = release(2)
    say(f"{bold(upgraded.key('argparse'))}   is another key, so this is a miss:")
    say(f"{upgraded('argparse')}")
    old, new = complexity.peek("argparse"), upgraded.peek("argparse")
    assert old is not None and new is not None
    say(f"{bold(old.key)}   is still there for those who run release 1:")
    say(f"{complexity('argparse')}   {dim('(a hit)')}")

    if url.startswith("memory:"):
        title("Everything changes", "invalidate_all(): one command, whatever the number of entries and versions")
        say(f"generation {complexity.invalidate_all()}")
    else:
        with_a_second_process(url, complexity)
    assert complexity.peek("argparse") is None
    assert upgraded.peek("argparse") is None
    say("Both versions of every entry are misses now; the next call of each runs again.")
    if url.startswith("memory:"):
        say("", dim("With a Redis URL as its argument this program also shares its entries with a second process."))


def survey(complexity: CachedFunction[[str], Complexity | ComplexityAndSize]) -> float:
    """Ask for every module, say what came and how long it took, and return the seconds for all."""
    total = 0.0
    for module in MODULES:
        began = perf_counter()
        found = complexity(module)
        seconds = perf_counter() - began
        total += seconds
        what = f"{found.functions:4} functions, hardest {found.hardest} ({found.branches} branches)"
        say(f"{module:<11}{time_of(seconds)}  {dim(what)}")
    say(f"{'together':<11}{bold(time_of(total))}")
    return total


# A second process: this file again, doing what it is told on its standard input.


def with_a_second_process(url: str, complexity: CachedFunction[[str], Complexity | ComplexityAndSize]) -> None:
    child = subprocess.Popen(
        [sys.executable, __file__, url, "--second-process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdin is not None and child.stdout is not None
        title(f"A second process, {child.pid}, asks the same", "it has never analysed anything")
        say(ask(child.stdin, child.stdout, "all"))
        title("Everything changes", "invalidate_all() here: one command, whatever the number of entries and versions")
        say(f"generation {complexity.invalidate_all()}")
        title("The second process asks for argparse again", "it was told nothing")
        say(ask(child.stdin, child.stdout, "argparse"))
        child.stdin.close()
    complexity.invalidate_all()


def ask(to: IO[str], back: IO[str], what: str) -> str:
    print(what, file=to, flush=True)
    return back.readline().rstrip()


def second_process(url: str) -> None:
    memover.configure(url)
    complexity = release(1)
    for line in sys.stdin:
        wanted = MODULES if line.strip() == "all" else (line.strip(),)
        before = complexity.cache_info()
        began = perf_counter()
        for module in wanted:
            complexity(module)
        seconds = perf_counter() - began
        after = complexity.cache_info()
        hits, loads = after.hits - before.hits, after.loads - before.loads
        print(f"process {os.getpid()}: {hits} hits, {loads} loads, {time_of(seconds).strip()}", flush=True)


# The terminal


def say(*lines: str) -> None:
    for line in lines:
        print(f"  {line}".rstrip(), flush=True)


def title(text: str, remark: str) -> None:
    print(f"\n{bold(text)}  {dim(remark)}", flush=True)


def time_of(seconds: float) -> str:
    return f"{seconds * 1e3:8.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:8.1f} µs"


def styled(code: str, text: str) -> str:
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return f"\x1b[{code}m{text}\x1b[0m" if coloured else text


def bold(text: str) -> str:
    return styled("1", text)


def dim(text: str) -> str:
    return styled("2", text)


if __name__ == "__main__":
    where = sys.argv[1] if len(sys.argv) > 1 else "memory://"
    if "--second-process" in sys.argv:
        second_process(where)
    else:
        try:
            main(where)
        except memover.ConfigurationError as error:
            sys.exit(f"quickstart: {error}")
        except memover.InvalidationFailed as error:
            sys.exit(f"quickstart: {error.store} does not answer. Is Redis running there?  ({error.__cause__})")
