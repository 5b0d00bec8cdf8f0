"""The code of a page of the documentation, as a reader would run it: in order, in an empty directory.

    ```python            runs, in one namespace for the page; what an expression's comment shows is compared
    ```python            with a first line such as `# rates.py`: becomes that file
    ```console           each line after `$ ` runs in one shell for the page; what stands below is compared with its output
    ```yaml              must be YAML
    ```toml              must be TOML; with a first line such as `# pyproject.toml` it becomes that file
    <!-- setup ... -->   Python that a page does not show: names that its fragments take for granted

In an expected output `...` stands for any text. A comment is compared when it begins with a Python literal: `f(7)  # 49`, or
`f(7)  # 49: the square`. `redis://localhost:6379/0` becomes the address of the test's Redis. Blocks `python before` and
`python after` are those of `test_moving`.

What would be passed over is an error: a block of another kind or in a list, a console block without a command, a comment that looks like
a value where it cannot be compared (in a function, in a file, or not a literal), and a file that no later block of the page names
(for `conftest.py`: that runs pytest).
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Block", "WrongOutput", "blocks_of", "run"]

REDIS = "redis://localhost:6379/0"
_PIECE = re.compile(
    r"^<!-- setup\n(?P<setup>.*?)^-->"
    r"|^(?P<inside>[ >]*)```(?P<kind>[^\n]*)\n(?P<code>.*?)^[ >]*```",
    re.MULTILINE | re.DOTALL,
)
_VALUE = re.compile(r"-?\d|[\"'\[{]|b[\"']|(?:True|False|None)\b")
"""How a comment begins that shows a value, or seems to."""
_FILE = re.compile(r"# ([\w/]+\.(?:py|toml))\n")


class Block(NamedTuple):
    """One block: its kind, its text, and the line of the page on which the text begins."""

    kind: str
    code: str
    line: int


class WrongOutput(AssertionError):
    """A page shows another output than its code has."""


def blocks_of(text: str) -> list[Block]:
    """The blocks of a page that are to be run. Raises ValueError for a kind that is not known here."""
    blocks: list[Block] = []
    for found in _PIECE.finditer(text):
        if found["setup"] is not None:
            blocks.append(Block("python", found["setup"], text.count("\n", 0, found.start("setup")) + 1))
            continue
        kind, line = found["kind"].strip(), text.count("\n", 0, found.start("code")) + 1
        if found["inside"]:
            raise ValueError(f"line {line}: a block in a list or a quotation is not run; put it at the margin")
        if kind in ("python", "console", "toml", "yaml"):
            blocks.append(Block(kind, found["code"], line))
        elif not _is_prose(kind):
            raise ValueError(f"a block of kind {kind!r}: tests/docs/pages.py does not know how to run it")
    return blocks


def _is_prose(kind: str) -> bool:
    return kind in ("text", "python before", "python after") or kind.startswith("{")


def run(blocks: list[Block], directory: Path, url: str, env: dict[str, str]) -> None:
    """Run the blocks in `directory`. Raises `WrongOutput`, or AssertionError with the traceback of what failed."""
    shell = Shell(directory, env)
    program: list[str] = []
    for number, block in enumerate(blocks):
        code = block.code.replace(REDIS, url)
        name = _FILE.match(code)
        if block.kind == "toml":
            _check_toml(code)
        if block.kind == "yaml":
            yaml.safe_load(code)
        if name is not None and block.kind != "console":
            path = directory / name[1]
            if block.kind == "python":
                checked(code, block.line, everywhere=False)
                user = "pytest" if path.name == "conftest.py" else path.stem
                if not any(re.search(rf"\b{user}\b", later.code) for later in blocks[number + 1 :]):
                    raise ValueError(f"line {block.line}: nothing on the page runs {name[1]}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code, encoding="utf-8")
        elif block.kind == "console":
            for command, expected in commands(code):
                shell.run(command, expected, block.line)
        elif block.kind == "python":
            program.append(checked(code, block.line))
    if program:
        (directory / "page.py").write_text("\n".join([_HEAD, *program]), encoding="utf-8")
        shell.run("python -W error page.py", None, 0)


def commands(code: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output that is shown below it."""
    if not code.startswith("$ "):
        raise ValueError(f"a console block begins with a command, `$ ...`: {code!r}")
    for part in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


class Shell:
    """Runs commands one after another as one shell would: what one exports the next has."""

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        self.directory = directory
        self.env = env
        self._exports = ""

    def run(self, command: str, expected: str | None, line: int) -> None:
        if command.startswith("export "):
            self._exports += command + "\n"
            return
        ended = subprocess.run(
            ["bash", "-c", self._exports + command],
            cwd=self.directory,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if not expected:
            assert ended.returncode == 0, f"line {line}: {command}\n{ended.stdout}{ended.stderr}"
        elif not matches(expected, ended.stdout):
            raise WrongOutput(f"line {line}: {command}\nshown:\n{expected}\nis:\n{ended.stdout}{ended.stderr}")


def matches(expected: str, output: str) -> bool:
    """Whether an output is the expected one, `...` standing for any text; spaces at the ends of lines do not count."""

    def trimmed(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))

    pattern = ".*".join(re.escape(part) for part in trimmed(expected).split("..."))
    return re.fullmatch(pattern, trimmed(output), re.DOTALL) is not None


_HEAD = """def _shows(line, value, shown):
    if type(value) is not type(shown) or value != shown:
        raise AssertionError(f"line {line} of the page shows {shown!r}, and it is {value!r}")
"""


def checked(code: str, line: int, *, everywhere: bool = True) -> str:
    """The code, with a comparison in place of each expression whose comment shows its value.

    Raises ValueError for a comment that seems to show a value and is not compared; in a file (not `everywhere`) none is."""
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(code).readline)
        if token.type == tokenize.COMMENT
    }
    tree = ast.parse(code)
    expressions = [node for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    changed = code.split("\n")
    for statement in sorted(expressions, key=lambda node: -node.lineno):
        last = statement.end_lineno or statement.lineno
        comment = comments.get(last, "")
        shown = literal(comment)
        if shown is None and not _VALUE.match(comment):
            continue
        if shown is None or not everywhere or statement not in tree.body:
            raise ValueError(
                f"line {line + last - 1}: the comment {comment!r} is not compared: show values at the margin, "
                f"as literals, with a colon before what follows"
            )
        source = ast.get_source_segment(code, statement.value)
        changed[statement.lineno - 1 : last] = [f"_shows({line + statement.lineno - 1}, ({source}), {shown[0]})"]
    return "\n".join(changed)


def literal(comment: str) -> tuple[str, Any] | None:
    """The literal that a comment is or begins with (up to a colon), as text and value; None where there is none."""
    for end in [len(comment), *(found.start() for found in re.finditer(":", comment))]:
        text = comment[:end].strip()
        try:
            return text, ast.literal_eval(text)
        except (ValueError, SyntaxError):
            continue
    return None


def _check_toml(code: str) -> None:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    tomllib.loads(code)
