"""`memover invalidate`: a namespace, a tag or one entry, from outside the application, after saying what it covers."""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from memover.cli.census import KEY_VALUES, entries, namespaces
from memover.cli.look import parts_of
from memover.cli.project import CannotRun
from memover.cli.running import Bar, Place, count_of, document, nearest, on_store, progress, visible
from memover.codec.envelope import HEAD_BYTES, read_header
from memover.errors import DamagedEntry
from memover.keys.keyvalue import Name
from memover.keys.names import check_namespace, coarse_key, entry_key, lease_key, stripe_key, tag_key
from memover.stores.survey import HEAD_LIMIT_BYTES

if TYPE_CHECKING:
    from collections import Counter

    from memover.cli.census import Entry, Version
    from memover.stores.survey import Survey

__all__ = ["invalidate", "invalidate_namespace", "known_namespaces"]


@click.command("invalidate")
@click.argument("namespace", required=False)
@on_store
@click.option("--tag", help="Every result that carries this tag, of whichever function.")
@click.option("--key", help="One entry, by its key as stored.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what it covers, and do nothing.")
@click.option("--step", type=click.IntRange(10, 100_000), default=1000, show_default=True, help="Keys a SCAN looks at.")
def invalidate(
    namespace: str | None,
    url: str | None,
    prefix: str | None,
    form: str,
    lockfile: str | None,
    tag: str | None,
    key: str | None,
    yes: bool,
    dry_run: bool,
    step: int,
) -> None:
    """Invalidate a namespace (all its versions), a tag, or one entry, in every process.

    It says what that covers and asks first. A namespace that neither the store nor the lock knows is refused with the nearest
    names, exit status 1.
    """
    if sum(each is not None for each in (namespace, tag, key)) != 1:
        raise CannotRun("Say one thing to invalidate: a NAMESPACE, --tag TAG or --key KEY.")
    place = Place.find(url, prefix, lockfile, "invalidate")
    facts: dict[str, Any] = {"namespace": namespace, "tag": tag, "key": key}
    if namespace is not None:
        what, covered = f"the namespace {visible(namespace)}", _of_namespace(place, namespace, step)
    elif tag is not None:
        what, covered = f"the tag {visible(tag)}", _of_tag(place, tag, step)
    else:
        assert key is not None
        what, covered = f"the entry {visible(key)}", _of_key(place, key)
    facts["entries"] = sum(covered.values())
    facts["versions"] = {str(version): covered[version] for version in sorted(covered, key=str)}
    versions = ", ".join(f"version {version}: {number:,}" for version, number in facts["versions"].items())
    covers = f"{what}: {count_of(facts['entries'], 'entry', 'entries')}" + (f" ({versions})" if versions else "")
    generation = None
    if not dry_run:
        # The question goes to stderr, so that stdout stays one document.
        if not yes and not click.confirm(f"Invalidate {covers}?", err=True):
            click.echo("memover: nothing was invalidated.", err=True)
            sys.exit(1)
        generation = _do(place, namespace, tag, key)
    if form == "json":
        document({**facts, "generation": generation, "dry_run": dry_run})
        return
    console = Console(soft_wrap=True, highlight=False)
    console.print(Text("would invalidate " if dry_run else "invalidated ", style="bold").append(covers, style="none"))
    if generation is not None:
        console.print(Text(f"generation {generation}", style="dim"))


def _do(place: Place, namespace: str | None, tag: str | None, key: str | None) -> str | None:
    if key is not None:
        drop_entry(place, key)
        return None
    if namespace is not None:
        return invalidate_namespace(place, namespace)
    from memover.cache import Cache

    with Cache(place.url, prefix=place.prefix, socket_timeout=10, socket_connect_timeout=10) as cache:
        cache.invalidate_tags(tag or "")
    return None


def invalidate_namespace(place: Place, namespace: str) -> str:
    """Move a namespace to a new generation, `~kv` as `clear()` does; returns it. Raises `InvalidationFailed`."""
    from memover.cache import Cache

    with Cache(place.url, prefix=place.prefix, socket_timeout=10, socket_connect_timeout=10) as cache:
        if namespace == KEY_VALUES:
            cache.clear()
            return (place.survey.tokens([f"{place.prefix}:gen:{KEY_VALUES}".encode()])[0] or b"").decode()
        store: Any = cache._state.store
        if store.spread:
            store.sweeps = True  # nothing here says whether the application's generations stand in shards
        return str(cache.invalidate_namespace(namespace))


def drop_entry(place: Place, key: str) -> None:
    """Remove one entry as the application would: with its lease, and what used it. Raises `StoreError`."""
    parts = parts_of(key)
    assert parts is not None
    prefix, version, rest = parts
    (facts,) = place.survey.facts([key.encode()], HEAD_BYTES)
    namespace, _, text = rest.partition(":")
    coarse = coarse_key(prefix).encode()
    if facts is not None and _is_key_value(facts.head):
        name = Name(key, ())
        place.survey.drop(name.entry, name.lease, (), secrets.token_hex(8))
        return
    # What an upgrade would make it from again goes first.
    blocks = place.lock.functions.items() if place.lock is not None else ()
    older = {
        each
        for name, block in blocks
        if name.partition(" ")[0] == namespace and block.version == version
        for each in block.upgrades
    }
    for each in sorted(older):
        old = entry_key(prefix, each, namespace, text)
        place.survey.drop(old.encode(), lease_key(old).encode(), (), secrets.token_hex(8))
    along = (stripe_key(prefix, namespace, text).encode(), coarse)
    place.survey.drop(key.encode(), lease_key(key).encode(), along, secrets.token_hex(8))


def _is_key_value(head: bytes) -> bool:
    from memover.codec.envelope import KIND_AT, KIND_KEY_VALUE

    return len(head) > KIND_AT and head[KIND_AT] == KIND_KEY_VALUE


# -- what is covered -------------------------------------------------------------------------------------------------------


def known_namespaces(place: Place) -> set[str]:
    """The namespaces that the store or the lock knows. A scan of all keys."""
    return namespaces(place) | set(place.named_in_lock()) | set(place.removed_in_lock())


def _of_namespace(place: Place, namespace: str, step: int) -> Counter[Version]:
    from collections import Counter

    if namespace != KEY_VALUES:
        check_namespace(namespace)
    covered: Counter[Version] = Counter()
    others: set[str] = set()
    with progress("counting", place.survey.total()) as bar:
        for found in entries(place.survey, place.prefix, step=step, on_step=bar.advance):
            for each in found:
                if each.namespace == namespace:
                    covered[each.version] += 1
                else:
                    others.add(each.namespace)
    if not covered:
        known = known_namespaces(place)
        if namespace not in known:
            near = nearest(namespace, known | others)
            hint = f"did you mean {', '.join(near)}?" if near else "`memover ls` lists those there are."
            click.echo(
                f"memover: neither the store nor the lock knows a namespace {visible(namespace)!r} under the prefix "
                f"{place.prefix!r}: {hint}",
                err=True,
            )
            sys.exit(1)
    return covered


def _of_tag(place: Place, tag: str, step: int) -> Counter[Version]:
    from collections import Counter

    name = tag_key(place.prefix, tag).encode()
    covered: Counter[Version] = Counter()
    with progress("counting", place.survey.total()) as bar:
        for marks, found in _with_marks(place.survey, place.prefix, step, bar):
            if name in marks:
                covered[found.version] += 1
    if not covered and place.survey.tokens([name]) == [None]:
        start = tag_key(place.prefix, "x")[:-1]
        there = [
            key[len(start) :].decode("utf-8", "backslashreplace")
            for page in place.survey.keys(f"{start}*".encode(), step)
            for key in page.keys
        ]
        near = nearest(tag, there)
        hint = f": did you mean {', '.join(near)}?" if near else "."
        click.echo(
            f"memover: no entry under the prefix {place.prefix!r} carries the tag {visible(tag)!r}{hint}", err=True
        )
        sys.exit(1)
    return covered


def _of_key(place: Place, key: str) -> Counter[Version]:
    from collections import Counter

    parts = parts_of(key)
    if parts is None:
        raise CannotRun(
            f"{visible(key)!r} is not the key of an entry: those are prefix:version:namespace:…, as `f.key(...)` gives them."
        )
    (facts,) = place.survey.facts([key.encode()], HEAD_BYTES)
    if facts is None:
        click.echo(f"memover: there is no entry under {visible(key)}.", err=True)
        sys.exit(1)
    from memover.codec.envelope import MAGIC

    if not facts.head.startswith(MAGIC):
        raise CannotRun(f"What is stored under {visible(key)} is not memover's; nothing was done.")
    return Counter({parts[1]: 1})


def _with_marks(survey: Survey, prefix: str, step: int, bar: Bar) -> Any:
    """Each entry with the names of the tokens in its header; a header that is longer than what was read is read again."""
    for found in entries(survey, prefix, step=step, head=HEAD_LIMIT_BYTES, on_step=bar.advance):
        for each in found:
            yield marks_of(survey, each), each


def marks_of(survey: Survey, entry: Entry) -> set[bytes]:
    """The names of the tokens in an entry's header; none for one that is damaged."""
    head = entry.facts.head
    for _ in range(2):
        try:
            header = read_header(head, entry.facts.key, whole=False)
        except DamagedEntry as error:
            if error.reason != "truncated" or len(head) < HEAD_LIMIT_BYTES:
                return set()
            head = survey.value(entry.facts.key) or b""
        else:
            return {name for name, _ in header.marks}
    return set()
