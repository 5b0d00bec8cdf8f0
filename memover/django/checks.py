"""System checks: what `manage.py check` says of the caches and of the functions that use them.

    memover.E001  a decorated function cannot have the cache it names, or its namespace there
    memover.W001  the server evicts generations (`--deploy` only: it asks the server)
    memover.W002  the server refuses writes when it is full (`--deploy` only)
    memover.W003  the server could not be asked (`--deploy` only)
    memover.W004  no KEY_PREFIX on a store that others can reach (`--deploy` only)
    memover.W005  memover.lock is out of date: a function is new, gone, bumped or stores something else

A cache that cannot be made as it is configured needs no check of ours: Django's own make every cache, and raise
`InvalidMemoverCache`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.cache import caches
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  # Django's names

from memover.django.backend import MemoverCache
from memover.errors import ConfigurationError, StoreError
from memover.keys.ownership import owners
from memover.stores.survey import survey_of

if TYPE_CHECKING:
    from memover.cli.project import Project
    from memover.schema.findings import Finding, Found
    from memover.schema.lock import Lock

__all__ = ["check_functions", "check_lock", "check_servers"]

_LOCAL = "<locals>"


def check_functions(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """Whether every decorated function has its namespace to itself on the cache it names. No connection is opened."""
    found: list[CheckMessage] = []
    for owner in owners():
        if owner.alias is not None:
            try:
                owner.now()
            except ConfigurationError as error:
                found.append(Error(str(error), obj=owner.name, id="memover.E001"))
    return found


def check_servers(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """What the servers do when their memory is full, and who may share the keys. Some round trips to each server."""
    found: list[CheckMessage] = []
    for alias in settings.CACHES:
        try:
            backend = caches[alias]
        except Exception:  # noqa: S112  # Django's own checks raise it
            continue
        if isinstance(backend, MemoverCache) and not backend.cache._state.store.local:
            found += _server(alias, backend)
    return found


def _server(alias: str, backend: MemoverCache) -> Iterator[CheckMessage]:
    if not backend.prefix:
        yield Warning(
            f"The cache {alias!r} has no KEY_PREFIX.",
            hint="Every other Django project on the same database or file without one shares its keys: name the project and environment.",
            id="memover.W004",
        )
    try:
        servers = survey_of(backend.cache._state.store).servers()
    except StoreError as error:
        yield Warning(f"The cache {alias!r} could not be asked: {error}", hint="Is the server up?", id="memover.W003")
        return
    for policy in sorted({each.policy or "" for each in servers if each.memory_limit}):
        if policy.startswith("allkeys"):
            yield Warning(
                f"The server of the cache {alias!r} evicts any key when it is full ({policy}), generations too.",
                hint="Losing one empties what is under it, and never revives an entry; with maxmemory-policy volatile-lru they stay.",
                id="memover.W001",
            )
        elif policy == "noeviction":
            yield Warning(
                f"The server of the cache {alias!r} refuses writes when it is full (noeviction).",
                hint="cache.set() then raises StoreUnavailable: set maxmemory-policy to volatile-lru or another volatile-* policy.",
                id="memover.W002",
            )


def check_lock(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """What the functions of this process are, against the project's lock: nothing is imported but the URLs.

    No lock, or no libraries to write one with: nothing to say.
    """
    try:
        if any(find_spec(name) is None for name in ("click", "rich", "tomli_w")):
            return []
        from memover.cli.project import Project

        project = Project.find(Path(getattr(settings, "BASE_DIR", None) or "."))
        lock = project.lock()
        return [] if lock is None else [_outdated(each) for each in _compared(project, lock)]
    except ConfigurationError as error:
        return [Warning(str(error), hint="Mend it, then: python manage.py memover check", id="memover.W005")]
    except Exception:
        # A check that raises keeps runserver from starting; `memover check` says what is wrong.
        return []


def _outdated(finding: Finding) -> CheckMessage:
    from memover.schema.findings import ways_out

    told = "".join(f"; {each}" for each in finding.details)
    fixes = [
        ("" if word == "fix" else f", {word}: ") + (f"python manage.py {fix}" if fix.startswith("memover ") else fix)
        for word, fix in ways_out(finding)
    ]
    place = f"{finding.path}:{finding.line}" if finding.line else finding.path
    return Warning(
        f"memover.lock is out of date: {finding.message}{told} ({finding.code}).",
        hint="".join(fixes),
        obj=place,
        id="memover.W005",
    )


def _compared(project: Project, lock: Lock) -> list[Finding]:
    from memover.cli.check import advised
    from memover.cli.functions import names_in_lock
    from memover.schema import rules
    from memover.schema.findings import by_class
    from memover.schema.lock import Lock

    try:
        from django.urls import get_resolver

        # Django's own checks import the views too, before this one or after it.
        _patterns = get_resolver().url_patterns
    except Exception:  # Django's own checks say so
        pass
    functions = _decorated(project, lock)
    current = names_in_lock(functions)
    # What a function decorates when it is called may be there or not.
    known = {name: each for name, each in lock.functions.items() if name in current or _LOCAL not in each.function}
    modules = {each.function.partition(":")[0] for each in known.values()}
    unseen = [module for module in modules if module not in sys.modules and _exists(module, project)]
    found = rules.unlocked(current, Lock(known, lock.removed), whole=bool(project.targets), spared=unseen)
    for name, each in current.items():
        if name in known:
            found += rules.compare(name, each, known[name])
    targets = () if project.targets else sorted({each.block.function.partition(":")[0] for each in functions})
    return advised(project, by_class(project.reported(found, functions), current), current, targets)


def _decorated(project: Project, lock: Lock) -> list[Found]:
    """The functions below the targets, as `memover lock` would find them; without targets, those of the lock's modules."""
    from memover.cli.functions import function_of
    from memover.cli.probe import claims_so_far, facts_of

    locked = {each.function for each in lock.functions.values()}
    targets = project.targets or sorted({each.partition(":")[0] for each in locked})
    claims = [
        each
        for each in claims_so_far()
        if _LOCAL not in each.owner.name or f"{each.function.__module__}:{each.owner.name}" in locked
    ]
    functions, classes = facts_of(claims, targets)
    return [function_of(facts, project, classes) for facts in functions]


def _exists(module: str, project: Project) -> bool:
    """Whether a module that was not imported could be. Nothing is imported to find out."""
    top, *parts = module.split(".")
    file = "/".join((top, *parts))
    if any((project.root / path / f"{file}{end}").exists() for path in project.paths for end in ("", ".py")):
        return True
    name, spec = top, find_spec(top)
    for part in parts:
        if spec is None:
            break
        loaded = sys.modules.get(name)
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, getattr(loaded, "__path__", spec.submodule_search_locations) or [])
    return spec is not None
