"""The commands: each reads options, calls the function that does the work, and shows the result.

Exit status: 0 all in order · 1 findings · 2 it could not run.
"""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

import memover as package
from memover.cli.check import check, failed
from memover.cli.doctor import doctor
from memover.cli.formats import FORMATS, on_terminal
from memover.cli.gc import gc
from memover.cli.inspect import inspect
from memover.cli.invalidate import invalidate
from memover.cli.ls import ls
from memover.cli.project import CannotRun, Project
from memover.cli.serve import serve
from memover.cli.text import count_of
from memover.cli.top import top
from memover.errors import MemoverError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["memover"]


class CommandGroup(click.Group):
    """A group whose commands report an error of memover in one sentence, with exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command that was asked for."""
        try:
            return super().invoke(ctx)
        except MemoverError as error:
            Console(stderr=True).print(f"memover: {error}", style="red", soft_wrap=True, highlight=False, markup=False)
            ctx.exit(2)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package.__version__, prog_name="memover")
def memover() -> None:
    """Review what your cached functions store, and look after running caches."""
    # The command reports errors itself; the library's warnings would repeat them.
    logging.getLogger("memover").addHandler(logging.NullHandler())


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [each.strip() for each in text.split(",") if each.strip()]


@memover.command("lock")
@click.argument("targets", nargs=-1)
@click.option("--lockfile", help="The lock, if not memover.lock.")
@click.option("--accept", metavar="CODE", help="Let a finding through; TARGETS are then the namespaces it is in.")
@click.option("--reason", default="", help="Why it is let through: it is written into the lock.")
@click.option("--target", "also", multiple=True, help="A module or package, beside --accept.")
def lock_command(
    targets: Sequence[str], lockfile: str | None, accept: str | None, reason: str, also: Sequence[str]
) -> None:
    """Write memover.lock: what every cached function stores.

    A change that needs a new version (or a reason) is not written, and makes the exit status 1.

        memover lock --accept MV001 profiles --reason "only a comment field, readers ignore it"
    """
    from memover.cli.locking import Acceptance, lock

    project = Project.find(lockfile=lockfile)
    acceptance = None
    if accept is not None:
        if not targets:
            raise CannotRun(f'Say which function: memover lock --accept {accept} profiles --reason "..."')
        acceptance, targets = Acceptance(accept, tuple(targets), reason), ()
    written = lock(project, (*targets, *also), acceptance)
    console = Console()
    styles = {"new": "green", "changed": "yellow", "removed": "red"}
    for word, name in written.changes():
        console.print(f"{word:>8}  [{styles[word]}]{name}[/]", highlight=False)
    if written.refused:
        head = (
            f"{project.lockfile}: written, except for these until they are put right"
            if any(written.changes())
            else "Not written, until it is put right"
        )
        console.print(f"{head}:", style="bold", highlight=False)
        on_terminal(written.refused, console)
        sys.exit(1)
    console.print(f"{project.lockfile}: {count_of(written.functions, 'function')}", highlight=False)


@memover.command("check")
@click.argument("targets", nargs=-1)
@click.option("--against", metavar="REVISION", help="Compare with a git revision instead of the lock.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["terminal", *FORMATS]),
    default="terminal",
    show_default=True,
    help="Who reads the findings: a person, a review, or a program.",
)
@click.option("--output", type=click.Path(dir_okay=False, writable=True), help="Write the report to a file.")
@click.option("--select", metavar="CODES", help="Only these codes, or beginnings of codes, with commas.")
@click.option("--ignore", metavar="CODES", help="Not these codes, or beginnings of codes.")
@click.option("--body", type=click.Choice(["off", "warn", "error"]), help="How MV006, a changed body, counts.")
@click.option("--lockfile", help="The lock, if not memover.lock.")
@click.option(
    "--fix", is_flag=True, help="Mend what a command can mend: bump versions, write the lock. Then check again."
)
def check_command(
    targets: Sequence[str],
    against: str | None,
    form: str,
    output: str | None,
    select: str | None,
    ignore: str | None,
    body: str | None,
    lockfile: str | None,
    fix: bool,
) -> None:
    """Say what in the source needs a new version, or a new lock.

    TARGETS are modules or packages; without any, those of [tool.memover] in pyproject.toml.
    """
    project = Project.find(select=_list(select), ignore=_list(ignore), body=body, lockfile=lockfile)
    if fix:
        from memover.cli.bump import mend

        project = project.afresh()
        for line in mend(project, targets, against):
            click.echo(line, err=form != "terminal")
    findings = check(project, targets, against)
    with nullcontext(sys.stdout) if output is None else open(output, "w", encoding="utf-8") as file:
        if form == "terminal":
            on_terminal(findings, Console(file=file))
        else:
            click.echo(FORMATS[form](findings), file=file)
    sys.exit(1 if failed(findings) else 0)


@memover.command("bump")
@click.argument("names", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Everything that `memover check` wants bumped.")
@click.option("--target", "targets", multiple=True, help="A module or package; default: those of pyproject.toml.")
@click.option("--to", type=click.IntRange(min=1), help="The version, if not the next one.")
@click.option("--lockfile", help="The lock, if not memover.lock.")
def bump_command(
    names: Sequence[str], every: bool, targets: Sequence[str], to: int | None, lockfile: str | None
) -> None:
    """Give functions their next version, in the source and in the lock.

    NAMES are namespaces, or functions; with --all also modules and packages, as TARGETS of `memover check`. Functions that
    are named are all bumped or none. With --all, what can be bumped is, and the rest is listed: exit status 1.
    """
    from memover.cli.bump import bump, bump_all

    if not names and not every:
        raise click.UsageError("Name namespaces or functions, or give --all for what `memover check` wants bumped.")
    project, left = Project.find(lockfile=lockfile), list[str]()
    if every:
        done, left = bump_all(project, names, to, targets=targets)
    else:
        done = bump(project, names, to, targets=targets)
    for each in done:
        click.echo(each)
    if left:
        click.echo("Not bumped:", err=True)
        for reason in left:
            click.echo(f"  {reason}", err=True)
        sys.exit(1)
    if not done:
        click.echo("nothing to bump")


for _command in (ls, inspect, invalidate, gc, doctor, top, serve):
    memover.add_command(_command)
