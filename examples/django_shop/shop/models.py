"""Products, and customers with a name and a picture."""

from django.db import models


class Product(models.Model):
    name = models.CharField(max_length=100)
    category = models.SlugField()
    price = models.DecimalField(max_digits=8, decimal_places=2)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Customer(models.Model):
    name = models.CharField(max_length=100)
    avatar = models.CharField(max_length=200, default="/avatars/nobody.png")

    def __str__(self) -> str:
        return self.name
