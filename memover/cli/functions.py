"""The functions that a project decorates, found by importing its targets in a process of their own (see `probe`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memover.cli.project import CannotRun, Project
from memover.schema.body import ClassPlace
from memover.schema.findings import Finding, Found
from memover.schema.lock import block_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["FoundFunctions", "find_functions", "function_of", "names_in_lock", "start_probe"]


@dataclass(frozen=True)
class FoundFunctions:
    """What a look at the source found: the functions, and modules that do not import."""

    functions: tuple[Found, ...]
    failures: tuple[Finding, ...] = ()
    failed: tuple[str, ...] = field(default=())


def find_functions(
    project: Project, targets: Sequence[str] = (), *, revision: Path | None = None, again: bool = False
) -> FoundFunctions:
    """Imports the targets in a process of their own, caching off, and collects what they decorate.

    `revision` is a directory that holds another revision of the project; `again` says that the source has changed since
    this process imported it. Raises `CannotRun` without a target.
    """
    targets = project.looked_at(targets)
    root = revision or project.root
    paths = [str(root / each) for each in project.paths if (root / each).is_dir()]
    ended: dict[str, str] = {}
    while True:
        order = {
            "targets": targets,
            "paths": paths,
            "skip": list(ended),
            "under": str(revision or ""),
            "django": project.django,
        }
        fork = project.set_up and revision is None and not again
        answers, status, errors = _ask(order, root, fork=fork and hasattr(os, "fork") and threading.active_count() == 1)
        found = next((each for each in answers if "functions" in each), None)
        if found is not None:
            break
        last = ([""] + [each["importing"] for each in answers if "importing" in each])[-1]
        if not last or last in ended:
            raise CannotRun(f"The process that imports the targets ended with status {status}:\n{errors[-2000:]}")
        # That module ended the whole process: the others are still to be looked at, in a new one.
        ended[last] = f"it ended the process that imported it (status {status})"
    failed = {name: (error, "", 0) for name, error in ended.items()}
    for each in answers:
        if "failed" in each:
            failed.setdefault(each["failed"], (each["error"], each["path"], each["line"]))
    failures = tuple(
        Finding(
            "MV008",
            name,
            f"{name} does not import: {error}",
            path=project.shown(path) if path else "",
            line=line,
            fixes=_way_out(name, error, project),
        )
        for name, (error, path, line) in failed.items()
    )
    place = Project(root) if revision else project
    functions = tuple(function_of(each, place, found["classes"]) for each in found["functions"])
    return FoundFunctions(functions, failures, tuple(failed))


def _way_out(name: str, error: str, project: Project) -> tuple[str, ...]:
    """What to do about a module that does not import."""
    if any(each in error for each in ("ImproperlyConfigured", "AppRegistryNotReady", "DJANGO_SETTINGS_MODULE")):
        return (
            "in a Django project run it as `python manage.py memover ...`",
            'set DJANGO_SETTINGS_MODULE and name what sets Django up first: targets = ["mysite.wsgi", "shop"]',
        )
    missing = error.partition("No module named ")[2].strip("'\"")
    if missing and (name == missing or name.startswith(f"{missing}.")):
        paths = ", ".join(project.paths)
        return (
            f"run it where {missing} can be imported from, or name its directory in [tool.memover] paths (now: {paths})",
        )
    if missing:
        return (f"install {missing.partition('.')[0]} in the environment that memover runs in, or mend the import",)
    return (
        "mend the import, or put the module that sets the application up before it in targets: they are imported in order",
    )


def _ask(order: dict[str, Any], root: Path, *, fork: bool) -> tuple[list[dict[str, Any]], int, str]:
    with tempfile.TemporaryDirectory(prefix="memover-") as directory:
        results = Path(directory) / "results"
        if fork:
            from memover.cli.probe import answer_in_fork

            status = answer_in_fork({**order, "django": False}, str(results))
            return _read(results), status, ""
        ended = start_probe(
            str(results), order=json.dumps(order), cwd=root, env={**os.environ, "MEMOVER_DISABLED": "1"}
        )
        return _read(results), ended.returncode, ended.stderr


def start_probe(results: str, *, order: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`python -m memover.cli.probe RESULTS`, run to its end with an order as its input."""
    return subprocess.run(  # noqa: S603  # this interpreter, and a module of ours
        [sys.executable, "-m", "memover.cli.probe", results],
        input=order,
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _read(results: Path) -> list[dict[str, Any]]:
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    return [json.loads(line) for line in lines]


def function_of(facts: dict[str, Any], project: Project, classes: dict[str, dict[str, Any]]) -> Found:
    """A function from the facts that the probe wrote."""
    return Found(
        namespace=facts["namespace"],
        block=block_of(facts["block"]),
        path=project.shown(facts["path"]),
        line=facts["line"],
        store=facts["store"],
        prefix=facts["prefix"],
        identity=facts["identity"],
        ignores=tuple(facts["ignores"]),
        classes=tuple(_class_of(classes[name], project) for name in facts["classes"]),
    )


def _class_of(facts: dict[str, Any], project: Project) -> ClassPlace:
    fields = {name: (project.shown(path), line, owner) for name, (path, line, owner) in facts["fields"].items()}
    return ClassPlace(facts["identity"], facts["name"], project.shown(facts["path"]), facts["line"], fields)


def names_in_lock(functions: Iterable[Found]) -> dict[str, Found]:
    """Each function under its name in the lock: its namespace, and the function with it where caches share one."""
    by_namespace: dict[str, dict[str, Found]] = {}
    for each in functions:
        # Of two functions in one namespace (MV003) the first is the one that has it.
        by_namespace.setdefault(each.namespace, {}).setdefault(f"{each.store} {each.prefix}", each)
    named: dict[str, Found] = {}
    for namespace, places in sorted(by_namespace.items()):
        different = {each.block.function: each for each in places.values()}
        for function, each in different.items():
            named[namespace if len(different) == 1 else f"{namespace} {function}"] = each
    return named
