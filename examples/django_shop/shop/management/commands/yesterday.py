"""`manage.py yesterday`: what the release before `avatar_url` left in the cache."""

import gc
from typing import Any

from django.core.management import BaseCommand

from memover import versioned_cache
from shop import catalogue
from shop.models import Customer


class Command(BaseCommand):
    help = "Cache the profiles as version 1 did."

    def handle(self, *args: Any, **options: Any) -> None:
        cache = catalogue.profile.cache
        # This process is of yesterday: its one function of that namespace is the old one.
        del catalogue.profile
        gc.collect()

        @versioned_cache(namespace="shop/profile", version=1, ttl="1h", cache=cache)
        def profile(customer_id: int) -> dict[str, str]:
            return {"name": Customer.objects.get(pk=customer_id).name}

        for pk in Customer.objects.values_list("pk", flat=True):
            self.stdout.write(f"{profile.key(pk)} {profile(pk)}")
