"""Parts of the reference that are made from the code: docstrings, tables of options, the command line.

Docstrings are plain text in which single backticks mean code, as editors and `help()` show them. Here they become
reStructuredText. An option without a description is an error of the build, so the tables cannot fall behind the code.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_CODE = re.compile(r"``.+?``|`[^`]+`", re.DOTALL)
_BULLET = re.compile(r"^( *)\* ")
_NAME = re.compile(r"(?:, | and )?`(\w+)(?:\([^`]*\))?`(?: \(([^)]*)\))?")


def to_rst(text: str) -> str:
    """Plain text with `code` as reStructuredText: whatever else has a meaning there is escaped."""

    def escaped(part: str) -> str:
        return re.sub(r"([*|\\_])", r"\\\1", part)

    done, at = [], 0
    for found in _CODE.finditer(text):
        done.append(escaped(text[at : found.start()]))
        code = found[0].strip("`")
        done.append(f"``{code}``")
        # What follows code without a space would be taken for a part of it.
        if found.end() < len(text) and (text[found.end()].isalnum() or text[found.end()] in "_("):
            done.append("\\ ")
        at = found.end()
    done.append(escaped(text[at:]))
    lines = [re.sub(r"^( *)\\\* ", r"\1* ", line) for line in "".join(done).split("\n")]
    # A list begins after an empty line.
    spaced: list[str] = []
    for line in lines:
        before = spaced[-1] if spaced else ""
        if _BULLET.match(line) and before.strip() and not _BULLET.match(before) and not before.startswith("  "):
            spaced.append("")
        spaced.append(line)
    return "\n".join(spaced)


TABLED = ("memover.versioned_cache", "memover.Cache")
"""Their options stand in a table of their own."""


def process_docstring(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    text = "\n".join(lines)
    if name in TABLED:
        paragraphs = [part for part in text.split("\n\n") if not part.startswith(("* `", "Options, all"))]
        text = "\n\n".join(paragraphs)
    lines[:] = to_rst(text).split("\n")


def resolve(path: str) -> Any:
    module, _, names = path.partition(":")
    found: Any = import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return found


def described(documentation: str) -> dict[str, tuple[str, str]]:
    """The options that a docstring lists as "* `name` (default): what it does", by name: default and text."""
    options: dict[str, tuple[str, str]] = {}
    for block in re.split(r"\n(?=\* )|\n\n", documentation):
        text = " ".join(block.split())
        if not text.startswith("* `"):
            continue
        names, at = [], 2
        while found := _NAME.match(text, at):
            names.append((found[1], found[2] or ""))
            at = found.end()
        for name, default in names:
            options[name] = (default, text[at:].lstrip(": "))
    return options


class Options(SphinxDirective):
    """`.. options:: module:callable` — a table of its keyword-only arguments: name, default, what its docstring says."""

    required_arguments = 1
    has_content = False

    def run(self) -> list[nodes.Node]:
        target = resolve(self.arguments[0])
        documentation = inspect.getdoc(target) or ""
        told = described(documentation)
        rows = ["option", "default", "meaning"], *self._rows(target, told)
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 22 18 60", "   :width: 100%", ""]
        for name, default, meaning in rows:
            lines += [f"   * - {name}", f"     - {default}", f"     - {meaning}"]
        parsed = nodes.container()
        self.state.nested_parse(StringList(lines, self.arguments[0]), self.content_offset, parsed)
        return parsed.children

    def _rows(self, target: Any, told: dict[str, tuple[str, str]]) -> list[tuple[str, str, str]]:
        rows = []
        for name, parameter in inspect.signature(target).parameters.items():
            if name == "self" or parameter.kind is parameter.VAR_KEYWORD:
                continue
            if name not in told:
                # An option may be described beside the one that it belongs to.
                beside = next((other for other, (_, text) in told.items() if f"`{name}`" in text), None)
                if beside is None:
                    raise self.error(f"{self.arguments[0]}: the docstring does not describe {name!r}")
                told[name] = ("", f"see `{beside}`")
            default, meaning = told[name]
            if not default:
                default = _shown(parameter.default)
            rows.append((f"``{name}``", to_rst(default), to_rst(meaning[:1].upper() + meaning[1:])))
        return rows


def _shown(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "required"
    if default is ...:
        return "the cache's"
    return f"`{default!r}`"


class CommandLine(SphinxDirective):
    """`.. command-line:: module:group` — every command of a click group: what it does, its arguments and options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        group = resolve(self.arguments[0])
        sections: list[nodes.Node] = []
        for name in group.list_commands(click.Context(group)):
            command = group.commands[name]
            context = click.Context(command, info_name=f"{group.name} {name}")
            section = nodes.section(ids=[f"{group.name}-{name}"])
            section += nodes.title("", f"{group.name} {name}")
            usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
            section += nodes.literal_block(usage, usage, language="text")
            lines = to_rst(inspect.cleandoc(command.help or "").replace("\b\n", "")).split("\n")
            records = [each.get_help_record(context) for each in command.params if isinstance(each, click.Option)]
            options = [found for found in records if found]
            if options:
                lines += ["", ".. list-table::", "   :widths: 35 65", "   :width: 100%", ""]
                for option, meaning in options:
                    lines += [f"   * - ``{option}``", f"     - {to_rst(meaning)}"]
            self.state.nested_parse(StringList(lines, name), self.content_offset, section)
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", process_docstring)
    app.add_directive("options", Options)
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
