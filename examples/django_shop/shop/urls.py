"""Where the pages are."""

from django.contrib import admin
from django.urls import path

from shop import views

urlpatterns = [
    path("", views.home),
    path("category/<slug:category>/", views.category),
    path("product/<int:pk>/", views.product),
    path("profile/<int:customer_id>/", views.profile),
    path("imprint/", views.imprint),
    path("api/cheapest/<slug:category>/", views.cheapest),
    path("admin/", admin.site.urls),
]
