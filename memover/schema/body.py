"""Source: the fingerprint of a function's body and of the functions it calls, and the places of functions and classes.

What counts is what runs: comments, layout, docstrings, annotations, decorators and defaults do not. The tree is
written out in a form of our own, because `ast.dump` differs between Python versions. Called functions are found by name,
through modules and `self`, as far as names can be followed; what is cached itself is left out, it has its own block in
the lock.
"""

from __future__ import annotations

import ast
import inspect
import sys
import tokenize
import types
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from memover.classes.annotations import closure_of, innermost, owner_of
from memover.classes.naming import class_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ClassPlace", "body_fingerprint", "class_place", "node_of", "source_lines"]

_LEFT_OUT = frozenset(
    {"annotation", "ctx", "decorator_list", "defaults", "kind", "kw_defaults", "returns", "type_comment", "type_params"}
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def body_fingerprint(function: Callable[..., Any]) -> str:
    """16 hex digits of what a function does, "" when its source cannot be read."""
    start = innermost(function)
    root = node_of(start)
    if root is None:
        return ""
    parts = {_name(start): _text(root)}
    pending = [(start, root)]
    while pending:
        current, node = pending.pop()
        for called in _called(current, node):
            name = _name(called)
            if name in parts or not _local(start, called):
                continue
            found = node_of(called)
            if found is not None:
                parts[name] = _text(found)
                pending.append((called, found))
    # Names place the parts: two helpers that swap their bodies are a change. The function's own name is none.
    own = parts.pop(_name(start))
    whole = "\n".join([own, *(f"{name.rpartition('.')[2]} {text}" for name, text in sorted(parts.items()))])
    return blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def source_lines(function: Callable[..., Any]) -> tuple[str, int, int]:
    """The file, the first line (of the first decorator) and the line of the `def`; "" and zeros when it has no source."""
    inner = innermost(function)
    code = getattr(inner, "__code__", None)
    if code is None:
        return "", 0, 0
    node = node_of(inner)
    return code.co_filename, code.co_firstlineno, getattr(node, "lineno", code.co_firstlineno)


class ClassPlace(NamedTuple):
    """Where a class is defined: `identity` is `module:qualname`, `fields` the place of each field as (path, line, class)."""

    identity: str
    name: str
    path: str
    line: int
    fields: dict[str, tuple[str, int, str]]


def class_place(cls: type) -> ClassPlace:
    """The place of a class and of its fields, those of its bases included; "" and 0 where there is no source."""
    fields: dict[str, tuple[str, int, str]] = {}
    for each in cls.__mro__:
        path, node = _class_node(each)
        if node is not None:
            for name, line in _field_lines(node).items():
                fields.setdefault(name, (path, line, class_name(each)))
    path, node = _class_node(cls)
    name = cls.__qualname__.rpartition("<locals>.")[2]
    return ClassPlace(class_name(cls), name, path, 0 if node is None else node.lineno, fields)


def _class_node(cls: type) -> tuple[str, ast.ClassDef | None]:
    path = getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
    found = _classes(path).get(cls.__qualname__.replace(".<locals>", ""), []) if path else []
    return path, found[0] if len(found) == 1 else None


@cache
def _classes(path: str) -> dict[str, list[ast.ClassDef]]:
    """The class definitions of a file by qualified name, functions around them included."""
    found: dict[str, list[ast.ClassDef]] = {}
    pending: list[tuple[Any, str]] = [(_tree(path), "")]
    while pending:
        node, prefix = pending.pop()
        for child in ast.iter_child_nodes(node) if node is not None else ():
            inside = prefix
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                inside = f"{prefix}{child.name}."
                if isinstance(child, ast.ClassDef):
                    found.setdefault(f"{prefix}{child.name}", []).append(child)
            pending.append((child, inside))
    return found


def _field_lines(node: ast.ClassDef) -> dict[str, int]:
    """The lines at which a class's body and its `__init__` name its fields."""
    found: dict[str, int] = {}
    for each in node.body:
        targets = each.targets if isinstance(each, ast.Assign) else [getattr(each, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name):
                found.setdefault(target.id, each.lineno)
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.setdefault(each.name, each.lineno)  # a computed field
            if each.name == "__init__":
                for argument in (*each.args.args[1:], *each.args.kwonlyargs):
                    found.setdefault(argument.arg, argument.lineno)
                for inner in ast.walk(each):
                    if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
                        found.setdefault(inner.attr, inner.lineno)
    return found


def node_of(function: Any) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | None:
    """The syntax tree of a function, found by the line its code begins at."""
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    candidates = _index(code.co_filename).get(code.co_firstlineno, ())
    fitting = [node for node in candidates if getattr(node, "name", "<lambda>") == code.co_name]
    return fitting[0] if len(fitting) == 1 else None


@cache
def _tree(path: str) -> ast.Module | None:
    try:
        with tokenize.open(path) as file:
            return ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return None


@cache
def _index(path: str) -> dict[int, list[Any]]:
    tree = _tree(path)
    found: dict[int, list[Any]] = {}
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, _FUNCTIONS):
            first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
            found.setdefault(first, []).append(node)
    return found


def _text(node: Any) -> str:
    body = [node.body] if isinstance(node, ast.Lambda) else node.body
    return ";".join(_dump(each) for each in _without_docstring(body))


def _without_docstring(body: list[Any]) -> list[Any]:
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return body[1:]
    return body


def _dump(node: Any) -> str:
    if isinstance(node, list):
        return "[" + ",".join(map(_dump, node)) + "]"
    if not isinstance(node, ast.AST):
        return f"{type(node).__name__}:{node!r}"
    parts = []
    for name in sorted(node._fields):
        value = getattr(node, name, None)
        if name in _LEFT_OUT or value is None or value == []:
            continue
        if name == "body" and isinstance(value, list):
            value = _without_docstring(value)
        parts.append(f"{name}={_dump(value)}")
    return f"{type(node).__name__}({','.join(parts)})"


def _called(function: Any, node: Any) -> Iterator[types.FunctionType]:
    """The Python functions that the names in a body stand for."""
    owner = owner_of(function)
    receiver = node.args.args[0].arg if owner is not None and node.args.args else None
    names = {**getattr(function, "__globals__", {}), **closure_of(function)}
    for each in ast.walk(node):
        found: Any = None
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load):
            found = names.get(each.id)
        elif isinstance(each, ast.Attribute):
            path = _path(each)
            if path is not None:
                found = owner if path[0] == receiver else names.get(path[0])
                for name in path[1:]:
                    if not isinstance(found, (types.ModuleType, type)):
                        found = None
                        break
                    found = inspect.getattr_static(found, name, None)
        if isinstance(found, (staticmethod, classmethod)):
            found = found.__func__
        if isinstance(found, types.FunctionType):
            yield innermost(found)


def _path(node: Any) -> list[str] | None:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else None


def _name(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _local(start: Any, called: Any) -> bool:
    ours, theirs = (str(each.__module__).partition(".")[0] for each in (start, called))
    return ours == theirs and theirs in sys.modules
