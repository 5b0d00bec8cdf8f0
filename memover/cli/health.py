"""What `memover doctor` and the page check of a running cache, and what to do about what is not in order. Nothing is changed."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from memover.cli.census import count
from memover.cli.reports import Watcher
from memover.cli.running import StoreContext, progress
from memover.cli.text import count_of, size_of, visible
from memover.errors import StoreError
from memover.keys.names import token_prefixes
from memover.stores.survey import LEAST_RECENTLY_USED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from memover.cli.census import Row
    from memover.stores.survey import Server

__all__ = ["MARKS", "Check", "examine"]

MARKS = {"ok": "✓", "warn": "!", "fail": "✗"}
"""A sign for each status of a check."""

_READS = 200
_SLOW_P50_SECONDS = 0.005
_SLOW_P99_SECONDS = 0.05
_BUDGET_SECONDS = 0.25
"""The default of socket_timeout: an answer that takes longer counts as none."""
_CLOCK_WARN_SECONDS = 1.0
_CLOCK_FAIL_SECONDS = 30.0
_NEARLY_FULL = 0.8
_TAGS_WARN = 10_000
_OLDEST = (6, 0)
_NAMED = 5


class Check(NamedTuple):
    """One check: `status` is "ok", "warn" or "fail"; `value` what was found; `advice` what to do, "" when nothing."""

    name: str
    status: str
    value: str
    advice: str = ""


def examine(context: StoreContext, *, step: int = 1000) -> list[Check]:
    """Every check, in order. A store that does not answer is one failed check, and the end of them."""
    checks: list[Check] = []
    try:
        began = time.perf_counter()
        total = context.survey.total()
        took = time.perf_counter() - began
        checks.append(
            Check("reachable", "ok", f"{context.survey.address} answers, {count_of(total, 'key')}, in {_ms(took)}")
        )
        for part in (_round_trip, _servers, _rights, _processes):
            checks += part(context)
        with progress("counting", total) as on_step:
            checks += _contents(context, step, on_step)
    except StoreError as error:
        name = "reachable" if not checks else "answers"
        if context.survey.address.startswith("sqlite:"):
            advice = "Check --url, and whether this user may read and write the file and its directory."
        else:
            advice = "Is the server running, and may this machine connect to it? Check --url, the network and the credentials."
        checks.append(Check(name, "fail", str(error), advice))
    return checks


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def _round_trip(context: StoreContext) -> Iterator[Check]:
    took = sorted(context.survey.latency(_READS))
    p50, p99 = took[len(took) // 2], took[min(len(took) - 1, len(took) * 99 // 100)]
    status, advice = "ok", ""
    if p99 > _BUDGET_SECONDS:
        status = "fail"
        advice = "Answers take longer than the default socket_timeout (250 ms), so that calls run their function. Look at SLOWLOG and the network."
    elif p50 > _SLOW_P50_SECONDS or p99 > _SLOW_P99_SECONDS:
        status = "warn"
        advice = "A hit costs this much. Put the store nearer, look at SLOWLOG, or use near=."
    yield Check("round trip", status, f"p50 {_ms(p50)}, p99 {_ms(p99)} ({_READS} reads)", advice)


def _servers(context: StoreContext) -> Iterator[Check]:
    servers = context.survey.servers()
    yield _version(servers)
    for each in servers:
        yield _memory(each, "maxmemory" if len(servers) == 1 else f"maxmemory {each.address}")
    yield _clock(context)
    yield _replicas(servers)


def _version(servers: Sequence[Server]) -> Check:
    told = ", ".join(sorted({f"{each.product} {each.version}".strip() for each in servers}))
    replicas = [each.address for each in servers if each.role == "replica"]
    if replicas:
        advice = "Point the URL at the primary, or use redis+sentinel://."
        return Check("version", "fail", f"{told}; {replicas[0]} is a replica", advice)
    if len(servers) > 1:
        told += f", {len(servers)} primaries"
    if any(each.product == "Redis" and _number(each.version) < _OLDEST for each in servers):
        return Check("version", "warn", told, "memover is tested on Redis 6 and newer: upgrade the server.")
    return Check("version", "ok", told)


def _number(version: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else _OLDEST


def _memory(server: Server, name: str) -> Check:
    if server.memory_limit is None and server.policy is None:
        note = server.notes[0] if server.notes else "the server does not say"
        return Check(name, "warn", note, "Look at maxmemory and maxmemory-policy yourself, or allow INFO.")
    limit, used, policy = server.memory_limit or 0, server.memory_used or 0, server.policy or ""
    if policy == LEAST_RECENTLY_USED and not limit:
        value = f"{size_of(used)} used, bounded by the max_bytes of the processes that store there, {policy}"
        return Check(name, "ok", value)
    value = f"{size_of(used)} used of {size_of(limit) if limit else 'no limit'}, {policy}"
    if server.evicted:
        value += f", {server.evicted:,} keys evicted since it started"
    status, advice = "warn", ""
    if not limit:
        advice = (
            "Without a limit the machine's memory is one. Set maxmemory, and a policy of volatile-lru or volatile-lfu."
        )
    elif policy == "noeviction" and used > _NEARLY_FULL * limit:
        status = "fail" if used >= limit else "warn"
        advice = "When it is full, nothing more is stored and functions run; invalidations hold. Raise maxmemory, or set volatile-lru."
    elif policy.startswith("allkeys"):
        advice = "Generations and tags may be evicted too, which costs misses (never old results). volatile-lru or volatile-lfu keeps them."
    else:
        status = "ok"
    return Check(name, status, value, advice)


def _evicts_any(server: Server) -> bool:
    """Whether entries without expiry make room, too."""
    policy = server.policy or ""
    return policy == LEAST_RECENTLY_USED or (policy.startswith("allkeys") and bool(server.memory_limit))


def _clock(context: StoreContext) -> Check:
    """Reads once more, by itself: what counts is where our clock was when the server's was read."""
    before = time.time()
    clocks = [each.clock for each in context.survey.servers() if each.clock is not None]
    after = time.time()
    if not clocks:
        advice = "Check by hand that all machines follow one clock (NTP)."
        return Check("clock", "warn", "the server does not tell its time", advice)
    # Each was read at some moment between the two: it is off only by what lies outside of them.
    worst = max(0.0, before - min(clocks), max(clocks) - after)
    if worst < _CLOCK_WARN_SECONDS:
        return Check("clock", "ok", f"this machine's is within {max(worst, 0.001) * 1e3:,.0f} ms of the store's")
    status = "fail" if worst >= _CLOCK_FAIL_SECONDS else "warn"
    advice = "Freshness follows each process's clock, so results expire early or late by as much. Run NTP on both."
    return Check("clock", status, f"this machine's is {worst:,.1f} s off the store's", advice)


def _replicas(servers: Sequence[Server]) -> Check:
    known = [each.replicas for each in servers if each.replicas is not None]
    if not known:
        return Check("replicas", "ok", "none to speak of")
    if sum(known) == 0:
        return Check("replicas", "ok", "none: what is invalidated is lost only with the server itself")
    value = f"{count_of(sum(known), 'replica')} connected"
    if min(known) == 0:
        advice = "That primary's keys are lost with it: give it a replica."
        return Check("replicas", "warn", f"{value}, and a primary without any", advice)
    most = f" to {min(known)}" if min(known) > 1 else ""
    advice = f"A failover may lose the last invalidations; Cache(wait_replicas=1{most}) waits for that many."
    return Check("replicas", "ok", value, advice)


def _rights(context: StoreContext) -> Iterator[Check]:
    rights = context.survey.rights(context.prefix)
    refused = "; ".join(f"{each.name}: {visible(each.detail)}" for each in rights if not each.allowed)
    if refused:
        advice = f"Give this user ~{context.prefix}:* ~{{{context.prefix}:* and +@read +@write +@scripting +@connection, with +time +info for this check."
        yield Check("rights", "fail", refused, advice)
    else:
        yield Check("rights", "ok", "may " + ", ".join(each.name for each in rights))


def _processes(context: StoreContext) -> Iterator[Check]:
    reports = Watcher(context.survey, context.prefix).look(whole=True)
    if not reports.reports:
        advice = "Set MEMOVER_REPORT=5s in the application to see its processes here and in `memover top`."
        yield Check("processes", "ok", "none report", advice)
        return
    releases = sorted({each.memover for each in reports.reports})
    value = f"{count_of(len(reports.reports), 'process', 'processes')} with memover {', '.join(map(visible, releases))}"
    versions: dict[str, list[str]] = defaultdict(list)
    for line in reports.lines:
        versions[line.namespace].append(f"version {line.version} in {count_of(line.processes, 'process', 'processes')}")
    mixed = [f"{visible(name)} {', '.join(found)}" for name, found in versions.items() if len(found) > 1]
    status, advice = "ok", ""
    if mixed:
        status, value = "warn", f"{value}; {'; '.join(mixed[:_NAMED])}"
        advice = (
            "Two versions run side by side: expected during a deployment, and otherwise a process that was left behind."
        )
    elif len(releases) > 1:
        status, advice = "warn", "Several releases of memover run side by side: finish the upgrade."
    yield Check("processes", status, value, advice)
    audited = [line for line in reports.lines if line.agreement is not None]
    if audited:
        differ = [line for line in audited if line.totals["disagreements"]]
        audits = sum(line.totals["audits"] for line in audited)
        value = (
            f"{audits:,} hits compared with the source, {sum(line.totals['disagreements'] for line in differ):,} differ"
        )
        names = ", ".join(visible(line.namespace) for line in differ[:_NAMED])
        advice = f"Something that changes the results of {names} does not invalidate them." if differ else ""
        yield Check("agreement", "warn" if differ else "ok", value, advice)


def _contents(context: StoreContext, step: int, on_step: Callable[[int], None]) -> Iterator[Check]:
    rows = list(count(context, step=step, on_step=on_step).values())
    total = sum(row.entries for row in rows)
    entries = count_of(total, "entry", "entries")
    lasting = sorted((row for row in rows if row.no_ttl), key=lambda row: -row.no_ttl)
    status, value, advice = "ok", f"none of {entries}", ""
    if lasting:
        names = ", ".join(f"{_named(row)}: {row.no_ttl:,}" for row in lasting[:_NAMED])
        value = f"{sum(row.no_ttl for row in lasting):,} of {entries} ({names})"
        if not all(_evicts_any(each) for each in context.survey.servers()):
            status = "warn"
            advice = "They stay until they are invalidated or evicted; give the function a ttl, or a store that evicts (volatile-* does not)."
    yield Check("entries without ttl", status, value, advice)
    old = [row for row in rows if row.locked == "old"]
    status, value, advice = "ok", "none", ""
    if context.lock is None:
        value = f"unknown: there is no {context.project.lockfile} here"
        advice = "Run it in the project, or write the lock with `memover lock`."
    elif old:
        number = count_of(sum(row.entries for row in old), "entry", "entries")
        names = ", ".join(map(_named, old[:_NAMED]))
        status, value = "warn", f"{number}, {size_of(sum(row.bytes for row in old))} ({names})"
        advice = "`memover gc` removes them, when no old process runs any more."
    yield Check("old versions", status, value, advice)
    tags = lasting_tags = 0
    for page in context.survey.keys(token_prefixes(context.prefix)[1] + b"*", step):
        facts = [each for each in context.survey.facts(page.keys, 1) if each is not None]
        tags += len(facts)
        lasting_tags += sum(each.expires_ms is None for each in facts)
    status, advice = "ok", ""
    if lasting_tags > _TAGS_WARN and lasting_tags > total:
        status, advice = "warn", "More than there are entries: `memover gc` removes those that no entry carries."
    yield Check("tag keys", status, f"{count_of(tags, 'tag key')}, {lasting_tags:,} without ttl", advice)


def _named(row: Row) -> str:
    return f"{visible(row.namespace)} version {row.version}"
