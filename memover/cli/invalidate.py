"""`memover invalidate`: a namespace, a tag or one entry, from outside the application, after saying what it covers."""

from __future__ import annotations

import secrets
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from memover.cache import Cache
from memover.cli.census import KEY_VALUES, entries, marks_of, namespaces
from memover.cli.look import split_key
from memover.cli.project import CannotRun
from memover.cli.running import StoreContext, document, not_there, on_store, progress, step_option
from memover.cli.text import count_of, did_you_mean, visible
from memover.codec.envelope import HEAD_BYTES, KIND_AT, KIND_KEY_VALUE, MAGIC
from memover.keys.keyvalue import Name
from memover.keys.names import (
    check_namespace,
    coarse_key,
    entry_key,
    generation_key,
    lease_key,
    stripe_key,
    tag_key,
    token_prefixes,
)
from memover.stores.survey import HEAD_LIMIT_BYTES

if TYPE_CHECKING:
    from memover.cli.census import Version

__all__ = ["invalidate", "invalidate_namespace"]


@click.command("invalidate")
@click.argument("namespace", required=False)
@on_store
@click.option("--tag", help="Every result that carries this tag, of whichever function.")
@click.option("--key", help="One entry, by its key as stored.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what it covers, and do nothing.")
@step_option
def invalidate(
    context: StoreContext,
    namespace: str | None,
    form: str,
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
    facts: dict[str, Any] = {"namespace": namespace, "tag": tag, "key": key}
    if namespace is not None:
        what, covered = f"the namespace {visible(namespace)}", _of_namespace(context, namespace, step)
    elif tag is not None:
        what, covered = f"the tag {visible(tag)}", _of_tag(context, tag, step)
    else:
        assert key is not None
        what, covered = f"the entry {visible(key)}", _of_key(context, key)
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
        generation = _do(context, namespace, tag, key)
    if form == "json":
        document({**facts, "generation": generation, "dry_run": dry_run})
        return
    console = Console(soft_wrap=True, highlight=False)
    console.print(Text("would invalidate " if dry_run else "invalidated ", style="bold").append(covers, style="none"))
    if generation is not None:
        console.print(Text(f"generation {generation}", style="dim"))


def _do(context: StoreContext, namespace: str | None, tag: str | None, key: str | None) -> str | None:
    if namespace is not None:
        return invalidate_namespace(context, namespace)
    if tag is not None:
        with _cache(context) as cache:
            cache.invalidate_tags(tag)
    if key is not None:
        drop_entry(context, key)
    return None


def _cache(context: StoreContext) -> Cache:
    return Cache(context.url, prefix=context.prefix, socket_timeout=10, socket_connect_timeout=10)


def invalidate_namespace(context: StoreContext, namespace: str) -> str:
    """Moves a namespace to a new generation, `~kv` as `clear()` does; returns it. Raises `InvalidationFailed`."""
    with _cache(context) as cache:
        if namespace == KEY_VALUES:
            cache.clear()
            (generation,) = context.survey.tokens([generation_key(context.prefix, KEY_VALUES).encode()])
            return (generation or b"").decode()
        store: Any = cache._state.store
        if store.spread:
            store.sweeps = True  # nothing here says whether the application's generations stand in shards
        return str(cache.invalidate_namespace(namespace))


def drop_entry(context: StoreContext, key: str) -> None:
    """Removes one entry as the application would: with its lease, and what used it. Raises `StoreError`."""
    parts = split_key(key)
    assert parts is not None
    prefix, version, rest = parts
    (facts,) = context.survey.facts([key.encode()], HEAD_BYTES)
    namespace, _, text = rest.partition(":")
    head = b"" if facts is None else facts.head
    if len(head) > KIND_AT and head[KIND_AT] == KIND_KEY_VALUE:
        name = Name(key, ())
        context.survey.drop(name.entry, name.lease, (), secrets.token_hex(8))
        return
    # What an upgrade would make it from again goes first.
    blocks = () if context.lock is None else context.lock.blocks_of(namespace)
    for each in sorted({each for block in blocks if block.version == version for each in block.upgrades}):
        old = entry_key(prefix, each, namespace, text)
        context.survey.drop(old.encode(), lease_key(old).encode(), (), secrets.token_hex(8))
    along = (stripe_key(prefix, namespace, text).encode(), coarse_key(prefix).encode())
    context.survey.drop(key.encode(), lease_key(key).encode(), along, secrets.token_hex(8))


# -- what is covered -------------------------------------------------------------------------------------------------------


def _of_namespace(context: StoreContext, namespace: str, step: int) -> Counter[Version]:
    if namespace != KEY_VALUES:
        check_namespace(namespace)
    covered: Counter[Version] = Counter()
    others: set[str] = set()
    with progress("counting", context.survey.total()) as on_step:
        for found in entries(context.survey, context.prefix, step=step, on_step=on_step):
            for each in found:
                if each.namespace == namespace:
                    covered[each.version] += 1
                else:
                    others.add(each.namespace)
    if not covered:
        known = {*namespaces(context), *context.named_in_lock(), *context.removed_in_lock()}
        if namespace not in known:
            hint = did_you_mean(namespace, known | others) or "`memover ls` lists those there are."
            not_there(
                f"neither the store nor the lock knows a namespace {visible(namespace)!r} under the prefix "
                f"{context.prefix!r}: {hint}"
            )
    return covered


def _of_tag(context: StoreContext, tag: str, step: int) -> Counter[Version]:
    name = tag_key(context.prefix, tag).encode()
    covered: Counter[Version] = Counter()
    with progress("counting", context.survey.total()) as on_step:
        for found in entries(context.survey, context.prefix, step=step, head=HEAD_LIMIT_BYTES, on_step=on_step):
            for each in found:
                if name in marks_of(context.survey, each):
                    covered[each.version] += 1
    if not covered and context.survey.tokens([name]) == [None]:
        start = token_prefixes(context.prefix)[1]
        pages = context.survey.keys(start + b"*", step)
        there = [key[len(start) :].decode("utf-8", "backslashreplace") for page in pages for key in page.keys]
        hint = did_you_mean(tag, there)
        told = f"no entry under the prefix {context.prefix!r} carries the tag {visible(tag)!r}"
        not_there(f"{told}: {hint}" if hint else f"{told}.")
    return covered


def _of_key(context: StoreContext, key: str) -> Counter[Version]:
    parts = split_key(key)
    if parts is None:
        raise CannotRun(
            f"{visible(key)!r} is not the key of an entry: those are prefix:version:namespace:…, as `f.key(...)` gives them."
        )
    (facts,) = context.survey.facts([key.encode()], HEAD_BYTES)
    if facts is None:
        not_there(f"there is no entry under {visible(key)}.")
    if not facts.head.startswith(MAGIC):
        raise CannotRun(f"What is stored under {visible(key)} is not memover's; nothing was done.")
    return Counter({parts[1]: 1})
