"""Model instances, querysets and late text as arguments and results of cached functions."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import subprocess
import sys
import weakref
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError, connection, transaction
from django.db.models import Prefetch
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext
from django.urls import reverse_lazy
from django.utils import translation
from django.utils.functional import Promise, SimpleLazyObject, lazy
from django.utils.translation import gettext_lazy, ngettext_lazy, npgettext_lazy, pgettext_lazy

from memover import Cache, NotCached, UnencodableValue, UnkeyableArgument
from memover.django.testing import isolated_caches
from tests.django.books.models import Author, Book, Card, CheapBook, Tag
from tests.face.ways import url_of

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS = (Author, Card, Tag, Book)


@pytest.fixture(autouse=True)
def database() -> Iterator[None]:
    """Tables with two authors and three books, and nothing of it afterwards."""
    with connection.schema_editor() as editor:
        for model in MODELS:
            editor.create_model(model)
    ann, bob = Author.objects.create(name="Ann"), Author.objects.create(name="Bob")
    words = [Tag.objects.create(word=word) for word in ("old", "new")]
    for title, price, author in (("Tea", "4.50", ann), ("Mugs", "12.00", ann), ("Tins", "7.25", bob)):
        book = Book.objects.create(
            title=title,
            price=Decimal(price),
            author=author,
            published=datetime.date(2020, 1, 2),
            facts={"a": [1, None]},
        )
        book.tags.set(words)
    yield
    with connection.schema_editor() as editor:
        for model in reversed(MODELS):
            editor.delete_model(model)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def cache(request: pytest.FixtureRequest, prefix: str) -> Iterator[Cache]:
    url = url_of(request, request.param)
    with Cache(url, prefix=prefix, socket_timeout=10, socket_connect_timeout=10) as made:
        yield made


def queries() -> CaptureQueriesContext:
    return CaptureQueriesContext(connection)


def test_an_instance_comes_back_as_it_was(cache: Cache) -> None:
    """Fields, related objects, state and extra attributes; no query for any of them."""

    @cache.versioned(namespace="book")
    def book(title: str) -> Book:
        found = Book.objects.select_related("author").get(title=title)
        found.note = "kept"
        return found

    miss = book("Tea")
    with queries() as asked:
        hit = book("Tea")
        assert type(hit) is Book
        assert hit == miss
        assert {name: value for name, value in hit.__dict__.items() if name != "_state"} == {
            name: value for name, value in miss.__dict__.items() if name != "_state"
        }
        assert hit.author.name == "Ann"
        assert (hit.note, hit.facts, hit.cover.name) == ("kept", {"a": [1, None]}, "")
        assert (hit._state.db, hit._state.adding) == ("default", False)
    assert len(asked) == 0
    hit.title = "Green tea"
    hit.save()
    assert Book.objects.get(pk=miss.pk).title == "Green tea"


def test_a_deferred_field_stays_deferred(cache: Cache) -> None:
    """It is read from the database when it is asked for."""

    @cache.versioned(namespace="deferred")
    def book() -> Book:
        return Book.objects.defer("facts").get(title="Tea")

    book()
    hit = book()
    assert hit.get_deferred_fields() == {"facts"}
    assert hit.facts == {"a": [1, None]}


def test_prefetched_objects_come_along(cache: Cache) -> None:
    """With their references back to the instance they were prefetched for."""

    @cache.versioned(namespace="author")
    def author() -> Author:
        return Author.objects.prefetch_related("books__tags").get(name="Ann")

    author()
    with queries() as asked:
        hit = author()
        assert [each.title for each in hit.books.all()] == ["Tea", "Mugs"]
        assert all(each.author is hit for each in hit.books.all())
        assert [tag.word for tag in hit.books.all()[0].tags.all()] == ["old", "new"]
    assert len(asked) == 0


RELATED: dict[str, tuple[Any, Any]] = {
    "one to one, from its other side": (
        lambda: Author.objects.select_related("card").get(name="Ann"),
        lambda it: it.card,
    ),
    "one to one": (lambda: Card.objects.select_related("author").get(), lambda it: it.author),
    "to_attr": (
        lambda: Author.objects.prefetch_related(Prefetch("books", to_attr="some")).get(name="Ann"),
        lambda it: it.some[1],
    ),
    "to_attr, of one to one": (
        lambda: Author.objects.prefetch_related(Prefetch("card", to_attr="one")).get(name="Ann"),
        lambda it: it.one,
    ),
}


@pytest.mark.parametrize("way", RELATED)
def test_objects_that_refer_to_each_other_do_so_after_a_hit(way: str, cache: Cache) -> None:
    """Both sides of a one-to-one relation, and prefetched lists with a name of their own, come without another query."""
    find, other = RELATED[way]
    ann = Author.objects.get(name="Ann")
    Card.objects.create(number=4, author=ann)
    found = cache.versioned(namespace="related")(find)
    miss = found()
    with queries() as asked:
        hit = found()
        assert found.cache_info().hits == 1
        assert hit == miss
        assert hit is not miss
        related = other(hit)
        assert related == other(miss)
        assert "_django_version" not in related.__dict__
        back = "card" if type(hit) is Card else "author"
        assert getattr(related, back) is hit
        assert getattr(other(miss), back) is miss, "what the caller has was changed"
    assert len(asked) == 0


def titles(books: Any) -> list[str]:
    return [each.title for each in books]


def test_a_queryset_is_evaluated_to_the_list_of_its_instances(cache: Cache) -> None:
    """For the caller who loads as for those who hit; one query for all the calls."""
    runs: list[int] = []

    @cache.versioned(namespace="books")
    def books() -> Any:
        runs.append(1)
        return Book.objects.order_by("-price")

    with queries() as asked:
        miss = books()
    Book.objects.create(title="Late", price=1, author=Author.objects.get(name="Bob"))
    assert len(asked) == 1
    with queries() as asked:
        hit = books()
    assert len(asked) == 0
    assert type(miss) is type(hit) is list
    assert titles(miss) == titles(hit) == ["Mugs", "Tins", "Tea"]
    assert miss == hit
    assert all(type(each) is Book for each in hit)
    assert runs == [1]


def test_whichever_way_a_queryset_comes_its_caller_gets_a_list(cache: Cache) -> None:
    """Refreshed, set, in a batch, uncached, inside its own load, or not stored."""

    @cache.versioned(namespace="of")
    def of(name: str, again: bool = False) -> Any:
        if again:
            return of(name, again)
        found = Book.objects.filter(author__name=name).order_by("title")
        return NotCached(found) if name == "Bob" else found

    with cache.disabled():
        off = [of("Ann"), of.refresh("Ann"), *of.map(["Ann", "Bob"], concurrency=1)]
    of.set(Book.objects.filter(title="Tea"), "set")
    got = [
        of("Ann"),
        of.refresh("Ann"),
        of("Bob"),
        of.bypass("Bob"),
        of("set"),
        *of.map(["Ann", "Bob", "Cy"], concurrency=1),
        *off,
    ]
    assert [type(each) for each in got] == [list] * len(got)
    assert titles(of("set")) == ["Tea"]
    assert of.peek("Bob") is None
    of.batch_load(lambda calls: [Book.objects.filter(author__name=call.arguments["name"]) for call in calls])
    of.invalidate_all()
    assert [titles(each) for each in of.map(["Bob", "Ann"])] == [["Tins"], ["Tea", "Mugs"]]
    assert type(of("Bob")) is list


def test_a_function_that_gives_a_queryset_to_itself_gets_a_list(cache: Cache) -> None:
    """A call inside a load of its own runs the function, and that is evaluated too."""
    seen: list[type] = []

    @cache.versioned(namespace="itself", ignore=("depth",))
    def books(depth: int = 0) -> Any:
        if depth < 2:
            seen.append(type(books(depth + 1)))
        return Book.objects.all()

    assert type(books()) is list
    assert seen == [list, list]


def test_an_error_of_the_query_is_an_error_of_the_function(cache: Cache) -> None:
    """It reaches the caller, nothing is stored, and the next call asks again."""

    @cache.versioned(namespace="broken")
    def books(where: str) -> Any:
        return Book.objects.extra(where=[where])

    with pytest.raises(OperationalError):
        books("no_such_column = 1")
    assert books.peek("no_such_column = 1") is None
    assert books.cache_info().load_errors == 1
    assert len(books("1 = 1")) == 3


def test_rows_that_are_no_instances_are_a_list_too(cache: Cache) -> None:
    """`values()` gives dicts, `values_list()` tuples, `raw()` instances."""

    @cache.versioned(namespace="rows")
    def rows(kind: str) -> Any:
        return {
            "dicts": Book.objects.values("title").order_by("title"),
            "tuples": Book.objects.values_list("title", "facts").order_by("title"),
            "flat": Book.objects.values_list("title", flat=True).order_by("title"),
            "raw": Book.objects.raw("SELECT * FROM books_book ORDER BY title"),
        }[kind]

    for kind, first in (("dicts", {"title": "Mugs"}), ("tuples", ("Mugs", {"a": [1, None]})), ("flat", "Mugs")):
        miss, hit = rows(kind), rows(kind)
        assert type(miss) is type(hit) is list
        assert miss == hit
        assert miss[0] == first
    assert titles(rows("raw")) == titles(rows("raw")) == ["Mugs", "Tea", "Tins"]
    assert type(rows("raw")) is list


def test_a_queryset_inside_something_is_evaluated_and_remains_one(cache: Cache) -> None:
    """The hit is evaluated already; a query made from it asks about the same rows."""

    @cache.versioned(namespace="page")
    def page() -> Any:
        return {"books": Book.objects.order_by("-price")}

    with queries() as asked:
        assert titles(page()["books"]) == ["Mugs", "Tins", "Tea"]
    assert len(asked) == 1
    Book.objects.create(title="Late", price=1, author=Author.objects.get(name="Bob"))
    with queries() as asked:
        hit = page()["books"]
        assert titles(hit) == ["Mugs", "Tins", "Tea"]
        assert (len(hit), bool(hit), hit[0].title) == (3, True, "Mugs")
    assert len(asked) == 0
    assert type(hit) is type(Book.objects.all())
    assert sorted(titles(hit.cheap())) == ["Tea", "Tins"]


def test_rows_inside_something_that_are_no_instances_are_refused_with_the_way_out(cache: Cache) -> None:
    """`values()` gives dicts: a list of them is what to put there."""

    @cache.versioned(namespace="values")
    def values() -> Any:
        return [Book.objects.values("title")]

    with pytest.raises(UnencodableValue, match=r"put list\(queryset\) there"):
        values()


@pytest.mark.parametrize("off", [False, True], ids=["cached", "turned off"])
def test_an_async_function_s_queryset_is_evaluated_as_the_loop_allows(cache: Cache, off: bool) -> None:
    """Django refuses to run a query in an event loop: it runs where Django's own asynchronous methods run theirs."""

    @cache.versioned(namespace="books")
    async def books(number: int) -> Any:
        return Book.objects.order_by("title")[:number]

    async def calls() -> list[Any]:
        found = [await books(3), await books(3), await books.refresh(3), await books.bypass(3)]
        found += await books.map([3, 3], concurrency=1)
        await books.set(Book.objects.order_by("title"), 4)
        found.append(await books(4))
        await cache.aclose()
        return found

    with cache.disabled() if off else contextlib.nullcontext():
        found = async_to_sync(calls)()
    assert [type(each) for each in found] == [list] * 7
    assert [titles(each) for each in found] == [["Mugs", "Tea", "Tins"]] * 7


def test_an_instance_is_an_argument_by_its_model_and_primary_key(cache: Cache) -> None:
    """Whatever else is in it; another model, a proxy included, is another argument; one that was never saved is refused."""

    @cache.versioned(namespace="by")
    def by(author: Any) -> str:
        return str(author)

    ann = Author.objects.get(name="Ann")
    renamed = Author(pk=ann.pk, name="Anna")
    assert by.key(ann) == by.key(renamed)
    assert by.key(ann) != by.key(Author.objects.get(name="Bob"))
    assert by.key(ann) != by.key(Tag(pk=ann.pk))
    assert by.key(Book(pk=1)) != by.key(CheapBook(pk=1))
    with pytest.raises(UnkeyableArgument, match="never saved"):
        by(Author(name="New"))


def test_an_instance_that_is_found_late_is_the_instance(cache: Cache) -> None:
    """`request.user` is such an object: the same argument as the user, whose invalidation it follows; a result too."""

    @cache.versioned(namespace="late")
    def late(author: Any) -> Any:
        return SimpleLazyObject(lambda: Author.objects.get(pk=author.pk))

    ann, bob = Author.objects.get(name="Ann"), Author.objects.get(name="Bob")
    assert late.key(SimpleLazyObject(lambda: ann)) == late.key(ann) != late.key(SimpleLazyObject(lambda: bob))
    assert late.key([SimpleLazyObject(lambda: ann)]) == late.key([ann])
    assert late.key(SimpleLazyObject(lambda: Book(pk=1))) != late.key(SimpleLazyObject(lambda: CheapBook(pk=1)))
    miss, hit = late(SimpleLazyObject(lambda: ann)), late(ann)
    assert type(miss) is type(hit) is Author
    assert miss == hit == ann
    assert late.cache_info().loads == 1
    late.invalidate(ann)
    assert late.peek(SimpleLazyObject(lambda: ann)) is None
    with pytest.raises(UnkeyableArgument, match="never saved"):
        late(SimpleLazyObject(lambda: Author(name="New")))


ANONYMOUS = """
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["memover.django", "django.contrib.contenttypes", "django.contrib.auth"])
django.setup()
from django.contrib.auth.models import AnonymousUser, User
from django.utils.functional import SimpleLazyObject
from memover import versioned_cache

class Guest(AnonymousUser):
    pass

@versioned_cache(namespace="greeting", version=1, tags=("user:{user.pk}",))
def greeting(user):
    return "" if user.is_anonymous else user.username

key = greeting.key
assert key(AnonymousUser()) == key(SimpleLazyObject(AnonymousUser)) != key(User(pk=1))
assert key(Guest()) != key(AnonymousUser())
marked = AnonymousUser()
marked.language = "de"
assert key(marked) != key(AnonymousUser())
assert [greeting(AnonymousUser()), greeting(AnonymousUser()), greeting(User(pk=1, username="ann"))] == ["", "", "ann"]
assert greeting.cache_info().loads == 2
"""


def test_the_user_of_a_request_without_one_is_an_argument() -> None:
    """Every AnonymousUser is the same, unless something was put on it."""
    subprocess.run([sys.executable, "-W", "error", "-c", ANONYMOUS], check=True)


def test_late_text_is_translated_by_each_reader(cache: Cache) -> None:
    """What is stored is the text before translation."""

    @cache.versioned(namespace="text")
    def text() -> dict[str, Any]:
        return {
            "yes": gettext_lazy("Monday"),
            "may": pgettext_lazy("alt. month", "May"),
            "where": reverse_lazy("never-asked"),
        }

    with translation.override("de"):
        text()
    hit = text()
    assert type(hit["yes"]) is type(gettext_lazy("Monday"))
    with translation.override("de"):
        assert (str(hit["yes"]), str(hit["may"])) == ("Montag", "Mai")
    with translation.override("fr"):
        assert str(hit["yes"]) == "lundi"


def test_plural_text_is_stored_untranslated(cache: Cache) -> None:
    """With its number, with the name of one, and with none; each reader translates."""

    @cache.versioned(namespace="plurals")
    def plurals() -> Any:
        return {
            "two": ngettext_lazy("%d day", "%d days", 2),
            "named": ngettext_lazy("%(days)d day", "%(days)d days", "days"),
            "later": ngettext_lazy("%d day", "%d days"),
            "context": npgettext_lazy("time", "%d day", "%d days", 1),
            "unnamed": ngettext_lazy("Monday", "Tuesday", 2),
        }

    plurals()
    hit = plurals()
    assert (plurals.cache_info().loads, plurals.cache_info().hits) == (1, 1)
    assert all(isinstance(text, Promise) for text in hit.values())
    assert str(hit["two"]) == "%d days"
    assert hit["named"] % {"days": 1} == "1 day"
    assert hit["named"].format(days=3) == "%(days)d days"
    assert (hit["later"] % 1, hit["later"] % 5) == ("1 day", "5 days")
    assert str(hit["context"]) == "%d day"
    with translation.override("de"):
        # These are in Django's own catalogue.
        days = cache.versioned(namespace="days")(lambda: ngettext_lazy("%(num)d day", "%(num)d days", "num"))
        days()
        assert [days() % {"num": number} for number in (1, 2)] == ["1 Tag", "2 Tage"]


def test_classes_of_plural_texts_are_not_kept(cache: Cache) -> None:
    """Django makes one for each text; it goes with the text."""

    @cache.versioned(namespace="number")
    def number(n: int) -> Any:
        return ngettext_lazy("%d day", "%d days", n)

    kinds = [weakref.ref(type(number(n))) for n in range(20)]
    kinds += [weakref.ref(type(number(n))) for n in range(20)]
    number.invalidate_all()
    gc.collect()
    assert [kind() for kind in kinds if kind() is not None] == []


def test_other_lazy_objects_are_refused_as_results(cache: Cache) -> None:
    """What computes something later would compute it in another process, in another place."""

    @cache.versioned(namespace="lazy")
    def upper() -> Any:
        return [lazy(str.upper, str)("a")]

    with pytest.raises(UnencodableValue, match=r"\$\[0\].*return its value"):
        upper()


def test_an_instance_of_a_model_with_other_fields_is_a_miss(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never served without its new field."""
    runs: list[int] = []

    @cache.versioned(namespace="old")
    def old() -> Any:
        runs.append(1)
        return Author.objects.get(name="Ann")

    old()
    old()
    from memover.django import values

    monkeypatch.setattr(values, "_fields_digest", lambda model: "00000000")
    old()
    assert runs == [1, 1]


def test_saving_invalidates_when_the_transaction_is_committed(cache: Cache) -> None:
    """The recipe of docs/moving/django.md: `post_save`, then `transaction.on_commit`."""

    @cache.versioned(namespace="of-author", tags=("author:{author.pk}",))
    def titles(author: Author) -> list[str]:
        return [each.title for each in author.books.order_by("title")]

    def saved(sender: Any, instance: Book, **_: Any) -> None:
        transaction.on_commit(lambda: cache.invalidate_tags(f"author:{instance.author_id}"))

    post_save.connect(saved, sender=Book)
    try:
        ann = Author.objects.get(name="Ann")
        assert titles(ann) == ["Mugs", "Tea"]
        with transaction.atomic():
            Book.objects.create(title="Cups", price=1, author=ann)
            assert titles(ann) == ["Mugs", "Tea"]
        assert titles(ann) == ["Cups", "Mugs", "Tea"]
        with pytest.raises(ZeroDivisionError), transaction.atomic():  # noqa: PT012
            Book.objects.create(title="Lost", price=1, author=ann)
            raise ZeroDivisionError
        assert titles.peek(ann) is not None
    finally:
        post_save.disconnect(saved, sender=Book)


def test_async_functions_return_instances(cache: Cache) -> None:
    """From the cache into a coroutine, without a query."""

    @cache.versioned(namespace="abook")
    async def book(title: str) -> Book:
        return await Book.objects.select_related("author").aget(title=title)

    async def twice() -> tuple[Book, Book]:
        return await book("Tea"), await book("Tea")

    with isolated_caches():
        Author.objects.get(name="Ann")
        hit = Book.objects.select_related("author").get(title="Tea")
    asyncio.run(book.set(hit, "Tea"))
    first, second = asyncio.run(twice())
    assert (first.author.name, second) == ("Ann", hit)
