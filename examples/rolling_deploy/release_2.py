"""The next release: a profile has a language too, so the version is 2."""

from __future__ import annotations

from dataclasses import dataclass

from memover import versioned_cache


@dataclass
class Profile:
    id: int
    name: str
    language: str


@versioned_cache(namespace="profiles", version=2, ttl="1h")
def profile(user_id: int) -> Profile:
    return Profile(user_id, f"user {user_id}", "en")
