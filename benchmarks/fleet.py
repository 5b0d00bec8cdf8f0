"""What a large fleet asks of a Redis Cluster: a discrete-event model, fed with times measured in the same run.

    python benchmarks/fleet.py [--quick] [--share 0.5] [--network 0.0003] [--svg docs/plots/large-fleets.svg]

**Measured**, on a Cluster of six nodes that it starts here (three primaries, three replicas): the CPU time that a node spends on
one read of a token, one read of an entry of 1 KB, one move of a token, one registration of a load (INFO cpu before and
after thousands of each, from many connections, none of them pipelined, because a fleet's are not), the bytes that a
heartbeat moves, and the time that an invalidation takes its own process for each shard.

**Modelled**: each primary is one thread that serves one command after another in the order in which they come. Reads come from many
independent processes, so at a node they are a Poisson stream, whose rate is all that matters: a million processes are one
rate, not a million objects. Entries lie evenly over the slots. Tokens lie where `memover.keys.shards` puts them, on nodes
that have contiguous slots. The events at the hottest node (a command comes, a command is done) are simulated one by one; an invalidation
sends a move to the node of each shard at once and has to wait in each queue, then moves the token that
all heartbeats read, and waits for `--network` seconds of round trip each time. One namespace takes `--share` of all
hits. One hit in a hundred misses, and registers.

Not modelled: misses that follow an invalidation (leases make them one load a key), replicas, values above 1 KB, I/O threads
(which raise what a node bears for all settings alike), clients that wait for a saturated node.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import sys
import threading
import time
from binascii import crc_hqx
from collections import Counter
from heapq import heappop, heappush
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from memover import Cache  # noqa: E402
from memover.keys.shards import GRAINS, shards  # noqa: E402
from memover.stores.redis.resp import pack  # noqa: E402
from tests.servers import RedisCluster, RedisServer  # noqa: E402

PRIMARIES = (10, 100, 1000)
PROCESSES = (10_000, 100_000, 1_000_000)
SLOTS = 16384
MISSES = 0.01
"""The share of calls that miss, and so register on the node of the namespace's own key."""
BEAR = 0.7
"""What share of its time a node may be busy: above it, waiting grows fast."""
AVERAGE = 0.25
"""How busy the primaries are on average in the comparison of settings."""
NEAR_SECONDS = 10.0
"""The `near=` of the table; a heartbeat comes three times in it."""
GENERATION, COARSE = b"shop:gen:profiles", b"shop:gen:@all"


class Times(NamedTuple):
    """Seconds of a node's CPU for a command, the bytes of one heartbeat both ways, and seconds of an invalidating process
    for each shard."""

    token: float
    entry: float
    move: float
    register: float
    beat_bytes: int
    client: float


# -- measuring ----------------------------------------------------------------------------------------------------------------


def cpu(node: RedisServer) -> float:
    said = node.info("cpu")
    return float(said["used_cpu_user"]) + float(said["used_cpu_sys"])


def per_command(node: RedisServer, command: tuple[Any, ...], seconds: float, clients: int = 16) -> float:
    """Seconds of the node's CPU for one command, sent one at a time over several connections."""
    packed = pack(tuple(part if isinstance(part, bytes) else str(part).encode() for part in command))
    counts = [0] * clients
    end = time.perf_counter() + seconds

    def work(at: int) -> None:
        with socket.create_connection(("127.0.0.1", node.port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while time.perf_counter() < end:
                sock.sendall(packed)
                if sock.recv(65536)[:1] in (b"-", b""):
                    raise RuntimeError(f"{command[0]} was refused")
                counts[at] += 1

    before = cpu(node)
    threads = [threading.Thread(target=work, args=(at,)) for at in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (cpu(node) - before) / max(sum(counts), 1)


def measured(seconds: float) -> Times:
    """The times, from a Cluster of six nodes."""
    from memover.stores.redis import scripts

    with RedisCluster(3, 1) as cluster:
        token, entry = b"fleet:gen:f", b"fleet:1:f:" + b"0" * 32
        registry = b"{fleet:gen:f}@shards"
        home, there = cluster.owner_of(token), cluster.owner_of(entry)
        home.run("SET", token.decode(), "1795630740393776-7d306f64e4ba42b9")
        there.run("SET", entry.decode(), "x" * 1024)
        home.run("EVAL", scripts.BUMP.text.decode(), 1, token.decode(), "0" * 16, 1, 0, 0)
        home.run("EVAL", scripts.REGISTER.text.decode(), 1, registry.decode(), 16, "0" * 16)
        times = {
            "token": per_command(home, (b"MGET", token), seconds),
            "entry": per_command(there, (b"MGET", entry), seconds),
            "move": per_command(home, (b"EVALSHA", scripts.BUMP.sha, 1, token, "a" * 16, 1, 0, 0), seconds),
            "register": per_command(home, (b"EVALSHA", scripts.REGISTER.sha, 1, registry, 16, "0" * 16), seconds),
        }
        beat = len(pack((b"MGET", COARSE))) + len(b"*1\r\n$33\r\n1795630740393776-7d306f64e4ba42b9\r\n")
        took = {}
        for count in (1, 256):
            with Cache(cluster.url, prefix=f"fleet{count}", generation_shards=count, socket_timeout=5) as cache:

                @cache.versioned(namespace="f")
                def f(x: int) -> int:
                    return x

                f(1)
                f.invalidate_all()
                rounds = []
                for _ in range(20):
                    began = time.thread_time()
                    f.invalidate_all()
                    rounds.append(time.thread_time() - began)
                took[count] = median(rounds)
        return Times(**times, beat_bytes=beat, client=max(took[256] - took[1], 0.0) / 255)


# -- the model ----------------------------------------------------------------------------------------------------------------


def node_of(key: bytes, primaries: int) -> int:
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    tag = key[start + 1 : end] if start >= 0 and end > start + 1 else key
    return crc_hqx(tag, 0) % SLOTS * primaries // SLOTS


class Fleet(NamedTuple):
    """A fleet whose hits come at `rate` a second in all; `near` are the processes with a near tier."""

    primaries: int
    processes: int
    shards: int
    rate: float
    share: float
    near: int = 0

    def streams(self, times: Times) -> dict[int, list[tuple[float, float]]]:
        """For each node that differs from the others, the rates of its commands and the seconds of each."""
        entries = (self.rate / self.primaries, times.entry)
        hot = self.rate * self.share
        # Hits of other namespaces: many, so their tokens are everywhere.
        others = (self.rate * (1 - self.share) / self.primaries, times.token)
        places = Counter(node_of(key, self.primaries) for key in shards(GENERATION, self.shards) or (GENERATION,))
        home, beats = node_of(GENERATION, self.primaries), node_of(COARSE, self.primaries)
        nodes: dict[int, list[tuple[float, float]]] = {}
        for node in {*places, home, beats}:
            nodes[node] = [entries, others, (hot * places[node] / max(self.shards, 1), times.token)]
        if self.shards > 1:
            nodes[home].append((hot * MISSES, times.register))
        nodes[beats].append((self.near * 3 / NEAR_SECONDS, times.token))
        return nodes

    def loads(self, times: Times) -> dict[int, float]:
        """How busy those nodes are: 1 is saturated."""
        return {node: sum(rate * each for rate, each in streams) for node, streams in self.streams(times).items()}


def waits(streams: list[tuple[float, float]], events: int, chance: random.Random) -> list[float]:
    """What commands wait at a node, in seconds, by simulating every arrival and every end at it."""
    upcoming: list[tuple[float, int, float]] = []
    for number, (rate, _) in enumerate(streams):
        if rate > 0:
            heappush(upcoming, (chance.expovariate(rate), number, 0.0))
    free_at, found = 0.0, []
    while len(found) < events and upcoming:
        now, number, _ = heappop(upcoming)
        rate, service = streams[number]
        heappush(upcoming, (now + chance.expovariate(rate), number, 0.0))
        begins = max(now, free_at)
        # Service times vary: half of it is fixed, the rest exponential, as of a server that shares its machine.
        free_at = begins + service * (0.5 + 0.5 * chance.expovariate(1.0))
        found.append(begins - now)
    return found[len(found) // 5 :]  # without the beginning, when the queue was empty


class Result(NamedTuple):
    primaries: int
    shards: int
    hottest: float
    """How busy the hottest node is where the primaries are busy `AVERAGE` on average; above 1 it is saturated."""
    bears: float
    """Hits a second in all while no node is busier than `BEAR`."""
    p50: float
    p99: float
    """Seconds that an invalidation takes at `AVERAGE` of what this setting bears, or at `AVERAGE` load where it bears that."""


def result(times: Times, primaries: int, count: int, args: Any) -> Result:
    """One row: a number of primaries, and of shards."""
    chance = random.Random(1)
    average = AVERAGE * primaries / (times.token + times.entry)
    unit = Fleet(primaries, 0, count, 1.0, args.share)
    bears = BEAR / max(unit.loads(times).values())
    hottest = max(unit._replace(rate=average).loads(times).values())
    rate = min(average, bears)
    nodes = unit._replace(rate=rate).streams(times)
    queues = {node: waits(streams, args.events, chance) for node, streams in nodes.items()}
    homes = Counter(node_of(key, primaries) for key in (GENERATION, *shards(GENERATION, count)))
    coarse = node_of(COARSE, primaries)
    took = []
    for _ in range(args.draws):
        side_by_side = max(chance.choice(queues[node]) + moves * times.move for node, moves in homes.items())
        last = chance.choice(queues[coarse]) + times.move
        took.append(2 * args.network + sum(homes.values()) * times.client + side_by_side + last)
    took.sort()
    return Result(primaries, count, hottest, bears, took[len(took) // 2], took[int(len(took) * 0.99)])


def settings(primaries: int) -> tuple[int, ...]:
    """One key, a few, and as many as there are primaries, to the next power of two."""
    most = min(1 << (primaries - 1).bit_length(), GRAINS)
    return tuple(sorted({1, max(most // 8, 2), most}))


# -- output -------------------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g}"


def tables(times: Times, results: list[Result]) -> list[str]:
    lines = [
        "| primaries | shards | hottest node | bears, hits/s in all | invalidation p50, ms | p99, ms |",
        "|---|---|---|---|---|---|",
    ]
    for one in results:
        hottest = f"{one.hottest:.0%}" + (" (saturated)" if one.hottest >= 1 else "")
        lines.append(
            f"| {one.primaries:,} | {one.shards:,} | {hottest} | {number(one.bears)} | {one.p50 * 1e3:.2f} "
            f"| {one.p99 * 1e3:.2f} |"
        )
    lines += [
        "",
        "| processes with `near=` | `near=1`: beats/s, bytes/s | of the node | `near=10` | of the node | `near=60` | of the node | least `near=` |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for processes in PROCESSES:
        cells = []
        for staleness in (1, 10, 60):
            beats = processes * 3 / staleness
            cells.append(f"{number(beats)}, {number(beats * times.beat_bytes)}B | {beats * times.token:.0%}")
        # A third of what a node bears, so that it has time for the rest.
        least = processes * 3 * times.token / (BEAR / 3)
        lines.append(f"| {processes:,} | {' | '.join(cells)} | {least:.3g} s |")
    return lines


def draw(times: Times, results: list[Result], path: Path) -> None:
    from benchmarks.plots import ACCENTS, figure, save

    drawn, axes = figure(3, width=11)
    left, middle, right = axes[0]
    styles = {"one key": ("o-", ACCENTS[1]), "a shard for each primary": ("s-", ACCENTS[0])}
    for name, pick in (("one key", min), ("a shard for each primary", max)):
        rows = [
            pick((one for one in results if one.primaries == each), key=lambda one: one.shards) for each in PRIMARIES
        ]
        mark, colour = styles[name]
        left.plot(PRIMARIES, [one.bears for one in rows], mark, color=colour, label=name)
        middle.plot(PRIMARIES, [one.p99 * 1e3 for one in rows], mark, color=colour, label=name)
    left.set(xscale="log", yscale="log", xlabel="primaries", title="Hits/s that the Cluster bears")
    middle.set(xscale="log", yscale="log", xlabel="primaries", title="Invalidation, p99, ms")
    for at, staleness in enumerate((1, 10, 60)):
        share = [processes * 3 / staleness * times.token for processes in PROCESSES]
        right.plot(PROCESSES, share, "o-", color=ACCENTS[2 + at], label=f"near={staleness}")
    right.axhline(BEAR, color=ACCENTS[5], linestyle="--", linewidth=1)
    right.set(xscale="log", yscale="log", xlabel="processes", title="Heartbeats: load of one node")
    for plot in axes[0]:
        plot.grid(visible=True, which="major", linewidth=0.6)
        plot.legend(fontsize=9)
    save(
        drawn,
        path,
        "Three plots: with one key the hits per second that a Cluster bears stay flat as primaries are added, with a shard for each "
        "primary they grow with them; the time of an invalidation grows with the shards; the load that heartbeats put on one node "
        "grows with the processes and falls with near=.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter measurements and fewer events")
    parser.add_argument("--share", type=float, default=0.5, help="the share of hits that one namespace takes (0.5)")
    parser.add_argument("--network", type=float, default=0.0003, help="seconds of a round trip in the network (0.0003)")
    parser.add_argument("--svg", type=Path, help="write the plot here")
    parser.add_argument("--json", action="store_true", help="print what was measured and modelled as JSON")
    args = parser.parse_args()
    args.events, args.draws = (4_000, 1_000) if args.quick else (40_000, 10_000)
    times = measured(0.5 if args.quick else 3.0)
    results = [result(times, each, count, args) for each in PRIMARIES for count in settings(each)]
    if args.json:
        print(json.dumps({"times": times._asdict(), "results": [one._asdict() for one in results]}, indent=1))
    else:
        micro = {name: round(value * 1e6, 2) for name, value in times._asdict().items() if name != "beat_bytes"}
        print(f"measured, µs of a node's CPU: {micro} · {times.beat_bytes} bytes a heartbeat")
        print(f"one namespace has {args.share:.0%} of the hits; the network takes {args.network * 1e3:g} ms\n")
        print("\n".join(tables(times, results)))
    if args.svg is not None:
        draw(times, results, args.svg)


if __name__ == "__main__":
    main()
