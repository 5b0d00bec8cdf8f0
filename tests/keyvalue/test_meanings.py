"""Every method means what Django's of that name means, on every store, called and awaited."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from freezegun import freeze_time

from memover import ConfigurationError, UnencodableValue


def test_a_value_that_was_set_is_got(kv: Any) -> None:
    """What was set comes back with value and type; None is a value; what was not set is the default."""
    for value in (
        1,
        -1,
        0,
        True,
        1.5,
        "text",
        b"bytes",
        None,
        [1, (2, {3})],
        {"a": dt.date(2020, 1, 2)},
        2**80,
        -(2**53),
    ):
        kv.set("k", value)
        got = kv.get("k", "absent")
        assert got == value and type(got) is type(value)
    assert kv.get("never") is None
    assert kv.get("never", "default") == "default"


def test_has_key_and_in_know_none_as_a_value(kv: Any) -> None:
    """`has_key` and `in` are true of a stored None and false of what is absent."""
    kv.set("none", None)
    assert kv.has_key("none") and "none" in kv
    assert not kv.has_key("absent") and "absent" not in kv


def test_add_stores_only_what_is_absent(kv: Any) -> None:
    """`add` says whether it stored, and never replaces a value, None included."""
    assert kv.add("k", None) is True
    assert kv.add("k", 2) is False
    assert kv.get("k", "absent") is None


def test_get_or_set_computes_what_is_absent(kv: Any) -> None:
    """`get_or_set` takes a value or a callable, stores None too, and leaves what is there."""
    assert kv.get_or_set("a", 1) == 1
    assert kv.get_or_set("a", lambda: 2) == 1
    assert kv.get_or_set("b", lambda: None) is None
    assert kv.get_or_set("b", lambda: 2) is None
    with pytest.raises(ZeroDivisionError):
        kv.get_or_set("c", lambda: 1 // 0)
    assert kv.get("c", "absent") == "absent"


def test_get_or_set_hands_on_what_it_stored(kv: Any) -> None:
    """The value under the key afterwards is the one that was returned, with the ttl that was asked for."""
    with freeze_time("2024-01-01") as clock:
        assert kv.get_or_set("k", lambda: [1], 10) == [1]
        clock.tick(9)
        assert kv.get("k") == [1]
        clock.tick(2)
        assert kv.get("k") is None


def test_delete_says_whether_there_was_something(kv: Any) -> None:
    """True for a live value only: not for one that is over, cleared, deleted or never was."""
    kv.set("k", 1)
    assert kv.delete("k") is True
    assert kv.delete("k") is False
    kv.set("k", 1)
    kv.clear()
    assert kv.delete("k") is False
    with freeze_time("2024-01-01") as clock:
        kv.set("k", 1, 10)
        clock.tick(11)
        assert kv.delete("k") is False


def test_many_at_once(kv: Any) -> None:
    """`get_many` has what is there, `set_many` answers an empty list, `delete_many` removes."""
    assert kv.set_many({"a": 1, "b": "two", "c": None}) == []
    assert kv.get_many(["a", "b", "c", "absent"]) == {"a": 1, "b": "two", "c": None}
    kv.delete_many(["a", "absent"])
    assert kv.get_many(["a", "b"]) == {"b": "two"}
    assert kv.get_many([]) == {}
    assert kv.set_many({}) == []
    kv.delete_many([])


def test_incr_and_decr_count(kv: Any) -> None:
    """They return the new value, take any delta, and go on exactly beyond what a double can count."""
    kv.set("n", 41)
    assert kv.incr("n") == 42
    assert kv.incr("n", 10) == 52
    assert kv.incr("n", -10) == 42
    assert kv.decr("n") == 41
    assert kv.decr("n", 41) == 0
    assert kv.decr("n", 1) == -1
    assert kv.incr("n", 2**53) == 2**53 - 1
    assert kv.incr("n") == 2**53
    assert kv.incr("n", 2**70) == 2**70 + 2**53
    assert kv.decr("n", 2**70) == 2**53
    assert kv.incr("n", -1) == 2**53 - 1
    assert kv.incr("n", -1) == 2**53 - 2
    assert kv.get("n") == 2**53 - 2


def test_incr_adds_to_other_numbers_too(kv: Any) -> None:
    """A float stays a float; what is no number is refused and stays as it was."""
    kv.set("x", 1.5)
    assert kv.incr("x") == 2.5
    assert kv.incr("x", 0.25) == 2.75
    for value in (None, "1", [1]):
        kv.set("x", value)
        with pytest.raises(TypeError, match="number"):
            kv.incr("x")
        assert kv.get("x", "absent") == value


def test_counting_from_nothing_is_an_error(kv: Any) -> None:
    """`incr`, `decr`, `incr_version`, `decr_version` raise ValueError, which says what to do, and store nothing."""
    for count in (kv.incr, kv.decr, kv.incr_version):
        with pytest.raises(ValueError, match="set"):
            count("absent")
    with pytest.raises(ValueError, match="set"):
        kv.decr_version("absent", version=2)
    assert "absent" not in kv


def test_incr_keeps_the_remaining_ttl(kv: Any) -> None:
    """A counter ends when it would have ended, however often it is counted."""
    with freeze_time("2024-01-01") as clock:
        kv.set("n", 1, 10)
        kv.set("x", 1.5, 10)
        clock.tick(6)
        assert kv.incr("n") == 2
        assert kv.incr("x") == 2.5
        clock.tick(3.5)
        assert kv.get("n") == 2
        clock.tick(1)
        assert kv.get("n") is None
        assert kv.get("x") is None
        with pytest.raises(ValueError, match="set"):
            kv.incr("n")


def test_incr_version_moves_a_value(kv: Any) -> None:
    """The value is gone under the old version and there under the new one, over what was there, whatever it is."""
    for value in (1, None, "data", [1, 2], b"x" * 10_000):
        kv.set("k", "in the way", version=3)
        kv.set("k", value, version=2)
        assert kv.incr_version("k", version=2) == 3
        assert kv.get("k", "absent", version=2) == "absent"
        assert kv.get("k", "absent", version=3) == value
        assert kv.decr_version("k", 2, version=3) == 1
        assert kv.get("k", "absent") == value


def test_incr_version_keeps_the_remaining_ttl(kv: Any) -> None:
    """A value that moved ends when it would have ended."""
    with freeze_time("2024-01-01") as clock:
        kv.set("k", 1, 10)
        clock.tick(6)
        assert kv.incr_version("k") == 2
        clock.tick(3.5)
        assert kv.get("k", version=2) == 1
        clock.tick(1)
        assert kv.get("k", version=2) is None


def test_a_version_stays_at_or_above_one(kv: Any) -> None:
    """`decr_version` below 1 and versions that are no positive int are refused, and nothing happens."""
    kv.set("k", 1)
    with pytest.raises(ConfigurationError):
        kv.decr_version("k")
    for version in (0, -1, True, "1", 1.0):
        with pytest.raises(ConfigurationError):
            kv.get("k", version=version)
    assert kv.get("k") == 1
    assert kv.incr_version("k", 0) == 1


def test_touch_gives_a_new_ttl(kv: Any) -> None:
    """`touch` prolongs, shortens, makes endless or ends, and says whether there was anything."""
    with freeze_time("2024-01-01") as clock:
        assert kv.touch("k", 10) is False
        kv.set("k", ["v"], 10)
        clock.tick(9)
        assert kv.touch("k", 10) is True
        clock.tick(9)
        assert kv.get("k") == ["v"]
        assert kv.touch("k", None) is True
        clock.tick(10**9)
        assert kv.get("k") == ["v"]
        assert kv.touch("k", dt.timedelta(seconds=1)) is True
        clock.tick(1.5)
        assert kv.touch("k", 10) is False
        kv.set("k", 1)
        assert kv.touch("k", 0) is True
        assert kv.get("k") is None


def test_a_ttl_of_nothing_is_nothing(kv: Any) -> None:
    """0 and less store nothing and remove what is there; None is for ever; the default is the cache's."""
    with freeze_time("2024-01-01") as clock:
        for ttl in (0, -1, dt.timedelta(0)):
            kv.set("k", 1)
            kv.set("k", 2, ttl)
            assert kv.get("k") is None
            assert kv.add("k", 3, ttl) is True
            assert kv.get("k") is None
            assert kv.get_or_set("k", 4, ttl) == 4
            assert kv.get("k") is None
            kv.set_many({"k": 5}, ttl)
            assert kv.get("k") is None
        kv.set("ever", 1, None)
        kv.set("usual", 1)
        kv.set("text", 1, "1h")
        clock.tick(299)
        assert kv.get("usual") == 1
        clock.tick(2)
        assert kv.get("usual") is None
        assert kv.get("text") == 1
        clock.tick(10**9)
        assert kv.get("ever") == 1


def test_clear_removes_all_versions(kv: Any) -> None:
    """After `clear` nothing is there under any version, and the keys can be used anew."""
    kv.set("k", 1)
    kv.set("k", 2, version=2)
    kv.clear()
    assert kv.get("k") is None and kv.get("k", version=2) is None
    assert kv.add("k", 3) is True
    assert kv.get("k") == 3
    kv.clear()
    with pytest.raises(ValueError, match="set"):
        kv.incr("k")


def test_what_cannot_be_kept_is_refused(kv: Any) -> None:
    """`set`, `add`, `set_many`, `get_or_set` raise `UnencodableValue`, and what was there stays."""
    kv.set("k", 1)
    for store in (lambda: kv.set("k", object()), lambda: kv.set_many({"k": object()})):
        with pytest.raises(UnencodableValue):
            store()
    assert kv.get("k") == 1
    for store in (lambda: kv.add("new", object()), lambda: kv.get_or_set("new", object)):
        with pytest.raises(UnencodableValue):
            store()
    assert "new" not in kv


def test_a_caller_owns_what_it_gets(kv: Any) -> None:
    """Changing a value that was set or got changes nobody else's."""
    value = [1]
    kv.set("k", value)
    value.append(2)
    kv.get("k").append(3)
    assert kv.get("k") == [1]
    kv.get_or_set("l", lambda: [1]).append(2)
    assert kv.get("l") == [1]


def test_any_text_is_a_key(kv: Any) -> None:
    """Blanks, colons, control characters, other scripts, long and empty text: each is a key of its own."""
    keys = [
        "",
        " ",
        "a b",
        "a:b",
        "a:b:c",
        "\n\0",
        "ключ",
        "🗝",
        "k" * 5000,
        "gen:x",
        "tag:x",
        "{x}",
        "a{x}b",
        "a{b",
        "%s",
    ]
    for number, key in enumerate(keys):
        kv.set(key, number)
    assert kv.get_many(keys) == {key: number for number, key in enumerate(keys)}
    for key in keys:
        assert kv.incr(key, 100) >= 100
        assert kv.incr_version(key) == 2
        assert kv.get_or_set(key, lambda: "computed") == "computed"
        assert kv.touch(key, 10) and kv.delete(key)


def test_a_key_is_text(kv: Any) -> None:
    """What is no str, half a character, or too long to be stored is refused with what to do."""
    for key in (7, None, b"k", "\ud800", "k" * 70_000):
        with pytest.raises(ConfigurationError):
            kv.set(key, 1)
