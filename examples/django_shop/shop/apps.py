"""The app."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "shop"

    def ready(self) -> None:
        from shop import catalogue  # noqa: F401  # its receivers listen from now on
