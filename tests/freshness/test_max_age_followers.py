"""`max_age` holds for whoever waits for another's load too: what `stale_if_error` rescued for that one is too old for this one."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from memover import Cache
from tests.servers import wait_until


@pytest.mark.parametrize("store", ["memory", "redis"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["in one process", "across caches"])
def test_a_follower_is_not_given_what_is_older_than_it_accepts(
    store: str, elsewhere: bool, redis_url: str, prefix: str
) -> None:
    """Its leader's load fails and is answered with an old value; the follower has an error, as it would have had alone."""
    if store == "memory" and elsewhere:
        pytest.skip("a memory store is one cache's")
    patient: dict[str, Any] = {} if store == "memory" else {"socket_timeout": 10.0, "socket_connect_timeout": 10.0}
    url = "memory://" if store == "memory" else redis_url
    working = True
    started, go = threading.Event(), threading.Event()

    def load(x: int) -> float:
        if working:
            return time.time()
        started.set()
        assert go.wait(30)
        raise LookupError("the origin is down")

    cache = Cache(url, prefix=prefix, **patient)
    f = cache.versioned(namespace="f", ttl=0.2, stale_if_error=3600)(load)
    follower, other = f, cache
    if elsewhere:
        other = Cache(url, prefix=prefix, **patient)
        follower = other.versioned(namespace="f", ttl=0.2, stale_if_error=3600)(load)
    first = f(1)
    wait_until(lambda: time.time() - first > 0.7, "the value to be older than the follower accepts")
    working = False
    answers: list[Any] = []

    def lead() -> None:
        answers.append(f(1))

    def follow() -> None:
        try:
            value = follower.max_age(0.5)(1)
            answers.append(("too old", time.time() - value))
        except LookupError as error:
            answers.append(str(error))

    leader = threading.Thread(target=lead)
    leader.start()
    assert started.wait(30)
    behind = threading.Thread(target=follow)
    behind.start()
    time.sleep(0.2)  # the follower is to be waiting; if it is not yet, it has the same to fear
    go.set()
    leader.join(30)
    behind.join(30)
    for one in (cache, other):
        one.close()
    assert first in answers, "the leader accepts what is stale"
    assert "the origin is down" in answers, answers
