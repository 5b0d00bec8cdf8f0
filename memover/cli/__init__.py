"""The command line. What it needs beyond memover itself comes with `memover[cli]`; nothing else imports this.

app         the commands: they read options and show results

On source and lock:
    project     settings, lock · functions: what the project decorates · probe: the process that imports it
    check, locking, bump        the commands · formats: findings for people and machines · revisions: from git
    source      files as they are read and edited · versions: where a version number stands

On running caches:
    running     what these have in common: the store, options, progress · text: sizes, ages, tables
    ls, gc (by census) · inspect (by look) · invalidate · doctor (by health) · top (by reports) · serve
"""

from __future__ import annotations

import sys
from importlib import import_module

__all__ = ["main"]

MISSING = """\
memover's command line needs a few libraries that `pip install memover` leaves out ({name} is not installed):

    pip install "memover[cli]"
"""


def main() -> int:
    """The `memover` command; without its libraries it says what to install."""
    try:
        for name in ("click", "rich", "tomli_w"):
            import_module(name)
    except ModuleNotFoundError as error:
        asked_for_help = any(each in ("-h", "--help") for each in sys.argv[1:]) or len(sys.argv) == 1
        (sys.stdout if asked_for_help else sys.stderr).write(MISSING.format(name=error.name))
        return 0 if asked_for_help else 2
    from memover.cli.app import memover

    memover(prog_name="memover")  # ends with SystemExit
    return 0
