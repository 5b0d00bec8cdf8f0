"""`memover gc`: entries of versions that nobody reads any more."""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from memover.cache import Cache
from memover.cli.project import CannotRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memover.cli.project import Project
    from memover.schema.lock import Lock

__all__ = ["collect", "unwanted_by"]

_ANSWER_SECONDS = 10.0


def unwanted_by(lock: Lock, prefix: str) -> Callable[[bytes], bool]:
    """Whether a key is that of an entry whose version is over: lower than the lock's, and no upgrade reads from it."""
    entry = re.compile(rb"%b:([1-9][0-9]*)(?:~[0-9a-f]{8})?:([^:]+):[^:]" % re.escape(prefix).encode())
    ends = {name.partition(" ")[0]: block.version for name, block in lock.functions.items()}
    kept = {(name.partition(" ")[0], version) for name, block in lock.functions.items() for version in block.upgrades}
    ends.update({name: version + 1 for name, version in lock.removed.items() if name not in ends})
    # Two functions that share a namespace on different caches: which of them is here, the key does not say.
    for name, block in lock.functions.items():
        ends[name.partition(" ")[0]] = min(ends[name.partition(" ")[0]], block.version)

    def unwanted(key: bytes) -> bool:
        hit = entry.match(key)
        if hit is None:
            return False
        namespace, version = hit[2].decode("latin-1"), int(hit[1])
        return version < ends.get(namespace, 0) and (namespace, version) not in kept

    return unwanted


def collect(project: Project, url: str | None, prefix: str, *, dry_run: bool, step: int, pause: float) -> Iterator[str]:
    """Remove them, with a progress bar on stderr, and say what came free, a line for each version."""
    lock = project.lock()
    if lock is None:
        raise CannotRun(f"There is no {project.lockfile} in {project.root}: write it with `memover lock`.")
    if not url or url.startswith("memory"):
        raise CannotRun("Say where: memover gc --url redis://host:6379/0, or set MEMOVER_URL.")
    with Cache(url, prefix=prefix, socket_timeout=_ANSWER_SECONDS, socket_connect_timeout=_ANSWER_SECONDS) as cache:
        from memover.stores.redis.scan import keys_in_all, sweep

        store: Any = cache._state.store
        if not hasattr(store, "visit"):
            raise CannotRun(f"{cache.address} is no Redis: only there old entries stay behind.")
        count: Counter[tuple[str, int]] = Counter()
        size: Counter[tuple[str, int]] = Counter()
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        total_keys = max(1, keys_in_all(store))
        with bar:
            task = bar.add_task("looking" if dry_run else "removing", total=total_keys)
            for swept in sweep(store, prefix, unwanted_by(lock, prefix), step=step, remove=not dry_run):
                for key, taken in swept.entries:
                    _, version, namespace, _ = key.decode("latin-1").split(":", 3)
                    declared = int(version.partition("~")[0])
                    count[namespace, declared] += 1
                    size[namespace, declared] += taken
                bar.advance(task, swept.looked_at)
                if pause:
                    time.sleep(pause)
    for place in sorted(count):
        yield f"{place[0]} version {place[1]}: {_entries(count[place])}, {decimal(size[place])}"
    total, free = sum(count.values()), sum(size.values())
    done = "would come free" if dry_run else "came free"
    yield f"{_entries(total)}, {free} bytes ({decimal(free)}) {done}"


def _entries(number: int) -> str:
    return f"{number} entr{'y' if number == 1 else 'ies'}"
