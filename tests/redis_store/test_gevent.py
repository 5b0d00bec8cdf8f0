"""Under gevent: greenlets share the connections of threads, whose sockets then never block."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers import RedisServer

_STORM = """
import gevent.monkey
gevent.monkey.patch_all()
import random, gevent, sys
from memover.model import Key
from memover.runtime.run import run
from memover.engine.store import Request, StoredEntry
from memover.stores.redis import RedisStore
from memover.stores.redis.url import parse_url
from memover.stores.redis.limits import Limits

store = RedisStore(parse_url(sys.argv[1]), Limits(20.0, 20.0, 8, 0.25, 2.0))
keys = [Key(f"gevent:1:f:{n}", (b"gevent:gen:f",)) for n in range(20)]
for key in keys:
    token = "%016x" % random.getrandbits(64)
    run(store.acquire(Request(key, token, 20000, (), [0]), force=True))
    assert run(store.store(StoredEntry(key, token, key.entry, 60000, None)))
right = ended = 0

def one():
    global right, ended
    for _ in range(60):
        key = random.choice(keys)
        try:
            with gevent.Timeout(random.random() * 0.01):
                seen = store.fetch(key) if random.random() < 0.5 else run(store.read(key))
        except gevent.Timeout:
            ended += 1
        else:
            assert seen.raw == key.entry, (seen, key)
            right += 1

workers = [gevent.spawn(one) for _ in range(50)]
gevent.joinall(workers, raise_error=True)
assert right > 100 and ended > 10, (right, ended)
assert not store.breaker.tripped
for key in keys:
    assert store.fetch(key).raw == key.entry
assert len(store.link.servers.pools[None]._open) <= 8
store.close()
"""


def test_a_storm_of_timeouts(redis_server: RedisServer) -> None:
    """P17: gevent.Timeout at any wait: it goes on as it is, no answer is mixed up, no place is lost."""
    pytest.importorskip("gevent")
    subprocess.run([sys.executable, "-W", "ignore", "-c", _STORM, redis_server.url], check=True, timeout=120)
