"""What the pages are made of: decorated functions on the cache that Django's alias "default" names.

Model instances and lists of them are kept as signed pickles, the default of the backend. A queryset is not data until it
is read, so the functions return lists.
"""

from typing import Any

from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from memover import versioned_cache
from shop.models import Customer, Product


@versioned_cache(namespace="shop/products", version=1, ttl="10m", cache="default")
def products(category: str) -> list[Product]:
    """The products of a category: one query, for all processes, until something in it changes."""
    return list(Product.objects.filter(category=category))


@versioned_cache(namespace="shop/product", version=1, ttl="10m", cache="default")
def product(pk: int) -> Product:
    """One product. `Product.DoesNotExist` reaches the caller and is not cached."""
    return Product.objects.get(pk=pk)


# Version 1 returned {"name": ...}. `avatar_url` came with version 2, in the same commit: the new release never reads the
# entries of the old one, the old one goes on reading its own, and nothing has to be cleared. See `manage.py yesterday`.
@versioned_cache(namespace="shop/profile", version=2, ttl="1h", cache="default")
def profile(customer_id: int) -> dict[str, str]:
    """What the page of a customer shows."""
    customer = Customer.objects.get(pk=customer_id)
    return {"name": customer.name, "avatar_url": customer.avatar}


@receiver([post_save, post_delete], sender=Product)
def product_changed(instance: Product, **_: Any) -> None:
    """A product was saved or deleted: when that is committed, what was made of it is invalid, in every process."""

    def invalidate() -> None:
        product.invalidate(instance.pk)
        products.invalidate_all()  # its category may have been another before

    transaction.on_commit(invalidate)


@receiver([post_save, post_delete], sender=Customer)
def customer_changed(instance: Customer, **_: Any) -> None:
    """The same for a customer."""
    transaction.on_commit(lambda: profile.invalidate(instance.pk))
