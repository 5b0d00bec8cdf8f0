"""The pages."""

from django.core.cache import cache
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import cache_page

from shop import catalogue
from shop.models import Customer, Product


def home(request: HttpRequest) -> HttpResponse:
    """Counts its visitors in the cache: `add` begins once, `incr` loses nobody."""
    cache.add("visits", 0, timeout=None)
    return render(request, "shop/home.html", {"visits": cache.incr("visits"), "categories": ["coffee", "tea"]})


def category(request: HttpRequest, category: str) -> HttpResponse:
    """A list of products: no query when it is cached."""
    return render(request, "shop/category.html", {"category": category, "products": catalogue.products(category)})


def product(request: HttpRequest, pk: int) -> HttpResponse:
    """One product, and what the visitor has looked at (sessions live in the cache)."""
    try:
        found = catalogue.product(pk)
    except Product.DoesNotExist:
        raise Http404(f"There is no product {pk}.") from None
    seen = request.session.setdefault("seen", [])
    if found.name not in seen:
        request.session["seen"] = [*seen, found.name]
    return render(request, "shop/product.html", {"product": found, "seen": request.session["seen"]})


def profile(request: HttpRequest, customer_id: int) -> HttpResponse:
    """A customer with the picture that version 2 brought."""
    try:
        found = catalogue.profile(customer_id)
    except Customer.DoesNotExist:
        raise Http404(f"There is no customer {customer_id}.") from None
    keys = {"this release": catalogue.profile.key(customer_id), "yesterday's": catalogue.profile.at(1).key(customer_id)}
    return render(request, "shop/profile.html", {"profile": found, "keys": keys})


@cache_page(60)
def imprint(request: HttpRequest) -> HttpResponse:
    """A whole page from the cache."""
    return render(request, "shop/imprint.html")


async def cheapest(request: HttpRequest, category: str) -> JsonResponse:
    """An async view: computed once however many ask at the same time, awaited all the way."""

    async def find() -> dict[str, str]:
        found = await Product.objects.filter(category=category).order_by("price").afirst()
        return {} if found is None else {"name": found.name, "price": str(found.price)}

    return JsonResponse(await cache.aget_or_set(f"cheapest-{category}", find, timeout=30))
