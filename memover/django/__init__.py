"""memover as Django's cache: a `CACHES` backend, aliases for decorated functions, and system checks.

    CACHES = {
        "default": {
            "BACKEND": "memover.django.MemoverCache",
            "LOCATION": "redis://localhost:6379/0",
            "KEY_PREFIX": "shop",
            "VERSION": 2,
        }
    }
    INSTALLED_APPS = [..., "memover.django"]  # for `manage.py check`

A function decorated with `versioned_cache(..., cache="default")` uses that alias's connection and prefix. Django 4.2 and
later; `pip install memover[django]`. Nothing else in memover imports this package.
"""

from __future__ import annotations

from memover.django.aliases import cache_of
from memover.django.backend import MemoverCache

__all__ = ["MemoverCache", "cache_of"]
