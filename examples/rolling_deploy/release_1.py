"""The release that runs: a profile has a name."""

from __future__ import annotations

from dataclasses import dataclass

from memover import versioned_cache


@dataclass
class Profile:
    id: int
    name: str


@versioned_cache(namespace="profiles", version=1, ttl="1h")
def profile(user_id: int) -> Profile:
    return Profile(user_id, f"user {user_id}")
