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

A function decorated with `versioned_cache(..., cache="default")` uses that alias's connection and prefix. Model instances
are arguments and results (`values`); `clear_all()` empties everything; `memover.django.testing` isolates tests;
`memover.django.panels.MemoverPanel` is for django-debug-toolbar. Django 4.2 and
later; `pip install memover[django]`. Nothing else in memover imports this package.

`backend` has Django's methods, over the `caches` that `aliases` finds; `apps` brings the system `checks`; `panels` and `testing`
are for development.
"""

from __future__ import annotations

from memover.django.aliases import aclear_all, cache_of, clear_all
from memover.django.backend import MemoverCache
from memover.django.values import install

__all__ = ["MemoverCache", "aclear_all", "cache_of", "clear_all"]

install()
