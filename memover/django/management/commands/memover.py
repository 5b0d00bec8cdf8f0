"""`manage.py memover …`: the command line of memover with the project set up, so that its functions import."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

__all__ = ["Command"]


class Command(BaseCommand):
    """Hands everything after its name to `memover`, and ends with its exit code."""

    help = "memover's own commands: manage.py memover --help"
    requires_system_checks: list[str] = []  # noqa: RUF012  # Django's name and form; `check` must be able to report

    def run_from_argv(self, argv: list[str]) -> None:
        """Django's parser would take memover's options for its own."""
        from memover.cli import main
        from memover.cli.project import from_manage_py

        before, sys.argv = sys.argv, ["memover", *argv[2:]]
        try:
            with from_manage_py():
                sys.exit(main())
        finally:
            sys.argv = before

    def handle(self, *args: Any, **options: Any) -> None:
        """For `call_command("memover", "check")`."""
        self.run_from_argv(["manage.py", "memover", *map(str, args)])
