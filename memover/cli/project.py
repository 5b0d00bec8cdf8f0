"""A project: its settings in pyproject.toml, its lock, and what a look at its source finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memover.errors import ConfigurationError
from memover.schema.lock import Lock, block_of, read_lock, tomllib
from memover.schema.rules import RULES, Finding, Found

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["CannotRun", "Project", "Survey", "names_of", "survey"]

_SETTINGS = ("targets", "lockfile", "select", "ignore", "body", "paths", "url", "prefix")
_BODY_LEVELS = {"off": "off", "warn": "warning", "warning": "warning", "error": "error"}


class CannotRun(ConfigurationError):
    """The command could not do what it was asked to: exit status 2."""


@dataclass(frozen=True)
class Project:
    """The settings under `[tool.memover]`, and the directory they are relative to.

    `targets` are modules or packages; `lockfile` a path; `select` and `ignore` codes or beginnings of codes; `body` the
    level of MV006: "off", "warn" or "error"; `paths` directories that modules are imported from. `url` and `prefix` are
    where the commands on running caches look when neither an option nor the environment says.
    """

    root: Path
    targets: tuple[str, ...] = ()
    lockfile: str = "memover.lock"
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    body: str = "off"
    paths: tuple[str, ...] = (".", "src")
    url: str = ""
    prefix: str = "memover"

    @classmethod
    def find(cls, start: Path | None = None, **overrides: Any) -> Project:
        """The project around a directory: the nearest pyproject.toml above with `[tool.memover]`, or else the nearest."""
        here = (start or Path.cwd()).resolve()
        nearest: Path | None = None
        settings: dict[str, Any] = {}
        for directory in (here, *here.parents):
            file = directory / "pyproject.toml"
            if not file.is_file():
                continue
            nearest = nearest or directory
            try:
                tool = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {})
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise CannotRun(f"{file} cannot be read: {error}.") from None
            if "memover" in tool:
                nearest, settings = directory, tool["memover"]
                break
        given = {name: value for name, value in overrides.items() if value is not None}
        return cls(nearest or here)._with({**settings, **given})

    def _with(self, settings: dict[str, Any]) -> Project:
        made: dict[str, Any] = {}
        for name, value in settings.items():
            if name not in _SETTINGS:
                raise CannotRun(f"[tool.memover] has no setting {name!r}: there are {', '.join(_SETTINGS)}.")
            if name in ("lockfile", "body", "url", "prefix"):
                if not isinstance(value, str):
                    raise CannotRun(f"[tool.memover] {name} must be text, not {value!r}.")
                made[name] = value
            else:
                if isinstance(value, str) or not all(isinstance(each, str) for each in value):
                    raise CannotRun(f"[tool.memover] {name} must be a list of texts, not {value!r}.")
                made[name] = tuple(value)
        for code in (*made.get("select", ()), *made.get("ignore", ())):
            if not any(known.startswith(code) for known in RULES):
                raise CannotRun(f"There is no code {code!r}: the codes are {', '.join(RULES)}.")
        if made.get("body", "off") not in _BODY_LEVELS:
            raise CannotRun(f'body = {made["body"]!r} must be "off", "warn" or "error".')
        return replace(self, **made)

    @property
    def lock_path(self) -> Path:
        """Where the lock is, or would be."""
        return self.root / self.lockfile

    def lock(self) -> Lock | None:
        """The lock as it is on disk; None when there is none."""
        try:
            text = self.lock_path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return read_lock(text, self.lockfile)

    def shown(self, path: str) -> str:
        """A path as a reader of this project would write it."""
        try:
            return Path(path).resolve().relative_to(self.root).as_posix()
        except ValueError:
            return path

    def level(self, finding: Finding) -> str:
        """The level of a finding under these settings: "error", "warning" or "off"."""
        code = finding.code
        if any(code.startswith(each) for each in self.ignore):
            return "off"
        chosen = not self.select or any(code.startswith(each) for each in self.select)
        if not chosen:
            return "off"
        if code == "MV006":
            configured = _BODY_LEVELS[self.body]
            return "error" if configured == "off" and code in self.select else configured
        return finding.level

    def reported(self, findings: Iterable[Finding], functions: Iterable[Found]) -> list[Finding]:
        """The findings that the settings and the comments in the source let through, in order of place."""
        ignored = {(each.path, each.line): each.ignores for each in functions}
        kept = []
        for finding in findings:
            level = self.level(finding)
            comments = ignored.get((finding.path, finding.line), ())
            if level != "off" and not any(finding.code.startswith(code) for code in comments):
                kept.append(replace(finding, level=level))
        return sorted(kept, key=lambda each: (each.path, each.line, each.code, each.namespace))


@dataclass(frozen=True)
class Survey:
    """What a look at the source found: the functions, and modules that do not import."""

    functions: tuple[Found, ...]
    failures: tuple[Finding, ...] = ()
    failed: tuple[str, ...] = field(default=())


def survey(project: Project, targets: Sequence[str] = (), *, revision: Path | None = None) -> Survey:
    """Import the targets in a process of their own, caching off, and collect what they decorate.

    `revision` is a directory that holds another revision of the project. Raises `CannotRun` without a target.
    """
    targets = tuple(targets) or project.targets
    if not targets:
        raise CannotRun(
            "There is nothing to look at: name modules or packages, or list them in pyproject.toml:\n\n"
            '    [tool.memover]\n    targets = ["shop", "billing.views"]'
        )
    root = revision or project.root
    paths = [str(root / each) for each in project.paths if (root / each).is_dir()]
    skip: list[str] = []
    failures: list[tuple[str, str, str, int]] = []
    while True:
        order = {"targets": targets, "paths": paths, "skip": skip, "under": str(revision or "")}
        answers, status, errors = _ask(order, root)
        last = ""
        functions: list[dict[str, Any]] | None = None
        for answer in answers:
            if "importing" in answer:
                last = answer["importing"]
            elif "functions" in answer:
                functions = answer["functions"]
        failures += [
            (each["failed"], each["error"], each["path"], each["line"]) for each in answers if "failed" in each
        ]
        if functions is not None:
            break
        if not last or last in skip:
            raise CannotRun(f"The process that imports the targets ended with status {status}:\n{errors[-2000:]}")
        # That module ended the whole process: the others are still to be looked at, in a new one.
        failures = [(last, f"it ended the process that imported it (status {status})", "", 0)]
        skip.append(last)
    unique = dict.fromkeys([*failures, *((each, "it ended the process that imported it", "", 0) for each in skip)])
    by_name = {name: (name, error, path, line) for name, error, path, line in reversed(list(unique))}
    found = [
        Finding("MV008", name, f"{name} does not import: {error}", path=project.shown(path) if path else "", line=line)
        for name, error, path, line in by_name.values()
    ]
    return Survey(
        tuple(_found(each, Project(root) if revision else project) for each in functions), tuple(found), tuple(by_name)
    )


def _ask(order: dict[str, Any], root: Path) -> tuple[list[dict[str, Any]], int, str]:
    with tempfile.TemporaryDirectory(prefix="memover-") as directory:
        results = Path(directory) / "results"
        ended = subprocess.run(  # noqa: S603  # this interpreter, and a module of ours
            [sys.executable, "-m", "memover.cli.probe", str(results)],
            input=json.dumps(order),
            cwd=root,
            env={**os.environ, "MEMOVER_DISABLED": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    return [json.loads(line) for line in lines], ended.returncode, ended.stderr


def _found(facts: dict[str, Any], project: Project) -> Found:
    return Found(
        namespace=facts["namespace"],
        block=block_of(facts["block"]),
        path=project.shown(facts["path"]),
        line=facts["line"],
        store=facts["store"],
        prefix=facts["prefix"],
        identity=facts["identity"],
        ignores=tuple(facts["ignores"]),
    )


def names_of(functions: Iterable[Found]) -> dict[str, Found]:
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
