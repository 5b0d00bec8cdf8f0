"""What the commands on running caches have in common: the store they look at, their options, and progress bars."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from memover.cli.project import CannotRun, Project
from memover.schema.lock import namespace_of
from memover.stores.survey import open_survey

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from memover.schema.lock import Lock
    from memover.stores.survey import Survey

__all__ = ["StoreContext", "document", "not_there", "on_store", "progress", "step_option"]


class StoreContext(NamedTuple):
    """The store and the prefix that a command looks at, and the project around it. `lock` is None if the project has none."""

    url: str
    prefix: str
    survey: Survey
    project: Project
    lock: Lock | None

    @classmethod
    def find(cls, url: str | None, prefix: str | None, lockfile: str | None, command: str) -> StoreContext:
        """From options and environment, then from [tool.memover]. Raises `CannotRun` if none of them names a store."""
        project = Project.find(lockfile=lockfile)
        where = url or project.url
        if not where or where.startswith("memory"):
            raise CannotRun(
                f"Say which store: memover {command} --url redis://host:6379/0, or set MEMOVER_URL. "
                f"It must be one that other processes can look into, so not memory://."
            )
        chosen = project.prefix if prefix is None else prefix
        return cls(where, chosen, open_survey(where), project, project.lock())

    def named_in_lock(self) -> dict[str, int]:
        """The namespaces that the lock knows, each with its version; where several functions share one, the lowest."""
        named: dict[str, int] = {}
        for name, block in (self.lock.functions if self.lock is not None else {}).items():
            namespace = namespace_of(name)
            named[namespace] = min(block.version, named.get(namespace, block.version))
        return named

    def removed_in_lock(self) -> dict[str, int]:
        """The namespaces of functions that are gone, with the last version of each."""
        if self.lock is None:
            return {}
        return {namespace_of(name): version for name, version in self.lock.removed.items()}


def on_store(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that every command on a running cache has; the command gets their `context`, and `form`."""

    @click.option("--url", envvar="MEMOVER_URL", help="The store, as in Cache(url). Default: MEMOVER_URL.")
    @click.option(
        "--prefix", envvar="MEMOVER_PREFIX", help="As in Cache(prefix=...). Default: MEMOVER_PREFIX, or memover."
    )
    @click.option(
        "--format",
        "form",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="A table for people, or one JSON document.",
    )
    @click.option("--lockfile", help="The lock, if not memover.lock.")
    @wraps(command)
    def placed(*, url: str | None, prefix: str | None, lockfile: str | None, **options: Any) -> None:
        name = click.get_current_context().command.name or ""
        command(StoreContext.find(url, prefix, lockfile, name), **options)

    return placed


step_option = click.option(
    "--step", type=click.IntRange(10, 100_000), default=1000, show_default=True, help="Keys a SCAN looks at."
)


def document(facts: Any) -> None:
    """Prints one JSON document to stdout, in ASCII: nothing in it can reach a terminal as a control character."""
    click.echo(json.dumps(facts, indent=2, default=str))


def not_there(message: str) -> NoReturn:
    """Ends the command with exit status 1: what was named does not exist."""
    click.echo(f"memover: {message}", err=True)
    sys.exit(1)


@contextmanager
def progress(what: str, total: int) -> Generator[Callable[[int], None], None, None]:
    """A bar on stderr while a scan goes on, in a terminal; nothing in a pipe. What it gives takes the number of keys that one
    step looked at."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} keys", style="dim"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(what, total=max(1, total))

        def on_step(looked_at: int) -> None:
            # A step is asked for by number and may be answered with fewer, so the bar ends at its total.
            bar.advance(task, min(looked_at, bar.tasks[0].remaining or 0))

        yield on_step
