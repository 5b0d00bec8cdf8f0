"""The process that imports an application and says what it decorates: `python -m memover.cli.probe RESULTS < ORDER`.

ORDER is JSON: `targets`, modules or packages; `paths`, to be searched first; `skip`, modules that must not be imported;
`under`, a directory that the modules must come from, or ""; `django`, whether to set Django up first. RESULTS gets one JSON value a line, written out before the
next step, so that a module which ends the process is the last one named:

    {"importing": name}   {"failed": name, "error": text, "path": file, "line": number}
    {"functions": [...], "classes": {...}}

Caching is off and no store is connected to: a Redis cache made by the application is an empty one of this process.
What the application prints goes to stderr. `manage.py memover` asks a fork of the process that has set Django up
(`answer_in_fork`), so that nothing is set up twice.
"""

from __future__ import annotations

import importlib
import json
import linecache
import os
import pkgutil
import re
import sys
import traceback
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from memover.keys.ownership import Claim

__all__ = ["answer_in_fork", "claims_so_far", "facts_of", "main"]

_IGNORE = re.compile(r"#\s*memover:\s*ignore(?:\[([^\]]*)\])?")
EVERYTHING = "MV"
_STDLIB = os.path.dirname(os.__file__)
_MEMOVER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main(results: str) -> None:
    """Carries out the order on stdin."""
    order = json.load(sys.stdin)
    # The application may print, and may read: neither is for us.
    sys.stdout = sys.stderr
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - for the life of this process
    claims = _disarm()
    _answer(order, results, claims)


def answer_in_fork(order: dict[str, Any], results: str) -> int:
    """Carries out the order in a child of this process, which has imported the application already. Answers its status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        sys.stdout.flush()
        os.dup2(2, 1)
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - for the life of this process
        before = claims_so_far()
        for each in before:
            # Those made from now on are off by the environment.
            cache = getattr(each.owner, "_cache", None)
            if cache is not None and not isinstance(cache, str):
                cache.disabled().__enter__()
        claims = _disarm()
        claims += before
        _answer(order, results, claims)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def claims_so_far() -> list[Claim]:
    """What this process has decorated until now, as claims."""
    from memover.keys.identity import label
    from memover.keys.ownership import Claim, owners

    found = []
    for owner in owners():
        if owner.alias is not None:
            store, prefix = f"the alias {owner.alias}", ""
        elif owner._cache is None:
            store, prefix = "the default cache", ""
        else:
            store, prefix = owner.cache.address, owner.cache.prefix
        found.append(Claim(store, prefix, owner.policy.namespace, owner.function, owner, label(owner.function)))
    return found


def _answer(order: dict[str, Any], results: str, claims: list[Claim]) -> None:
    with open(results, "w", encoding="utf-8") as file:

        def say(**words: Any) -> None:
            file.write(json.dumps(words) + "\n")
            file.flush()

        sys.path[:0] = [each for each in order["paths"] if each not in sys.path]
        # Python takes bytecode for that of a source that is edited within the same second to the same length, as by a bump.
        sys.dont_write_bytecode = True
        if order["django"]:
            import django

            django.setup()
        failed: set[str] = set()
        for target in order["targets"]:
            _visit(target, order, say, failed)
        # What a module decorated before it failed is not all it decorates.
        whole = [each for each in claims if getattr(each.function, "__module__", "") not in failed]
        functions, classes = facts_of(whole, order["targets"])
        say(functions=functions, classes=classes)
        # An application may have threads that would keep this process.
        file.flush()
        os._exit(0)


def _disarm() -> list[Claim]:
    os.environ["MEMOVER_DISABLED"] = "1"
    os.environ["MEMOVER_URL"] = "memory://"
    import memover.cache
    from memover.keys import ownership
    from memover.stores import address_of
    from memover.stores.memory import MemoryStore

    def unconnected(url: str, **_: Any) -> Any:
        store = MemoryStore(1)
        store.address = address_of(url)
        return store

    made_of: Any = memover.cache
    made_of.open_store = unconnected
    return ownership.survey()


def _visit(name: str, order: dict[str, Any], say: Callable[..., None], failed: set[str]) -> None:
    """Imports a module and, if it is a package, what is in it."""
    if name in order["skip"]:
        return
    say(importing=name)
    try:
        module = importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        path, line = _blame(error)
        failed.add(name)
        say(failed=name, error=_told(error), path=path, line=line)
        return
    file = getattr(module, "__file__", None)
    if order["under"] and file and not os.path.realpath(file).startswith(os.path.realpath(order["under"]) + os.sep):
        say(
            failed=name,
            error=f"it was imported from {file}, which is not the revision to compare with",
            path="",
            line=0,
        )
        return
    for found in pkgutil.iter_modules(getattr(module, "__path__", None) or (), f"{name}."):
        if not found.name.endswith(".__main__"):
            _visit(found.name, order, say, failed)


def _told(error: BaseException) -> str:
    # One line: some libraries add a page of advice.
    lines = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()
    return lines[-1].strip() if isinstance(error, SyntaxError) else lines[0]


def _blame(error: BaseException) -> tuple[str, int]:
    """The place where an import went wrong: a syntax error's own, else the last line that is the application's."""
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno or 0
    place = ("", 0)
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = frame.f_code.co_filename
        if os.path.exists(name) and not name.startswith((_STDLIB, _MEMOVER)) and "-packages" not in name:
            place = (name, line)
    return place


def facts_of(claims: Iterable[Claim], targets: Iterable[str]) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """The facts of the functions below the targets, and the places of the classes in their shapes by name."""
    from memover.schema.lock import is_below

    wanted = tuple(targets)
    found: dict[int, dict[str, Any]] = {}
    classes: dict[str, dict[str, Any]] = {}
    for claim in claims:
        module = getattr(claim.function, "__module__", None) or ""
        if id(claim.owner) not in found and is_below(module, wanted):
            found[id(claim.owner)] = _function(claim, module, classes)
    return list(found.values()), classes


def _function(claim: Claim, module: str, classes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    from memover.schema.body import body_fingerprint, class_place, source_lines
    from memover.schema.derive import classes_of, shape_of
    from memover.schema.lock import Block

    core = claim.owner
    function, binding, name = claim.function, core.binding, core.name
    path, first, last = source_lines(function)
    kinds = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
    parameters = [
        kinds.get(each.kind.name, "") + each.name
        for each in binding.signature.parameters.values()
        if each.name not in binding.ignore
    ]
    key = binding.key or ""
    block = Block(
        function=f"{module}:{name}",
        version=core.policy.version,
        parameters=tuple(parameters),
        ignored=tuple(sorted(binding.ignore)),
        key=key if isinstance(key, str) else f"callable {body_fingerprint(key) or getattr(key, '__qualname__', '')}",
        ttl=_ttl(core.declared.get("ttl", ...)),
        tags=_tags(core.declared.get("tags", ())),
        upgrades=tuple(sorted(getattr(core, "upgrades", ()))),
        body=body_fingerprint(function),
        shape=shape_of(function),
    )
    named = []
    for kind in classes_of(function):
        name = f"{kind.__module__}:{kind.__qualname__}"
        if name not in classes:
            classes[name] = class_place(kind)._asdict()
        named.append(name)
    return {
        "namespace": claim.namespace,
        "classes": named,
        "block": {**block.facts(), "shape": str(block.shape)},
        "path": path,
        "line": last,
        "store": claim.store,
        "prefix": claim.prefix,
        "identity": claim.identity,
        "ignores": _ignores(path, first, last),
    }


def _ttl(declared: Any) -> str:
    """A ttl as a reviewer writes it: "5m", "never", the name of a function; "" for the cache's default."""
    if declared is ...:
        return ""
    if declared is None:
        return "never"
    if callable(declared):
        return f"callable {_callable(declared)}"
    if isinstance(declared, str):
        return declared
    seconds = declared.total_seconds() if isinstance(declared, timedelta) else float(declared)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{int(seconds // length)}{unit}"
    return f"{seconds:g}s"


def _tags(declared: Any) -> tuple[str, ...]:
    every = (declared,) if isinstance(declared, str) or callable(declared) else tuple(declared)
    return tuple(each if isinstance(each, str) else f"callable {_callable(each)}" for each in every)


def _callable(function: Any) -> str:
    # Never its repr, which may hold an address.
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}:{name}"


def _ignores(path: str, first: int, last: int) -> list[str]:
    """What the comments between a function's first decorator and its `def` leave out."""
    codes: list[str] = []
    for number in range(first, last + 1):
        hit = _IGNORE.search(linecache.getline(path, number))
        if hit is not None:
            codes += [code.strip() for code in (hit[1] or EVERYTHING).split(",") if code.strip()]
    return codes


if __name__ == "__main__":
    main(sys.argv[1])
