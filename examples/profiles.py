"""A field is added to cached data: what version= is for.

    python examples/profiles.py [redis://localhost:6379/0]

Release 1 of a program caches profiles as {"name": ...}. Release 2 needs "avatar_url" too. While the release is
rolled out, both run at the same time. Nobody reads an entry of the wrong form, and nothing has to be deleted.
"""

from __future__ import annotations

import sys
from typing import Any

import memover
from memover import CachedFunction, versioned_cache

DATABASE = {
    7: {"name": "Alice", "avatar_url": "/avatars/7.png"},
    8: {"name": "Bob", "avatar_url": "/avatars/8.png"},
}
queries: list[tuple[int, int]] = []


def deployed(release: int) -> CachedFunction[[int], dict[str, Any]]:
    """The function `profile` as that release of the program declares it."""

    @versioned_cache(namespace="profiles", version=release, ttl="5m")
    def profile(user_id: int) -> dict[str, Any]:
        queries.append((release, user_id))
        row = DATABASE[user_id]
        if release == 1:
            return {"name": row["name"]}
        return {"name": row["name"], "avatar_url": row["avatar_url"]}

    return profile


def main(url: str) -> None:
    memover.configure(url)
    before, after = deployed(release=1), deployed(release=2)
    before.invalidate_all()  # a store that outlives us may hold what an earlier run left

    print("release 1 runs, and fills the cache")
    print("   ", before.key(7), "->", before(7))

    print("release 2 is rolled out beside it: its calls are misses, and old entries are never looked at")
    print("   ", after.key(7), "->", after(7))
    print("    the new field is there:", after(7)["avatar_url"])

    print("meanwhile release 1 goes on with entries of its own form")
    print("   ", before.key(7), "->", before(7))
    print("    queries so far, as (release, user):", queries)

    print("Alice changes her name: what is stale, is stale for both")
    DATABASE[7]["name"] = "Alicia"
    after.invalidate_all()
    print("    release 1 says", before(7)["name"], "and release 2 says", after(7)["name"])

    print("release 1 is gone; what it stored leaves the store by itself, when its ttl ends")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "memory://")
