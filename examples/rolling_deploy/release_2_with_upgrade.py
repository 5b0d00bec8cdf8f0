"""The same release, which makes what it can out of the entries that are there."""

from __future__ import annotations

from typing import Any

from release_2 import Profile, profile

__all__ = ["profile"]


@profile.upgrade(from_version=1)
def add_language(old: dict[str, Any]) -> Profile:
    return Profile(**old, language="en")
