"""A rolling deploy with real processes: the old release and the new one side by side on one Redis.

    python examples/rolling_deploy/run.py [redis://localhost:6379/0] [CALLS]

Each process is one release, which answers the same calls again and again. Counted is how often its function really ran.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import memover

HERE = Path(__file__).resolve().parent


class Release:
    """A process of one release; `serve()` makes it answer every call once."""

    def __init__(self, name: str, url: str, prefix: str, calls: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "run.py"), "--release", name, url, prefix, str(calls)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def serve(self) -> int:
        """The number of loads it took."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("serve\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def stop(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def release(name: str, url: str, prefix: str, calls: int) -> None:
    """What runs in a process of a release."""
    memover.configure(url, prefix=prefix)
    profile = import_module(name).profile
    for _ in sys.stdin:
        before = profile.cache_info().loads
        for user_id in range(calls):
            assert profile(user_id).name == f"user {user_id}"
        print(profile.cache_info().loads - before, flush=True)


def deploy(new_name: str, url: str, calls: int) -> list[tuple[str, int]]:
    """One deploy: what each process loaded, step by step."""
    prefix = f"rolling-{secrets.token_hex(4)}"
    old, steps = Release("release_1", url, prefix, calls), []
    try:
        steps.append(("the old release, with an empty cache", old.serve()))
        new = Release(new_name, url, prefix, calls)
        try:
            steps.append(("the new release, as it comes up", new.serve()))
            steps.append(("the old release, still running", old.serve()))
            steps.append(("the new release, from then on", new.serve()))
        finally:
            new.stop()
    finally:
        old.stop()
    return steps


def main(url: str, calls: int) -> None:
    for title, name in (("without an upgrade", "release_2"), ("with an upgrade", "release_2_with_upgrade")):
        print(f"{title}, {calls} calls each:")
        for what, loads in deploy(name, url, calls):
            print(f"  {what:<38} {loads:>5} loads")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    if sys.argv[1:2] == ["--release"]:
        release(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
    else:
        main(
            sys.argv[1] if len(sys.argv) > 1 else "redis://localhost:6379/0",
            int(sys.argv[2]) if len(sys.argv) > 2 else 100,
        )
