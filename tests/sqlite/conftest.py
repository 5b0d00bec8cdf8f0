"""A store on a file of the test's own, asked directly: `ask(store.acquire(...))`."""

from __future__ import annotations

import secrets
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memover.codec.envelope import KIND_VALUE, Header, read_header, seal
from memover.engine.store import Request, StoredEntry
from memover.model import Key
from memover.runtime.run import run
from memover.stores.sqlite.limits import Limits
from memover.stores.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GENERATION = b"p:gen:ns"


def check(path: str) -> str:
    """What SQLite finds wrong with a file: "ok" where nothing is."""
    connection = sqlite3.connect(path)
    try:
        answer: str = connection.execute("PRAGMA integrity_check").fetchall()[0][0]
        return answer
    finally:
        connection.close()


def key_of(name: str, *more: bytes) -> Key:
    """The key of a call under the test's generation and further tokens."""
    return Key(f"p:1:ns:{name}", (GENERATION, *more))


def entry_bytes(key: Key, payload: bytes, generation: bytes = b"", kind: int = KIND_VALUE) -> bytes:
    """A sealed entry that is fresh for an hour."""
    now = time.time()
    return seal(
        payload,
        key=key.entry,
        generation=generation,
        codec="raw",
        created_at=now,
        load_time=0.0,
        fresh_until=now + 3600,
        usable_until=now + 3600,
        kind=kind,
    )


def header_of(raw: bytes, key: Key) -> Header:
    return read_header(raw, key.entry)


def nonce() -> str:
    return secrets.token_hex(8)


def keep(store: SqliteStore, key: Key, payload: bytes, expire_ms: int = 0, names: tuple[bytes, ...] = ()) -> bytes:
    """What a load does: take the lease, store the entry under the tokens captured; returns the entry's bytes."""
    token = nonce()
    granted = run(store.acquire(Request(key, token, 10_000, (), (0,) * key.required)))
    assert granted.ours
    generation = granted.seen.tokens[0]
    assert generation is not None
    raw = entry_bytes(key, payload, generation)
    assert run(store.store(StoredEntry(key, token, raw, expire_ms, header_of(raw, key), names=names)))
    return raw


def valid(store: SqliteStore, key: Key) -> bytes | None:
    """The entry, if it carries the generation that is current."""
    seen = store.fetch(key)
    if seen.raw is None or seen.tokens[0] is None:
        return None
    return seen.raw if header_of(seen.raw, key).generation == seen.tokens[0] else None


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


@pytest.fixture
def make(path: str) -> Iterator[Callable[..., SqliteStore]]:
    """`make(max_bytes=...)`: a store on the test's file, patient with a busy machine."""
    made: list[SqliteStore] = []

    def make(at: str = path, **limits: Any) -> SqliteStore:
        made.append(SqliteStore(at, Limits(**{"lock_timeout": 10.0, **limits})))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make: Callable[..., SqliteStore]) -> SqliteStore:
    return make()


class Child:
    """Another process, told line by line what to do; `say` waits for its answer."""

    def __init__(self, program: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.hear()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass  # what was still to be said


@pytest.fixture
def child() -> Iterator[Callable[..., Child]]:
    """`child(program, *arguments)`: a process that ends with the test."""
    made: list[Child] = []

    def start(program: str, *arguments: str) -> Child:
        made.append(Child(program, *arguments))
        return made[-1]

    yield start
    for each in made:
        each.close()
