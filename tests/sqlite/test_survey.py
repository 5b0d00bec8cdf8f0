"""The survey of a file: what the command line and the page see of it."""

from __future__ import annotations

import os
import random
from functools import partialmethod
from typing import TYPE_CHECKING

import pytest

from memover.engine.store import Request
from memover.runtime.run import run
from memover.stores.sqlite.limits import Limits
from memover.stores.survey import NotBegun, open_survey, remove_prefix, survey_of
from tests.sqlite.conftest import GENERATION, keep, key_of, nonce, valid

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.stores.sqlite.store import SqliteStore
    from memover.stores.survey import Survey


@pytest.fixture(params=["over", "open"])
def survey(request: pytest.FixtureRequest, store: SqliteStore) -> Survey:
    """Of a store there is, and of a URL."""
    return survey_of(store) if request.param == "over" else open_survey(f"sqlite:///{store.path}")


def keys(survey: Survey, pattern: bytes, step: int = 1000) -> list[bytes]:
    return sorted(key for page in survey.keys(pattern, step) for key in page.keys)


def test_keys_are_found_page_by_page(store: SqliteStore, survey: Survey) -> None:
    """Entries, tokens and leases, by glob; each once, with as little looked at in a page as was asked."""
    for number in range(25):
        keep(store, key_of(f"x{number}"), b"v")
    run(store.acquire(Request(key_of("held"), nonce(), 60_000, (), (0,))))
    assert keys(survey, b"p:1:ns:*", 10) == sorted(key_of(f"x{number}").entry for number in range(25))
    assert keys(survey, b"p:1:ns:x1?") == sorted(key_of(f"x1{number}").entry for number in range(10))
    assert keys(survey, b"p:1:ns:x[12]") == [key_of("x1").entry, key_of("x2").entry]
    assert keys(survey, b"p:gen:*") == [GENERATION]
    assert keys(survey, b"{*}:lease") == [key_of("held").lease]
    assert keys(survey, b"p:1:ns:x\\1") == [key_of("x1").entry]
    assert all(page.looked_at <= 10 for page in survey.keys(b"*", 10))
    assert survey.total() >= 27


def test_facts_values_and_tokens(store: SqliteStore, survey: Survey) -> None:
    """Size, expiry and head of whatever is there, None for what is not; looking changes nothing."""
    raw = keep(store, key_of("a"), b"v" * 100, 60_000)
    long = keep(store, key_of("long"), bytes(300_000))
    run(store.acquire(Request(key_of("held"), nonce(), 60_000, (), (0,))))
    facts = survey.facts([key_of("a").entry, key_of("long").entry, GENERATION, key_of("held").lease, b"none"], 64)
    entry, longer, token, lease, none = facts
    assert entry is not None and longer is not None and token is not None and lease is not None and none is None
    assert entry.head == raw[:64] and len(raw) < entry.size < len(raw) + 300
    assert entry.expires_ms is not None and 0 < entry.expires_ms <= 60_000
    assert longer.size > 300_000 and longer.expires_ms is None
    assert token.expires_ms is None and token.head == survey.tokens([GENERATION])[0]
    assert lease.head.startswith(b"L ")
    assert survey.value(key_of("long").entry) == long
    assert survey.value(GENERATION) == token.head
    assert survey.value(b"none") is None
    assert survey.tokens([b"none", GENERATION]) == [None, token.head]


def test_removing_putting_and_dropping(store: SqliteStore, survey: Survey) -> None:
    """`unlink` says what was there, a report is kept for its time, `drop` is an invalidation of one call."""
    keep(store, key_of("a"), b"v", names=())
    keep(store, key_of("b"), b"v")
    assert survey.unlink([key_of("a").entry, b"none"]) == [True, False]
    assert valid(store, key_of("a")) is None
    survey.put(b"p:report:x", b"numbers", 60_000)
    assert survey.value(b"p:report:x") == survey.tokens([b"p:report:x"])[0] == b"numbers"
    run(store.ensure((b"p:gen:@all",), (0,), nonce()))
    (before,) = survey.tokens([b"p:gen:@all"])
    survey.drop(key_of("b").entry, key_of("b").lease, (b"p:gen:@all", b"p:gen:none"), nonce())
    assert valid(store, key_of("b")) is None
    (after,) = survey.tokens([b"p:gen:@all"])
    assert after != before
    assert survey.tokens([b"p:gen:none"]) == [None]


def test_the_file_describes_itself(store: SqliteStore, survey: Survey) -> None:
    """One server, its room, and its bound where that is known; rights of this user; a read's time."""
    keep(store, key_of("a"), b"v")
    (server,) = survey.servers()
    assert (server.product, server.address) == ("SQLite", f"sqlite:///{store.path}")
    assert server.memory_used and server.memory_used < 200_000
    assert server.memory_limit == (1 << 30 if survey._store is store else None)  # type: ignore[attr-defined]
    assert {right.name: right.allowed for right in survey.rights("p")} == {"read": True, "write": True}
    times = survey.latency(3)
    assert len(times) == 3 and all(0 < seconds < 1 for seconds in times)
    survey.close()


def test_a_survey_of_a_url_makes_no_room(
    make: Callable[..., SqliteStore], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `memover gc` removes is what it names: how much the file may take is for the processes that store in it to say."""
    store = make(max_bytes=64 << 20)
    names = [f"n{number}" for number in range(300)]
    for name in names:
        keep(store, key_of(name), random.randbytes(10_000))
    monkeypatch.setattr(Limits, "__init__", partialmethod(Limits.__init__, max_bytes=1 << 20))
    survey = open_survey(f"sqlite:///{path}")
    assert survey.unlink([key_of(name).entry for name in names[:100]]) == [True] * 100
    survey.put(b"p:report:1", random.randbytes(100_000), 60_000)
    survey.close()
    assert [name for name in names if valid(store, key_of(name)) is not None] == names[100:]


def test_a_survey_of_a_url_begins_no_file(path: str) -> None:
    """Looking changes nothing: neither the file is made, nor its directory, nor anything beside it."""
    survey = open_survey(f"sqlite:///{path}-directory/store.db")
    for look in (
        survey.total,
        survey.servers,
        lambda: list(survey.keys(b"*")),
        lambda: survey.facts([b"p:1:ns:a"]),
        lambda: survey.value(b"p:1:ns:a"),
        lambda: survey.tokens([GENERATION]),
        lambda: survey.latency(1),
        lambda: survey.unlink([b"p:1:ns:a"]),
        lambda: survey.put(b"p:report:1", b"x", 1000),
        lambda: survey.drop(b"p:1:ns:a", b"{p:1:ns:a}:lease", (), nonce()),
    ):
        with pytest.raises(NotBegun, match="there is no such file"):
            look()
    remove_prefix(survey, "p")
    survey.close()
    assert os.listdir(os.path.dirname(path)) == []
