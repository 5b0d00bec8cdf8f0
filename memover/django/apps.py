"""The app that brings the system checks, and `AnonymousUser` as an argument."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

__all__ = ["MemoverConfig"]


class MemoverConfig(AppConfig):
    """`"memover.django"` in INSTALLED_APPS."""

    name = "memover.django"
    label = "memover"
    verbose_name = "memover"

    def ready(self) -> None:
        from memover.django.checks import check_functions, check_lock, check_servers
        from memover.django.values import install_users

        install_users()
        checks.register(check_functions, checks.Tags.caches)
        checks.register(check_lock, checks.Tags.caches)
        checks.register(check_servers, checks.Tags.caches, deploy=True)
