"""`manage.py memover`: the command line in a project as `startproject` makes it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

MANAGE = """\
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
SETTINGS = """\
from pathlib import Path
BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "x"
INSTALLED_APPS = ["memover.django", "books"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
ROOT_URLCONF = "shop.urls"
CACHES = {"default": {"BACKEND": "memover.django.MemoverCache", "LOCATION": "redis://127.0.0.1:1/0", "KEY_PREFIX": "s"}}
"""
APPS = """\
from pathlib import Path
from django.apps import AppConfig

class BooksConfig(AppConfig):
    name = "books"

    def ready(self):
        with open(Path(__file__).with_name("ready.txt"), "a") as file:
            file.write("ready\\n")
"""
MODELS = """\
from django.db import models
from memover import versioned_cache

class Book(models.Model):
    title = models.CharField(max_length=100)

@versioned_cache(namespace="titles", version=1, cache="default")
def titles(author: int) -> list[str]:
    return list(Book.objects.values_list("title", flat=True))
"""
QUERIES = """\
from books.models import Book
from memover import versioned_cache

@versioned_cache(namespace="count", version=1, cache="default")
def count(author: int) -> int:
    return Book.objects.count()
"""
BOOKS = """
@versioned_cache(namespace="book", version=1, cache="default")
def book(pk: int) -> Book: ...

@versioned_cache(namespace="books", version=1, cache="default")
def books(pk: int) -> list[Book]: ...
"""


class Project:
    """A project in a directory of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for path, text in {
            "manage.py": MANAGE,
            "shop/__init__.py": "",
            "shop/settings.py": SETTINGS,
            "shop/urls.py": "urlpatterns = []\n",
            "books/__init__.py": "",
            "books/apps.py": APPS,
            "books/models.py": MODELS,
            "books/queries.py": QUERIES,
            "pyproject.toml": "[project]\nname = 'shop'\n",
        }.items():
            file = root / path
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)

    def run(self, *args: str, status: int = 0, program: tuple[str, ...] = ("manage.py", "memover")) -> str:
        env = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        ended = subprocess.run(
            [sys.executable, *program, *args],
            cwd=self.root,
            env={**env, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == status, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def ready(self) -> int:
        """How often the application was set up since the last time of asking."""
        file = self.root / "books/ready.txt"
        count = len(file.read_text().splitlines()) if file.exists() else 0
        file.unlink(missing_ok=True)
        return count

    def change(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_check_needs_no_target_that_sets_django_up_and_sets_nothing_up_twice(project: Project) -> None:
    """manage.py has done so; what models decorate and what only the command imports is found."""
    assert "2 functions" in project.run("lock", "books")
    assert project.ready() == 1
    assert "no findings" in project.run("check", "books")
    assert project.ready() == 1


def test_advice_is_what_can_be_typed_there(project: Project) -> None:
    """`python manage.py memover ...`, with the targets that were named; and it mends what was found."""
    project.run("lock", "books")
    project.change("books/models.py", "-> list[str]", "-> list[bytes]")
    project.change("books/queries.py", "-> int", "-> str")
    told = project.run("check", "books", status=1)
    assert "fix: python manage.py memover bump titles --target books" in told
    assert "titles 1 -> 2" in project.run("bump", "titles", "--target", "books")
    assert "count 1 -> 2" in project.run("bump", "--all", "--target", "books")
    assert "no findings" in project.run("check", "books")


def test_a_field_added_to_a_model_is_found_where_it_is(project: Project) -> None:
    """As one of any other class: one finding with the functions that return the model, and the command that mends it."""
    with open(project.root / "books/queries.py", "a") as file:
        file.write(BOOKS)
    project.run("lock", "books")
    field = "    title = models.CharField(max_length=100)\n"
    project.change("books/models.py", field, f"{field}    pages = models.IntegerField(null=True)\n")
    told = project.run("check", "books", status=1)
    assert "books/models.py:6: MV001 book, books: the shape of Book changed" in told
    assert "Book.pages is new: int | None" in told
    assert "no findings" in project.run("check", "books", "--fix")


def test_a_queryset_says_nothing_of_its_model_and_that_is_said(project: Project) -> None:
    """At run time `QuerySet[Book]` is QuerySet: a warning says to write `list[Book]`, which is what callers get."""
    with open(project.root / "books/queries.py", "a") as file:
        file.write(
            "from django.db.models import QuerySet\n"
            '@versioned_cache(namespace="all", version=1, cache="default")\n'
            "def every(a: int) -> QuerySet[Book]: ...\n"
        )
    project.run("lock", "books")
    told = project.run("check", "books")
    assert "MV007 all: the result's type is only partly known: what the rows of QuerySet are is not known" in told
    assert "write list[...] of the model in place of QuerySet" in told
    project.change("books/queries.py", "-> QuerySet[Book]", "-> list[Book]")
    project.run("bump", "all", "--target", "books")
    assert "no findings" in project.run("check", "books")


def test_fix_mends_what_manage_py_had_imported_already(project: Project) -> None:
    """The source is looked at again after it was changed, in a new process."""
    project.run("lock", "books")
    project.change("books/models.py", "-> list[str]", "-> list[bytes]")
    told = project.run("check", "books", "--fix")
    assert "books/models.py:7: titles 1 -> 2" in told
    assert "no findings" in told
    assert "no findings" in project.run("check", "books")
    assert 'version=2, cache="default"' in (project.root / "books/models.py").read_text()


def test_outside_of_manage_py_the_finding_names_the_way_out(project: Project) -> None:
    """`memover check` alone sets nothing up, and says how it is done."""
    project.run("lock", "books")
    told = project.run("check", "books", status=1, program=("-m", "memover"))
    assert "MV008" in told
    assert "python manage.py memover" in told
