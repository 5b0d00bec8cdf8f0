"""`memover inspect`: one entry, found by its key or by the arguments of the call; what it is, `look` says."""

from __future__ import annotations

import ast
import re
import sys
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from memover.cache import Cache
from memover.cli.look import Look, look
from memover.cli.project import CannotRun
from memover.cli.running import StoreContext, document, not_there, on_store
from memover.cli.text import ago, did_you_mean, size_of, visible
from memover.errors import MemoverError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.schema.lock import Lock

__all__ = ["inspect"]

_PARAMETER = re.compile(r"\*{0,2}[^\W\d]\w*\Z")
_COLOURS = {"fresh": "green", "stale": "yellow"}
"""By verdict; the others are red."""


@click.command("inspect", context_settings={"ignore_unknown_options": True})
@click.argument("name", metavar="KEY|NAMESPACE")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@on_store
@click.option(
    "--import", "imported", metavar="MODULE:FUNCTION", help="Take the key from this function: it is imported."
)
def inspect(context: StoreContext, name: str, args: Sequence[str], form: str, imported: str | None) -> None:
    """Show one entry: its header, its tokens, whether a call would be answered from it, and its value.

    By its KEY as stored, or by NAMESPACE and the call's arguments as Python literals (`7`, `"eu"`, `region="eu"`; a bare
    word is text). Arguments need memover.lock, or --import.
    """
    if ":" in name and imported is None:
        if args:
            raise CannotRun(
                f"{name!r} is a key, so there can be no arguments: give a namespace with arguments, or a key alone."
            )
        key = name
    elif imported is not None:
        key = _key_by_import(context, imported, args)
    else:
        key = _key_of_call(context, name, args)
    found = look(context, key)
    if found is None:
        told = f"there is no entry under {visible(key)}: it was never stored, has expired, was evicted or invalidated."
        if form == "json":
            document({**dict.fromkeys(Look._fields), "key": key, "why": told, "tokens": []})
        not_there(told)
    if form == "json":
        document(found.facts())
    else:
        _show(found)


# -- which key -------------------------------------------------------------------------------------------------------------


def _literals(args: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for text in args:
        name, equals, rest = text.partition("=")
        if equals and name.isidentifier():
            named[name] = _literal(rest)
        else:
            positional.append(_literal(text))
    return positional, named


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if re.fullmatch(r"[\w.@/:+-]+", text):
            return text  # a bare word
        raise CannotRun(f'{text!r} is no Python literal: write 7, "text", [1, 2], region="eu".') from None


def _key_by_import(context: StoreContext, imported: str, args: Sequence[str]) -> str:
    if not all(imported.partition(":")):
        raise CannotRun(f"--import {imported!r} must be module:function.")
    sys.path[:0] = [str(context.project.root / each) for each in context.project.paths]
    try:
        function = resolve_name(imported)
    except Exception as error:
        raise CannotRun(f"{imported} cannot be imported: {type(error).__name__}: {error}.") from None
    if not callable(getattr(function, "key", None)):
        raise CannotRun(f"{imported} is not decorated with versioned_cache, so it has no keys.")
    return _made(context, function.key, args, imported)


def _key_of_call(context: StoreContext, namespace: str, args: Sequence[str]) -> str:
    if context.lock is None:
        raise CannotRun(
            f"There is no {context.project.lockfile} here that says which parameters {namespace!r} has: give the key as stored, "
            f"write the lock with `memover lock`, or name the function: --import module:function."
        )
    known = context.named_in_lock()
    if namespace not in known:
        hint = did_you_mean(namespace, known) or f"it knows {', '.join(sorted(known)[:10]) or 'none'}."
        not_there(f"{context.project.lockfile} knows no namespace {visible(namespace)!r}: {hint}")
    return _key_by_lock(context, context.lock, namespace, args)


def _key_by_lock(context: StoreContext, lock: Lock, namespace: str, args: Sequence[str]) -> str:
    """The key of a call, from what the lock says of its function. Raises `CannotRun` for what the lock cannot say."""
    blocks = lock.blocks_of(namespace)
    if len(blocks) > 1:
        raise CannotRun(f"Several functions have the namespace {namespace!r}: name one with --import module:function.")
    (block,) = blocks
    if block.key.startswith("callable"):
        raise CannotRun(f"The key of {namespace!r} is made by a callable in the source: --import {block.function}.")
    if not all(_PARAMETER.match(each) for each in block.parameters):
        raise CannotRun(f"The lock names parameters of {namespace!r} that are none: run `memover lock`.")
    # Arguments that are left out of the key need no value, `self` among them.
    parameters = [each for each in block.parameters if each.lstrip("*") not in block.ignored]
    described = ", ".join(parameters)
    scope: dict[str, Any] = {"__name__": __name__}
    exec(f"def call({described}): pass", scope)  # noqa: S102  # names were checked; nothing else is in it
    with Cache("memory://", prefix=context.prefix or "x") as cache:
        options: dict[str, Any] = {"key": block.key} if block.key else {}
        function: Any = cache.versioned(namespace=namespace, version=block.version, **options)(scope["call"])
        return _made(context, function.key, args, f"{namespace}({described})")


def _made(context: StoreContext, key_of: Callable[..., str], args: Sequence[str], what: str) -> str:
    """The key of a call under the prefix that is looked at. Raises `CannotRun` if the arguments do not fit."""
    positional, named = _literals(args)
    try:
        key = key_of(*positional, **named)
    except MemoverError:
        raise
    except TypeError as error:
        raise CannotRun(
            f"{what}: {error}. Give every argument that counts; defaults are in the source, so with a lock they must be given too "
            f"(or use --import module:function)."
        ) from None
    return f"{context.prefix}:{key.partition(':')[2]}"


# -- showing ---------------------------------------------------------------------------------------------------------------


def _show(found: Look) -> None:
    console = Console(soft_wrap=True, highlight=False)

    def line(name: str, text: str, style: str = "") -> None:
        console.print(Text(f"{name:>13}  ", style="dim").append(text, style=style))

    line("key", visible(found.key), "bold")
    if found.namespace is not None:
        line("namespace", f"{visible(found.namespace)}, version {found.version}")
    line("verdict", found.verdict, f"bold {_COLOURS.get(found.verdict, 'red')}")
    line("why", visible(found.why))
    header = found.header
    if header is not None:
        line("created", ago(header["created_at"]))
        line("load time", f"{header['load_time'] * 1e3:.3g} ms")
        line("fresh until", "for ever" if header["fresh_until"] is None else ago(header["fresh_until"]))
        if header["usable_until"] != header["fresh_until"]:
            line("usable until", "for ever" if header["usable_until"] is None else ago(header["usable_until"]))
        line("expires", "never" if header["expires_in"] is None else f"in {header['expires_in']:.0f} s")
        line("kind", f"{header['kind']}, codec {visible(header['codec'])}, compression {header['compression']}")
        line("size", f"{size_of(header['size'])} ({size_of(header['stored_bytes'])} in the store)")
        line("shape", header["fingerprint"] or "not recorded")
    for at, token in enumerate(found.tokens):
        mark, style = ("=", "green") if token.holds else ("≠", "red")
        text = Text(f"{'tokens' if at == 0 else '':>13}  ", style="dim").append(f"{mark} ", style=style)
        text.append(visible(token.name), style="cyan").append(f"  {visible(token.stored or '')}")
        if not token.holds:
            text.append(f"  now {visible(token.current) if token.current else 'gone'}", style=style)
        console.print(text)
    if found.value is not None:
        console.print(Text(f"{'value':>13}", style="dim"))
        for each in found.value.splitlines() or [""]:
            console.print(Text("    " + visible(each)))
