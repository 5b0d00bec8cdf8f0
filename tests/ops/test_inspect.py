"""`memover inspect` says of one entry what a call would say, and opens nothing that came from outside."""

from __future__ import annotations

import dataclasses
import enum
import time
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memover import Cache
from memover.cli.look import look
from memover.cli.project import Project as Settings
from memover.cli.running import StoreContext
from memover.codec.envelope import read_header, rewritten, seal
from memover.stores.survey import open_survey

from .conftest import Project, fill

if TYPE_CHECKING:
    import redis


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Item:
    name: str
    price: float
    since: date
    colour: Colour


def place(url: str, prefix: str) -> StoreContext:
    return StoreContext(url, prefix, open_survey(url), Settings.find(), None)


def stored(url: str, prefix: str, function: Any, **options: Any) -> str:
    """The key of an entry as the application would store it."""
    with Cache(url, prefix=prefix) as cache:
        cached: Any = cache.versioned(namespace="things", **options)(function)
        cached()
        key: str = cached.key()
        return key


def test_a_fresh_entry(project: Project) -> None:
    """Header, tokens with what they are now, and the value as text."""
    key = stored(project.url, project.prefix, lambda: {"a": [1, 2.5, None]}, ttl=60, tags=("red",))
    found = project.facts("inspect", key)
    assert list(found) == ["key", "namespace", "version", "verdict", "why", "header", "tokens", "value"]
    assert (found["key"], found["namespace"], found["version"], found["verdict"]) == (key, "things", 1, "fresh")
    assert found["value"] == "{'a': [1, 2.5, None]}"
    assert [each["name"] for each in found["tokens"]] == [f"{project.prefix}:gen:things", f"{project.prefix}:tag:red"]
    assert all(each["holds"] and each["stored"] == each["current"] for each in found["tokens"])
    assert found["header"]["codec"] == "mv1"
    assert 50 < found["header"]["expires_in"] <= 60


def test_classes_are_shown_and_not_imported(project: Project) -> None:
    """By the name and the fields that are stored."""
    item = Item("x", 1.5, date(2026, 1, 2), Colour.RED)

    def one() -> Item:
        return item

    told = project.facts("inspect", stored(project.url, project.prefix, one))["value"]
    assert told == "Item(name='x', price=1.5, since=datetime.date(2026, 1, 2), colour=Colour.RED)"


def test_invalidated_says_by_what(project: Project) -> None:
    """The token that moved: the namespace's, or a tag's."""
    key = stored(project.url, project.prefix, lambda: 1, tags=("red",))
    with Cache(project.url, prefix=project.prefix) as cache:
        cache.invalidate_tags("red")
    found = project.facts("inspect", key)
    assert found["verdict"] == "invalidated"
    assert f"{project.prefix}:tag:red" in found["why"]
    assert [each["holds"] for each in found["tokens"]] == [True, False]
    with Cache(project.url, prefix=project.prefix) as cache:
        cache.invalidate_namespace("things")
    assert "another generation" in project.facts("inspect", key)["why"]


def test_stale_and_expired(project: Project, redis_client: redis.Redis) -> None:
    """By the instants in the header, on this machine's clock."""
    key = stored(project.url, project.prefix, lambda: 1, ttl=100, stale_if_error=1000)
    raw = redis_client.get(key)
    assert raw is not None
    header = read_header(raw, key.encode())
    now = time.time()

    def with_instants(fresh_until: float, usable_until: float) -> bytes:
        return seal(
            raw[header.payload_at :],
            key=header.key,
            generation=header.generation,
            codec=header.codec,
            created_at=now - 200,
            load_time=0.1,
            fresh_until=fresh_until,
            usable_until=usable_until,
            fingerprint=header.fingerprint,
        )

    redis_client.set(key, with_instants(now - 50, now + 500))
    assert project.facts("inspect", key)["verdict"] == "stale"
    redis_client.set(key, with_instants(now - 50, now - 10))
    assert project.facts("inspect", key)["verdict"] == "expired"


def test_a_soft_invalidation_is_stale(project: Project) -> None:
    """As a call would be served it while a new one is loaded."""
    with Cache(project.url, prefix=project.prefix) as cache:
        cached: Any = cache.versioned(namespace="things", stale_while_revalidate=60)(lambda: 1)
        cached()
        cached.invalidate_all(soft=True)
        key = cached.key()
    found = project.facts("inspect", key)
    assert (found["verdict"], "softly" in found["why"]) == ("stale", True)


def test_another_shape_than_the_lock_has(project: Project, redis_client: redis.Redis) -> None:
    """A class that changed without a bump."""
    project.lock()
    keys = fill(project.url, project.prefix, 2)
    key = keys["profiles", 2][0]
    found = project.facts("inspect", key)
    assert found["verdict"] == "other-shape"
    assert "memover.lock" in found["why"]


@pytest.mark.parametrize("place_of_damage", ["header", "payload", "cut", "foreign", "other key"])
def test_damage_is_named(project: Project, redis_client: redis.Redis, place_of_damage: str) -> None:
    """Whatever is wrong with the bytes, exit status 0 and the reason."""
    key = stored(project.url, project.prefix, lambda: "some text")
    raw = redis_client.get(key)
    assert raw is not None
    broken = {
        "header": raw[:20] + b"\xff" + raw[21:],
        "payload": raw[:-1] + b"\x00",
        "cut": raw[:-3],
        "foreign": b"hello",
        "other key": rewritten(raw, read_header(raw, key.encode()), key=b"another"),
    }[place_of_damage]
    redis_client.set(key, broken)
    found = project.facts("inspect", key)
    assert found["verdict"] == "damaged"
    assert found["why"]


def test_key_values_are_shown_too(project: Project) -> None:
    """Numbers as they are, others as text."""
    with Cache(project.url, prefix=project.prefix, version=4) as cache:
        cache.set("n", 12345)
        cache.set("t", {"a": "b"})
    found = project.facts("inspect", f"{project.prefix}:4:n")
    assert (found["namespace"], found["version"], found["value"], found["verdict"]) == ("~kv", 4, "12345", "fresh")
    assert project.facts("inspect", f"{project.prefix}:4:t")["value"] == "{'a': 'b'}"


def test_a_call_is_found_by_its_arguments(project: Project) -> None:
    """With the lock alone, positional or by name; with --import, defaults included."""
    project.lock()
    script = "import shop; shop.profile(7); shop.profile(8, 'us'); shop.price('pen')"
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", script], cwd=project.root, env=project.environment(), check=True)
    assert project.facts("inspect", "profiles", "7", '"eu"')["value"] == "{'id': 7}"
    assert project.facts("inspect", "profiles", "user_id=8", "region=us")["value"] == "{'id': 8}"
    assert project.facts("inspect", "prices", "pen", "EUR")["value"] == "7"
    assert project.facts("inspect", "--import", "shop:profile", "profiles", "7")["value"] == "{'id': 7}"
    assert "Give every argument" in project.run("inspect", "profiles", "7", status=2).stderr
    assert "no entry" in project.run("inspect", "profiles", "9", "eu", status=1).stderr
    assert "did you mean profiles?" in project.run("inspect", "profilez", "9", status=1).stderr


def test_without_a_lock_it_says_what_it_needs(project: Project) -> None:
    """A key, the lock, or --import."""
    told = project.run("inspect", "profiles", "7", status=2).stderr
    assert "memover lock" in told
    assert "--import" in told


def test_a_payload_is_never_run(project: Project, redis_client: redis.Redis) -> None:
    """Neither a signed pickle nor another codec's bytes are opened."""
    import os
    import pickle

    class Bomb:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {project.root}/boom",)

    key = stored(project.url, project.prefix, lambda: 1)
    raw = redis_client.get(key)
    assert raw is not None
    header = read_header(raw, key.encode())
    redis_client.set(
        key, rewritten(raw, header, payload=pickle.dumps(Bomb()), codec="memover.codec.pickle.PickleCodec")
    )
    assert "not opened here" in project.facts("inspect", key)["value"]
    assert not (project.root / "boom").exists()


def test_nothing_stored_can_write_to_the_terminal(project: Project) -> None:
    """Escape sequences in keys and values are shown as text."""
    with Cache(project.url, prefix=project.prefix) as cache:
        cache.set("evil\x1b]0;title\x07", "\x1b[31mred\u202e")
    told = project.run("inspect", f"{project.prefix}:1:evil\x1b]0;title\x07").stdout
    assert "\x1b" not in told and "\x07" not in told and "\u202e" not in told
    assert "\\x1b[31m" in told


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=200), marked=st.booleans())
def test_any_payload_is_text_or_damaged(
    redis_url: str, redis_client: redis.Redis, prefix: str, payload: bytes, marked: bool
) -> None:
    """Hostile bytes with right checks: an answer, never an exception."""
    key = f"{prefix}:1:things:{'0' * 32}"
    content = b"\xc1\x00" + payload if marked else payload
    raw = seal(
        content,
        key=key.encode(),
        generation=b"1-0123456789abcdef",
        codec="mv1",
        created_at=1.0,
        load_time=0.0,
        fresh_until=2.0,
        usable_until=3.0,
    )
    redis_client.set(key, raw)
    here = place(redis_url, prefix)
    found = look(here, key)
    here.survey.close()
    assert found is not None
    assert found.verdict in ("damaged", "invalidated")
