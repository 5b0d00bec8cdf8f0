"""A project: its settings in pyproject.toml, its lock, and which findings it reports."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memover.errors import ConfigurationError
from memover.schema.findings import RULES, Finding, Found
from memover.schema.lock import Lock, read_lock, tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["CannotRun", "Project", "from_manage_py"]

_SETTINGS = ("targets", "lockfile", "select", "ignore", "body", "paths", "url", "prefix")
_BODY_LEVELS = {"off": "off", "warn": "warning", "warning": "warning", "error": "error"}


_from_manage_py: ContextVar[bool] = ContextVar("memover-from-manage-py", default=False)


class CannotRun(ConfigurationError):
    """The command could not do what it was asked to: exit status 2."""


@contextmanager
def from_manage_py() -> Generator[None, None, None]:
    """Inside, `Project.find` knows that manage.py has set Django up in this process."""
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
            is_text = isinstance(value, str)
            if name in ("lockfile", "body", "url", "prefix"):
                if not is_text:
                    raise CannotRun(f"[tool.memover] {name} must be text, not {value!r}.")
            elif is_text or not all(isinstance(each, str) for each in value):
                raise CannotRun(f"[tool.memover] {name} must be a list of texts, not {value!r}.")
            made[name] = value if is_text else tuple(value)
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
        """A path relative to the project where it is inside, as it is elsewhere."""
        try:
            return Path(path).resolve().relative_to(self.root).as_posix()
        except ValueError:
            return path

    def level(self, finding: Finding) -> str:
        """The level of a finding under these settings: "error", "warning" or "off"."""
        code = finding.code
        if code.startswith(self.ignore) or (self.select and not code.startswith(self.select)):
            return "off"
        if code == "MV006":
            configured = _BODY_LEVELS[self.body]
            return "error" if configured == "off" and code in self.select else configured
        return finding.level

    def looked_at(self, targets: Sequence[str]) -> tuple[str, ...]:
        """The targets that were named, or those of pyproject.toml. Raises `CannotRun` if there are none."""
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
            if level != "off" and not finding.code.startswith(comments):
                kept.append(replace(finding, level=level))
        return sorted(kept, key=lambda each: (each.path, each.line, each.code, each.namespace))
