"""Models of every sort that results and arguments have: relations, a proxy, a manager and a queryset of one's own."""

from __future__ import annotations

from django.db import models


class BookQuerySet(models.QuerySet):
    def cheap(self):
        return self.filter(price__lt=10)


class Author(models.Model):
    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Card(models.Model):
    number = models.IntegerField()
    author = models.OneToOneField(Author, models.CASCADE, related_name="card")


class Tag(models.Model):
    word = models.CharField(max_length=100)


class Book(models.Model):
    title = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=6, decimal_places=2)
    cover = models.FileField(blank=True)
    facts = models.JSONField(default=dict)
    published = models.DateField(null=True)
    author = models.ForeignKey(Author, models.CASCADE, related_name="books")
    tags = models.ManyToManyField(Tag)

    objects = BookQuerySet.as_manager()

    def __str__(self) -> str:
        return self.title


class CheapBook(Book):
    class Meta:
        proxy = True
