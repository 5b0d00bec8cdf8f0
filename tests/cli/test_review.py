"""What a reviewer sees: one finding for each class that changed, where its field is; and what is no finding at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from memover.schema.lock import read_lock

if TYPE_CHECKING:
    from .conftest import App

MODELS = """\
from dataclasses import dataclass


@dataclass
class Record:
    id: int


@dataclass
class Profile(Record):
    name: str


@dataclass
class Account(Record):
    owner: Profile
"""
VIEWS = """\
from memover import versioned_cache

from shop.models import Account, Profile


@versioned_cache(namespace="profiles", version=2, ttl=60)
def profile(user_id: int) -> Profile:
    return Profile(user_id, "")


@versioned_cache(namespace="accounts")
def account(user_id: int) -> list[Account]:
    return []


@versioned_cache(namespace="names", tags=("user:{user_id}", lambda call: [call.key]))
def name(user_id: int) -> str:
    return ""
"""


@pytest.fixture
def shop(app: App) -> App:
    app.write("shop/__init__.py", "")
    app.write("shop/models.py", MODELS)
    app.write("shop/views.py", VIEWS)
    app.lock()
    return app


def test_one_changed_class_is_one_finding_where_its_field_is(shop: App) -> None:
    """With the functions that store it, directly or inside another class, and one command for all of them."""
    shop.change("shop/models.py", "    name: str\n", "    name: str\n    email: str | None = None\n")
    (found,) = shop.check()
    assert (found.code, found.path, found.line) == ("MV001", "shop/models.py", 12)
    assert found.functions == ("accounts", "profiles")
    assert "accounts (1), profiles (2)" in found.message
    assert found.details == ("Profile.email is new: str | None",)
    assert found.fixes[0] == "memover bump accounts profiles"
    told = shop.run("check", status=1)
    assert "shop/models.py:12: MV001 accounts, profiles: the shape of Profile changed" in told
    shop.run("bump", "accounts", "profiles")
    assert shop.check() == []


def test_a_field_of_a_base_class_is_one_finding_at_the_base(shop: App) -> None:
    """However many classes inherit it."""
    shop.change("shop/models.py", "    id: int\n", "    id: str\n")
    (found,) = shop.check()
    assert (found.path, found.line) == ("shop/models.py", 6)
    assert set(found.details) == {"Account.id: int -> str", "Profile.id: int -> str"}


def test_a_class_of_one_function_names_the_function(shop: App) -> None:
    """The place is the class's, so the message says which function stores it."""
    shop.change("shop/models.py", "    owner: Profile\n", "    owner: Profile\n    open: bool = True\n")
    (found,) = shop.check()
    assert (found.path, found.line) == ("shop/models.py", 17)
    assert "shop.views:account" in found.message


def test_two_classes_are_two_findings_and_an_exception_covers_several_functions(shop: App) -> None:
    """`--accept` takes the names of the finding."""
    shop.change("shop/models.py", "    name: str\n", "    name: bytes\n")
    shop.change("shop/models.py", "    owner: Profile\n", "    owner: Profile\n    open: bool = True\n")
    assert [(each.code, each.line) for each in shop.check()] == [("MV001", 11), ("MV001", 17)]
    shop.run("lock", "--accept", "MV001", "accounts", "profiles", "--reason", "cold anyway")
    assert shop.check() == []


def test_a_comment_at_one_function_takes_it_out_of_the_finding(shop: App) -> None:
    """The others stay in."""
    shop.change("shop/models.py", "    name: str\n", "    name: bytes\n")
    shop.change(
        "shop/views.py",
        '@versioned_cache(namespace="accounts")',
        '@versioned_cache(namespace="accounts")  # memover: ignore',
    )
    (found,) = shop.check()
    assert found.functions == ("profiles",)


def test_a_function_that_moved_is_no_finding(shop: App) -> None:
    """Under the same namespace, version and shape its entries are as good as before; the next lock says where it is."""
    views = shop.read("shop/views.py")
    shop.write("shop/views.py", views.replace('    return Profile(user_id, "")', "    return Profile(user_id, '')"))
    shop.write("shop/people.py", shop.read("shop/views.py"))
    shop.write("shop/views.py", "")
    assert shop.check() == []
    shop.lock()
    assert read_lock(shop.read("memover.lock")).functions["profiles"].function == "shop.people:profile"


def test_a_function_that_moved_and_changed_is_found(shop: App) -> None:
    """Moving hides nothing."""
    shop.write("shop/people.py", shop.read("shop/views.py").replace("-> str", "-> bytes"))
    shop.write("shop/views.py", "")
    assert shop.codes() == ["MV001"]


def test_ttl_and_tags_are_in_the_lock_for_the_reviewer_and_never_a_finding(shop: App) -> None:
    """A change of them shows in the lock's diff."""
    before = shop.read("memover.lock")
    assert 'ttl = "1m"' in before
    assert '"user:{user_id}",\n    "callable shop.views:<lambda>",' in before
    shop.change("shop/views.py", "ttl=60", 'ttl="90m"')
    shop.change("shop/views.py", '"user:{user_id}"', '"owner:{user_id}"')
    assert shop.check() == []
    shop.run("lock")
    changed = [line for line in shop.read("memover.lock").splitlines() if line not in before.splitlines()]
    assert changed == ['    "owner:{user_id}",', 'ttl = "90m"'] or changed == ['ttl = "90m"', '    "owner:{user_id}",']


def test_what_is_not_known_is_said_as_it_is(shop: App) -> None:
    """A class without annotations, a name that is not there at run time, and how to mend each."""
    shop.write(
        "shop/odd.py",
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nfrom memover import versioned_cache\n"
        "if TYPE_CHECKING:\n    from decimal import Decimal as Money\n\n"
        "class Blank:\n    def __init__(self, size):\n        self.size = size\n\n"
        "@versioned_cache(namespace='blank')\ndef blank() -> list[Blank]: ...\n\n"
        "@versioned_cache(namespace='money')\ndef money() -> list[Money]: ...\n",
    )
    shop.lock()
    blank, money = shop.check()
    assert (blank.code, blank.level, money.code) == ("MV007", "warning", "MV007")
    assert "Blank.size has no annotation" in blank.message
    assert blank.fixes == ("annotate Blank.size",)
    assert "Money is a name that does not exist when the program runs" in money.message
    assert "TYPE_CHECKING" in money.fixes[0]


def test_a_module_that_does_not_import_is_found_with_the_way_out(shop: App) -> None:
    """What to install, or where to look."""
    shop.write("shop/late.py", "import libraryofnobody\n")
    (found,) = shop.check()
    assert "install libraryofnobody" in found.fixes[0]
    (found,) = [each for each in shop.check("shop", "nopackage") if each.namespace == "nopackage"]
    assert "paths" in found.fixes[0]
