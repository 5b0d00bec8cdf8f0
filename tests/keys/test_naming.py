"""Names in the store: each key parses one way only."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memover.errors import ConfigurationError
from memover.keys.names import (
    check_namespace,
    check_prefix,
    check_version,
    entry_key,
    escape,
    generation_key,
    lease_key,
    tag_key,
)

LETTERS = "abcXYZ019_.-"
prefixes = st.text(LETTERS, min_size=1, max_size=8)
namespaces = st.text(LETTERS + "/", min_size=1, max_size=8)
versions = st.integers(1, 2**63 - 1)
texts = st.text("abc:09%~/gent", min_size=1, max_size=12)


def test_keys_are_spelled_as_documented() -> None:
    """The texts of entry, generation, tag and lease keys."""
    entry = entry_key("shop", 2, "profiles", "abc")
    assert entry == "shop:2:profiles:abc"
    assert lease_key(entry) == "{shop:2:profiles:abc}:lease"
    assert generation_key("shop", "profiles") == "shop:gen:profiles"
    assert tag_key("shop", "user:7") == "shop:tag:user:7"


def parse(key: str) -> tuple[Any, ...]:
    """The documented reading of a key."""
    lease = re.fullmatch(r"\{(.*)\}:lease", key)
    if lease:
        return ("lease", *parse(lease[1]))
    prefix, second, rest = key.split(":", 2)
    if second in ("gen", "tag"):
        return (second, prefix, rest)
    namespace, text = rest.split(":", 1)
    return ("entry", prefix, int(second), namespace, text)


@given(prefixes, versions, namespaces, texts)
def test_every_key_parses_one_way_only(prefix: str, version: int, namespace: str, text: str) -> None:
    """What was put into a key is what is read from it."""
    check_prefix(prefix), check_version(version), check_namespace(namespace)
    entry = entry_key(prefix, version, namespace, text)
    assert parse(entry) == ("entry", prefix, version, namespace, text)
    assert parse(lease_key(entry)) == ("lease", "entry", prefix, version, namespace, text)
    assert parse(generation_key(prefix, namespace)) == ("gen", prefix, namespace)
    assert parse(tag_key(prefix, text)) == ("tag", prefix, escape(text))


@given(st.text(st.characters()), st.text(st.characters()), st.sampled_from(["", ":", ":-"]))
def test_escaping_keeps_different_texts_different(a: str, b: str, also: str) -> None:
    """Escaped text is one line of printable ASCII without braces, and is injective."""
    assert (escape(a, also) == escape(b, also)) == (a == b)
    assert re.fullmatch(r"[!-~]*", escape(a, also))
    assert not set(escape(a, also)) & set("{}~" + also)


@pytest.mark.parametrize(
    ("tag", "key"),
    [
        ("user:7", "p:tag:user:7"),
        ("a b\n", "p:tag:a%20b%0A"),
        ("{x}", "p:tag:%7Bx%7D"),
        ("50%", "p:tag:50%25"),
        ("~", "p:tag:%7E"),
        ("é", "p:tag:%C3%A9"),
        ("\ud800", "p:tag:%ED%A0%80"),
    ],
)
def test_any_text_can_be_a_tag(tag: str, key: str) -> None:
    """Braces, spaces, control characters, other scripts and lone surrogates are percent-encoded."""
    assert tag_key("p", tag) == key


def test_a_long_tag_is_a_marked_digest() -> None:
    """Over 200 characters the key holds a digest that no short tag can spell."""
    keys = {tag_key("p", "x" * 200), tag_key("p", "x" * 201), tag_key("p", "x" * 200 + "y")}
    assert len(keys) == 3
    digest = tag_key("p", "x" * 201)
    assert re.fullmatch(r"p:tag:~h[0-9a-f]{32}", digest)
    assert tag_key("p", digest.removeprefix("p:tag:")) != digest


@pytest.mark.parametrize("tag", ["", 7, b"user", None])
def test_what_is_no_tag_is_refused(tag: Any) -> None:
    """A tag is a text and not empty."""
    with pytest.raises(ConfigurationError, match="tag must"):
        tag_key("p", tag)


@pytest.mark.parametrize("text", ["shop", "my.app_dev-2", "A", "0", "x" * 64])
def test_a_prefix_is_letters_digits_and_marks(text: str) -> None:
    """Letters, digits, `_ . -`, at most 64."""
    assert check_prefix(text) == check_namespace(text) == text


@pytest.mark.parametrize("text", ["", "a:b", "a b", "é", "{a}", "a\n", "\u0661", "x" * 201, None, b"a", 1, "a/b"])
def test_other_prefixes_are_refused(text: Any) -> None:
    """Anything else is refused with what to write."""
    with pytest.raises(ConfigurationError, match="prefix"):
        check_prefix(text)


@pytest.mark.parametrize("text", ["a/b", "shop.views/list", "x" * 200])
def test_a_namespace_may_have_slashes(text: str) -> None:
    """Namespaces add the slash, and may be longer."""
    assert check_namespace(text) == text


@pytest.mark.parametrize("text", ["", "a:b", "a b", "a\n", "x" * 201, None, "ß"])
def test_other_namespaces_are_refused(text: Any) -> None:
    """Anything else is refused with what to write."""
    with pytest.raises(ConfigurationError, match="namespace"):
        check_namespace(text)


@pytest.mark.parametrize("version", [True, 0, -1, 1.0, "1", None, 2**63])
def test_a_version_is_a_positive_int(version: Any) -> None:
    """No bool, no zero, no text."""
    with pytest.raises(ConfigurationError, match="version"):
        check_version(version)
    assert check_version(1) == 1


def test_kinds_of_keys_do_not_meet() -> None:
    """Entry, generation, tag and lease keys differ even where their parts are alike."""
    entries = [
        entry_key(p, v, n, t) for p, v, n, t in itertools.product(["a", "gen"], [1, 2], ["tag", "1"], ["x", "1:x"])
    ]
    leases = [lease_key(entry) for entry in entries]
    marks = [make(p, n) for make in (generation_key, tag_key) for p in ("a", "gen") for n in ("tag", "1")]
    everything = entries + leases + marks
    assert len(set(everything)) == len(everything)
