"""A project: its settings in pyproject.toml, its lock, and what a look at its source finds."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memover.errors import ConfigurationError
from memover.schema.body import ClassPlace
from memover.schema.findings import RULES, Finding, Found
from memover.schema.lock import Lock, block_of, read_lock, tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["CannotRun", "Project", "Survey", "from_manage_py", "function_of", "names_of", "start_probe", "survey"]

_SETTINGS = ("targets", "lockfile", "select", "ignore", "body", "paths", "url", "prefix")
_BODY_LEVELS = {"off": "off", "warn": "warning", "warning": "warning", "error": "error"}


_from_manage_py: ContextVar[bool] = ContextVar("memover-from-manage-py", default=False)


class CannotRun(ConfigurationError):
    """The command could not do what it was asked to: exit status 2."""


@contextmanager
def from_manage_py() -> Generator[None, None, None]:
    """Inside, projects are those of a process that Django has been set up in by manage.py."""
    before = _from_manage_py.set(True)
    try:
        yield
    finally:
        _from_manage_py.reset(before)


@dataclass(frozen=True)
class Project:
    """The settings under `[tool.memover]`, and the directory they are relative to.

    `targets` are modules or packages; `lockfile` a path; `select` and `ignore` codes or beginnings of codes; `body` the
    level of MV006: "off", "warn" or "error"; `paths` directories that modules are imported from. `django` says that Django
    is to be set up before targets are imported, and `set_up` that this process has done so; `program` is how a
    user runs memover here, and `given` the options that a command needs besides to find the same project. `url` and
    `prefix` are where the commands on running caches look when neither an option nor the environment says.
    """

    root: Path
    targets: tuple[str, ...] = ()
    lockfile: str = "memover.lock"
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    body: str = "off"
    paths: tuple[str, ...] = (".", "src")
    django: bool = False
    set_up: bool = False
    program: str = "memover"
    given: tuple[str, ...] = ()
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
        found = cls(nearest or here)._with({**settings, **given})
        options = ("--lockfile", found.lockfile) if found.lockfile != settings.get("lockfile", cls.lockfile) else ()
        inside = _from_manage_py.get()
        # A test run or a server that has set Django up: the process that looks at the source has to as well.
        apps = sys.modules.get("django.apps")
        ready = apps is not None and apps.apps.ready and "DJANGO_SETTINGS_MODULE" in os.environ
        return replace(
            found,
            django=inside or ready,
            set_up=inside,
            program="python manage.py memover" if inside else "memover",
            given=options,
        )

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

    def afresh(self) -> Project:
        """The same project, looked at by processes that import it from the source as it is then."""
        return replace(self, set_up=False)

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

    def looked_at(self, targets: Sequence[str]) -> tuple[str, ...]:
        """The targets that were named, or those of pyproject.toml. Raises `CannotRun` where there are none."""
        found = tuple(targets) or self.targets
        if not found:
            raise CannotRun(
                "There is nothing to look at: name modules or packages, or list them in pyproject.toml:\n\n"
                '    [tool.memover]\n    targets = ["shop", "billing.views"]'
            )
        return found

    def command(self, text: str, targets: Sequence[str]) -> str:
        """A command as it has to be typed here, to be about the same project and targets."""
        if not text.startswith("memover "):
            return text
        words = [self.program, text.removeprefix("memover ")]
        if not self.targets and targets:
            named = text == "memover lock"
            words += [shlex.join(targets)] if named else [f"--target {shlex.quote(each)}" for each in targets]
        if self.given:
            words.append(shlex.join(self.given))
        return " ".join(words)

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


def survey(
    project: Project, targets: Sequence[str] = (), *, revision: Path | None = None, again: bool = False
) -> Survey:
    """Import the targets in a process of their own, caching off, and collect what they decorate.

    `revision` is a directory that holds another revision of the project; `again` says that the source has changed since
    this process imported it. Raises `CannotRun` without a target.
    """
    targets = project.looked_at(targets)
    root = revision or project.root
    paths = [str(root / each) for each in project.paths if (root / each).is_dir()]
    skip: list[str] = []
    failures: list[tuple[str, str, str, int]] = []
    while True:
        order = {
            "targets": targets,
            "paths": paths,
            "skip": skip,
            "under": str(revision or ""),
            "django": project.django,
        }
        fork = project.set_up and revision is None and not again
        answers, status, errors = _ask(order, root, fork=fork and hasattr(os, "fork") and threading.active_count() == 1)
        last = ""
        classes: dict[str, Any] = {}
        functions: list[dict[str, Any]] | None = None
        for answer in answers:
            if "importing" in answer:
                last = answer["importing"]
            elif "functions" in answer:
                functions, classes = answer["functions"], answer["classes"]
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
        Finding(
            "MV008",
            name,
            f"{name} does not import: {error}",
            path=project.shown(path) if path else "",
            line=line,
            fixes=_way_out(name, error, project),
        )
        for name, error, path, line in by_name.values()
    ]
    place = Project(root) if revision else project
    functions_ = tuple(function_of(each, place, classes) for each in functions)
    return Survey(functions_, tuple(found), tuple(by_name))


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
    """A function from the facts that the probe said of it."""
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
