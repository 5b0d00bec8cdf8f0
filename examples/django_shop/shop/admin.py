"""The admin: saving invalidates by itself; an action does it for changes that came past Django (an import by SQL, say)."""

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from shop import catalogue
from shop.models import Customer, Product


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "category", "price")
    actions = ("forget",)

    @admin.action(description="Forget what is cached of the selected products")
    def forget(self, request: HttpRequest, queryset: QuerySet[Product]) -> None:
        """One command per product, and one for all lists of all categories. `InvalidationFailed` would show as an error."""
        for pk in queryset.values_list("pk", flat=True):
            catalogue.product.invalidate(pk)
        generation = catalogue.products.invalidate_all()
        self.message_user(
            request, f"Forgotten, everywhere. The lists are of generation {generation} now.", messages.SUCCESS
        )


admin.site.register(Customer)
