"""Shapes of classes that declare no fields: plain classes, Django models, mapped classes of SQLAlchemy."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, ClassVar

import pytest

from memover.classes.annotations import Scope
from memover.schema.compare import changes
from memover.schema.reader import AnnotationReader
from memover.schema.shape import Shape, parse


def annotation_shape(annotation: Any, module: str) -> Shape:
    return AnnotationReader().shape(annotation, Scope(module))


class Annotated:
    """Says what it holds in its body."""

    name: str
    size: int = 1
    table: ClassVar[str] = "t"


class Taking:
    """Says it by what it takes, and keeps it under the same names."""

    def __init__(self, name: str, size: int = 1) -> None:
        self.name = name
        self.size = size


class Hiding:
    """Keeps it under other names."""

    def __init__(self, name: str, size: int) -> None:
        self._n = name
        self._s = size


class Setting:
    """Takes nothing that is annotated."""

    def __init__(self) -> None:
        self.name = "x"
        self.size = 1


class Empty:
    """Holds nothing."""


class Below(Taking):
    """Takes what its base takes."""

    more: float


class Counting(Taking):
    """Keeps what it takes, what it makes of that, and what its base keeps."""

    def __init__(self, name: str, rows: list[int], limit: int | None = None) -> None:
        super().__init__(name, len(rows))
        self.rows = [*rows]
        self.first, self.last = rows[0], rows[-1]
        self._limit = limit or len(rows)
        self._rows = rows
        rows.owner = self  # type: ignore[attr-defined]


class Apart(Taking):
    """Does not do what its base does."""

    def __init__(self) -> None:
        self.other = 1


class Choosing:
    """Keeps one of two things: an expression that ends a function has two ends on some Pythons, and one on others."""

    def __init__(self, name: str, keep: bool) -> None:
        self._keep = keep
        self._name = name if keep else None


class Frozen:
    """Sets its attributes in a way that does not show."""

    def __init__(self, name: str) -> None:
        self.__dict__.update(name=name)


TEXTS = {
    Annotated: "plain Annotated\n  name: str\n  size: int\n",
    Taking: "plain Taking\n  name: str\n  size: int\n",
    Hiding: "plain Hiding\n  _n: str\n  _s: int\n",
    Setting: "plain Setting\n  name: ?\n  size: ?\n",
    Empty: "plain Empty\n",
    Below: "plain Below\n  more: float\n  name: str\n  size: int\n",
    Counting: "plain Counting\n  _limit: ?\n  _rows: list[int]\n  first: ?\n  last: ?\n  name: str\n  rows: list[int]\n"
    "  size: int\n",
    Apart: "plain Apart\n  other: ?\n",
    Choosing: "plain Choosing\n  _keep: bool\n  _name: ?\n",
    Frozen: "plain Frozen\n  name: str\n",
}


@pytest.mark.parametrize("kind", TEXTS, ids=lambda kind: kind.__name__)
def test_a_plain_class_shows_what_can_be_known_of_it(kind: Any) -> None:
    """Annotated attributes and what `__init__` sets, with the types of the parameters that it keeps."""
    shape = annotation_shape(list[kind], __name__)
    assert str(shape) == f"list[{kind.__name__}]\n\n{TEXTS[kind]}"
    assert parse(str(shape)) == shape


def test_what_is_unknown_is_told_apart() -> None:
    """Names that mean nothing here, and fields without an annotation; a class that resolves has neither."""
    assert annotation_shape(Empty, __name__).unknown == ()
    found = annotation_shape(dict[Setting, "Nowhere"], __name__)  # type: ignore[name-defined]  # noqa: F821
    assert found.unknown == ("?", "?Nowhere")


def test_a_new_field_of_a_plain_class_is_a_change() -> None:
    """Wherever it is declared."""
    for old, new in ((Taking, Below), (Empty, Setting), (Empty, Hiding), (Taking, Counting), (Empty, Apart)):
        before = annotation_shape(old, __name__)
        after = parse(str(annotation_shape(new, __name__)).replace(new.__name__, old.__name__))
        assert changes(before, after)
        assert before.fingerprint != after.fingerprint


MODELS = """
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=[], DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", USE_TZ=True)
django.setup()
from django.db import models
from memover.schema.derive import shape_of
from memover.errors import UnkeyableArgument
from memover.keys.canonical import encode, register_key

class Author(models.Model):
    name = models.CharField(max_length=10)
    class Meta: app_label = "shop"

class Base(models.Model):
    made = models.DateTimeField(null=True)
    class Meta:
        app_label = "shop"
        abstract = True

class Book(Base):
    slug = models.SlugField(primary_key=True)
    title = models.TextField()
    author = models.ForeignKey(Author, on_delete=models.CASCADE)
    next = models.OneToOneField("self", null=True, on_delete=models.CASCADE)
    price = models.DecimalField(max_digits=5, decimal_places=2)
    tags = models.ManyToManyField(Author, related_name="tagged")
    meta = models.JSONField(default=dict)
    class Meta: app_label = "shop"

def books() -> list[Book]: ...
print(shape_of(books))
for value in (Book(slug="a"), Book.objects.all()):
    try:
        encode(value, "book", "price_of")
    except UnkeyableArgument as error:
        print(error)
register_key(models.Model, lambda row: (row._meta.label_lower, row.pk))
print(encode(Book(slug="a")) == encode(Book(slug="a", title="other")), encode(Book(slug="a")) == encode(Book(slug="b")))
"""


def test_a_django_model_shows_its_columns() -> None:
    """Each by the attribute that holds it; foreign keys as what they refer to. As an argument it is refused or keyed."""
    pytest.importorskip("django")
    ended = subprocess.run([sys.executable, "-c", MODELS], capture_output=True, text=True, check=True)
    shape, told = ended.stdout.rsplit("\n\n", 1)
    assert shape == (
        "list[Book]\n\nmodel Book\n  author_id: int\n  made: datetime | None\n  meta: Any\n  next_id: str | None\n"
        "  price: Decimal\n  slug: str\n  title: str"
    )
    row, query, keyed = told.splitlines()
    assert "pass what the row is found by, as in f(book.pk)" in row
    assert "ignore=('book',)" in row
    assert "pass what the query is made from" in query
    assert keyed == "True False"


def test_a_mapped_class_of_sqlalchemy_shows_its_columns() -> None:
    """`Mapped[int]` is an int."""
    orm = pytest.importorskip("sqlalchemy.orm")

    class Base(orm.DeclarativeBase):  # type: ignore[misc, name-defined]
        pass

    namespace: dict[str, Any] = {
        "__tablename__": "book",
        "__annotations__": {"id": orm.Mapped[int], "title": orm.Mapped[str | None]},
        "__module__": __name__,
        "id": orm.mapped_column(primary_key=True),
    }
    assert (
        str(annotation_shape(type("Book", (Base,), namespace), __name__))
        == "Book\n\nplain Book\n  id: int\n  title: str | None\n"
    )
