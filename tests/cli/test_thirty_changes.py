"""The changes of an ordinary year, each with the verdict that a careful reviewer would give."""

from __future__ import annotations

import pytest

from .conftest import App

MODELS = '''\
from __future__ import annotations

import enum
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar

import pydantic

T = TypeVar("T")
UserId = NewType("UserId", int)


class Status(enum.Enum):
    ACTIVE = "a"
    GONE = "g"


class Place(NamedTuple):
    lat: float
    lon: float


class Row(TypedDict):
    id: int
    note: str


@dataclass
class Country:
    code: str


@dataclass
class Town:
    name: str
    country: Country


@dataclass
class Address:
    """Where somebody lives."""

    street: str
    town: Town
    place: Place | None = None


@dataclass
class Base:
    created: int


@dataclass
class Page(Generic[T]):
    items: list[T]
    total: int


@dataclass
class Profile(Base):
    id: UserId
    name: str
    status: Status
    addresses: list[Address]
    theme: Literal["dark", "light"]
    row: Row
    size: Annotated[int, "pixels"] = 0
    parent: Profile | None = None
    either: int | str = 0


class Order(pydantic.BaseModel):
    number: int = pydantic.Field(alias="orderNumber")

    @pydantic.computed_field
    @property
    def label(self) -> str:
        return f"#{self.number}"
'''

VIEWS = '''\
from memover import versioned_cache

from shop.models import Order, Page, Profile, Status
from shop.rates import rate

LIMIT = 3


def helper(user_id: int) -> int:
    return user_id + 1


@versioned_cache(namespace="profiles", version=2, ttl=60)
def profile(user_id: int, region: str = "eu") -> Profile:
    """One profile."""
    return load(helper(user_id))


@versioned_cache(namespace="orders", version=2, ttl="1h")
def orders(user_id: int) -> Page[Order]:
    return Page([], rate(user_id))


@versioned_cache(namespace="counts", version=2, key="{user_id}:{region}")
def count(user_id: int, region: str) -> int:
    return user_id


def load(user_id):
    raise NotImplementedError
'''

RATES = "def rate(user_id):\n    return user_id * 2\n"

M, V, R = "shop/models.py", "shop/views.py", "shop/rates.py"

OTHER = """\
    @pydantic.computed_field
    @property
    def other(self) -> int:
        return 1

    @pydantic.computed_field
    @property
    def label"""
NOTHING: list[str] = []
SHAPE, REUSED, CLASH, STALE, MEANING, BODY, UNKNOWN = (f"MV00{n}" for n in range(1, 8))

CHANGES = {
    # What the stored bytes mean changes: a new version is due.
    "a field is added": (M, "    name: str\n    status", "    name: str\n    email: str | None\n    status", [SHAPE]),
    "a field is removed": (M, "    size: Annotated[int, \"pixels\"] = 0\n", "", [SHAPE]),
    "a field is renamed": (M, "    street: str", "    line: str", [SHAPE]),
    "a field's type changes": (M, "    street: str", "    street: bytes", [SHAPE]),
    "a field becomes optional": (M, "    code: str", "    code: Optional[str]", [SHAPE]),
    "a class three levels down changes": (M, "    code: str", "    code: str\n    name: str", [SHAPE]),
    "a field is added to a base class": (M, "    created: int", "    created: int\n    changed: int", [SHAPE]),
    "a literal gains a member": (M, '["dark", "light"]', '["dark", "light", "auto"]', [SHAPE]),
    "an enum gains a member": (M, '    GONE = "g"', '    GONE = "g"\n    NEW = "n"', [SHAPE]),
    "an enum's value changes": (M, '    GONE = "g"', '    GONE = "x"', [SHAPE]),
    "a named tuple is reordered": (M, "    lat: float\n    lon: float", "    lon: float\n    lat: float", [SHAPE]),
    "a typed dict is no longer total": (M, "Row(TypedDict)", "Row(TypedDict, total=False)", [SHAPE]),
    "a generic argument changes": (V, "-> Page[Order]", "-> Page[Profile]", [SHAPE]),
    "a new type has another base": (M, 'NewType("UserId", int)', 'NewType("UserId", str)', [SHAPE]),
    "a union gains a member": (M, "int | str = 0", "int | str | bytes = 0", [SHAPE]),
    "a forward reference means something else": (M, "parent: Profile | None", "parent: Address | None", [SHAPE]),
    "the result becomes optional": (V, "-> Profile:", "-> Profile | None:", [SHAPE]),
    "a dataclass becomes a pydantic model": (
        M, "@dataclass\nclass Country:", "class Country(pydantic.BaseModel):", [SHAPE],
    ),
    "a cached computed field is stored": (
        M, "    @pydantic.computed_field\n    @property", "    @pydantic.computed_field\n    @cached_property", [SHAPE],
    ),
    # Nothing that is stored changes.
    "a default changes": (M, "place: Place | None = None", "place: Place | None = field(default=None)", NOTHING),
    "a docstring changes": (M, '"""Where somebody lives."""', '"""A place to live."""', NOTHING),
    "the function's docstring changes": (V, '"""One profile."""', '"""A profile."""', NOTHING),
    "fields are reordered": (
        M, "    street: str\n    town: Town", "    town: Town\n    street: str", NOTHING,
    ),
    "a union is reordered": (M, "int | str = 0", "str | int = 0", NOTHING),
    "an optional is spelled otherwise": (M, "parent: Profile | None", "parent: Optional[Profile]", NOTHING),
    "a literal is reordered": (M, '["dark", "light"]', '["light", "dark"]', NOTHING),
    "annotated metadata changes": (M, '"pixels"', '"millimetres"', NOTHING),
    "a new type becomes its base": (M, "    id: UserId", "    id: int", NOTHING),
    "an alias changes": (M, '"orderNumber"', '"order_number"', NOTHING),
    "a computed field is added": (
        M, "    @pydantic.computed_field\n    @property\n    def label",
        OTHER, NOTHING,
    ),
    "an enum is reordered": (M, '    ACTIVE = "a"\n    GONE = "g"', '    GONE = "g"\n    ACTIVE = "a"', NOTHING),
    "the ttl changes": (V, "ttl=60", "ttl=3600", NOTHING),
    "a parameter's default changes": (V, 'region: str = "eu"', 'region: str = "us"', NOTHING),
    "the body changes": (V, "helper(user_id))", "helper(user_id) + 1)", NOTHING),
    # The version.
    "the version is lowered": (V, 'namespace="profiles", version=2', 'namespace="profiles", version=1', [REUSED]),
    "the version is bumped": (V, 'namespace="profiles", version=2', 'namespace="profiles", version=3', [STALE]),
    "a namespace is taken twice": (V, 'namespace="orders"', 'namespace="profiles"', [STALE, CLASH]),
    "a namespace is renamed": (V, 'namespace="orders"', 'namespace="purchases"', [STALE, STALE]),
    # The functions.
    "a function is added": (
        V, "def load(", "@versioned_cache(namespace='more')\ndef more() -> int:\n    return 1\n\n\ndef load(", [STALE],
    ),
    "a function is no longer cached": (V, '@versioned_cache(namespace="orders", version=2, ttl="1h")\n', "", [STALE]),
    "a function is renamed": (V, "def orders(", "def purchases(", [STALE]),
    "the annotation is gone": (V, " -> Page[Order]:", ":", [STALE, UNKNOWN]),
    # The parameters.
    "a parameter is added": (V, 'region: str = "eu")', 'region: str = "eu", lang: str = "en")', [STALE]),
    "a parameter is renamed": (V, "def orders(user_id: int)", "def orders(user: int)", [STALE]),
    "parameters are reordered": (
        V, 'profile(user_id: int, region: str = "eu")', 'profile(region: str = "eu", user_id: int = 0)', [STALE],
    ),
    "a parameter is added that the key template leaves out": (
        V, "def count(user_id: int, region: str)", "def count(user_id: int, region: str, lang: str)", [MEANING],
    ),
    "the key template names another parameter": (V, '"{user_id}:{region}"', '"{region}:{user_id}"', [MEANING]),
    "the key template's parameter is renamed": (
        V, 'key="{user_id}:{region}")\ndef count(user_id: int', 'key="{user:}:{region}")\ndef count(user: int', [STALE],
    ),
}  # fmt: skip


def build(app: App) -> None:
    app.write("shop/__init__.py", "")
    app.write(M, MODELS)
    app.write(V, VIEWS)
    app.write(R, RATES)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The lock of the application as it is above: written once."""
    app = App(tmp_path_factory.mktemp("locked"))
    build(app)
    app.lock()
    return app.read("memover.lock")


@pytest.fixture
def shop(app: App, locked: str) -> App:
    build(app)
    app.write("memover.lock", locked)
    return app


def test_nothing_changed_and_nothing_is_found(shop: App) -> None:
    """An application that is as its lock says passes."""
    assert shop.check() == []


@pytest.mark.parametrize("change", CHANGES)
def test_the_verdict_is_the_reviewers(shop: App, change: str) -> None:
    """Each change is found, or let pass, as somebody who knows what is stored would say."""
    path, old, new, verdict = CHANGES[change]
    shop.change(path, old, new.replace("{user:}", "{user}"))
    if change == "the key template's parameter is renamed":
        shop.change(V, "return user_id\n", "return user\n")
    assert sorted(shop.codes()) == sorted(verdict), shop.check()


def test_a_class_that_moves_to_another_module_is_no_change(shop: App) -> None:
    """What is stored is the same wherever its class is defined."""
    models = shop.read(M)
    place = models[models.index("class Place") : models.index("class Row")]
    shop.write(M, models.replace(place, "from shop.places import Place\n\n\n"))
    shop.write("shop/places.py", f"from typing import NamedTuple\n\n\n{place}")
    assert shop.check() == []


def test_a_typed_dict_that_is_renamed_only_needs_a_new_lock(shop: App) -> None:
    """A typed dict's name is not stored: no bump, but the lock is text for readers."""
    shop.write(M, shop.read(M).replace("Row", "Record"))
    assert shop.codes() == [STALE]


@pytest.mark.parametrize(("level", "expected"), [("off", []), ("warn", ["warning"]), ("error", ["error"])])
@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        (V, "helper(user_id))", "helper(user_id) + 1)"),
        (V, "return user_id + 1", "return user_id + 2"),
        (R, "user_id * 2", "user_id * 3"),
    ],
    ids=["its own", "a helper's", "a helper's in another module"],
)
def test_a_changed_body_counts_as_configured(
    shop: App, level: str, expected: list[str], path: str, old: str, new: str
) -> None:
    """Off, a warning, or an error: for the function's own source and for local functions it calls."""
    shop.change(path, old, new)
    found = shop.check(body=level)
    assert [(each.code, each.level) for each in found] == [(BODY, each) for each in expected]


def test_comments_and_layout_are_no_change_of_a_body(shop: App) -> None:
    """Only what runs counts."""
    shop.change(
        V, "    return load(helper(user_id))", "    # as before\n    return load(\n        helper(user_id),\n    )"
    )
    assert shop.check(body="error") == []
