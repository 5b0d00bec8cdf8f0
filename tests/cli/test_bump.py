"""`memover bump` changes the digits of one number, or says where they are and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from memover.cli.bump import bump

if TYPE_CHECKING:
    from .conftest import App

HEAD = "from memover import versioned_cache\n\n"

EDITED = {
    "a literal": (
        '@versioned_cache(namespace="n", version=2, ttl=60)\ndef f() -> int: return 1\n',
        '@versioned_cache(namespace="n", version=3, ttl=60)\ndef f() -> int: return 1\n',
    ),
    "odd formatting": (
        '@versioned_cache(  # é\n    ttl = 60,\n    version = 2,   # why not\n\n    namespace = "n" )\ndef f() -> int: return 1\n',
        '@versioned_cache(  # é\n    ttl = 60,\n    version = 3,   # why not\n\n    namespace = "n" )\ndef f() -> int: return 1\n',
    ),
    "letters of several bytes before it": (
        '@versioned_cache(namespace="n", cache_if=lambda r, c: r != "é", version=2)\ndef f(a: int) -> int: return 1\n',
        '@versioned_cache(namespace="n", cache_if=lambda r, c: r != "é", version=3)\ndef f(a: int) -> int: return 1\n',
    ),
    "no version": (
        '@versioned_cache(namespace="n", ttl=60)\ndef f() -> int: return 1\n',
        '@versioned_cache(namespace="n", version=2, ttl=60)\ndef f() -> int: return 1\n',
    ),
    "a constant": (
        'V = 2  # the version\n\n@versioned_cache(namespace="n", version=V)\ndef f() -> int: return 1\n',
        'V = 3  # the version\n\n@versioned_cache(namespace="n", version=V)\ndef f() -> int: return 1\n',
    ),
    "an annotated constant, and a constant namespace": (
        'V: int = 2\nN = "n"\n\n@versioned_cache(namespace=N, version=V)\ndef f() -> int: return 1\n',
        'V: int = 3\nN = "n"\n\n@versioned_cache(namespace=N, version=V)\ndef f() -> int: return 1\n',
    ),
    "an alias of the decorator": (
        'import memover as m\nfrom memover import versioned_cache as vc\n\n@vc(namespace="n", version=2)\ndef f() -> int: return 1\n',
        'import memover as m\nfrom memover import versioned_cache as vc\n\n@vc(namespace="n", version=3)\ndef f() -> int: return 1\n',
    ),
    "a cache's own decorator, on a method": (
        'from memover import Cache\nc = Cache()\n\nclass A:\n    @staticmethod\n    @c.versioned(namespace="n", version=2)\n    def f() -> int: return 1\n',
        'from memover import Cache\nc = Cache()\n\nclass A:\n    @staticmethod\n    @c.versioned(namespace="n", version=3)\n    def f() -> int: return 1\n',
    ),
    "applied by a call": (
        'def g() -> int: return 1\n\nf = versioned_cache(namespace="n", version=2)(g)\n',
        'def g() -> int: return 1\n\nf = versioned_cache(namespace="n", version=3)(g)\n',
    ),
    "ten from nine": (
        '@versioned_cache(namespace="n", version=9)\ndef f() -> int: return 1\n',
        '@versioned_cache(namespace="n", version=10)\ndef f() -> int: return 1\n',
    ),
}

REFUSED = {
    "a constant of another module": (
        'from shop.numbers import V\n\n@versioned_cache(namespace="n", version=V)\ndef f() -> int: return 1\n',
        "shop/views.py:5: version=V comes from elsewhere",
    ),
    "a constant that others use": (
        'V = 2\nW = V + 1\n\n@versioned_cache(namespace="n", version=V)\ndef f() -> int: return 1\n',
        "is used in other places too (line 4)",
    ),
    "an expression": (
        '@versioned_cache(namespace="n", version=1 + 1)\ndef f() -> int: return 1\n',
        "shop/views.py:3: version=1 + 1 is computed",
    ),
    "options from a mapping": (
        'O = {"version": 2}\n\n@versioned_cache(namespace="n", **O)\ndef f() -> int: return 1\n',
        "the options come from a mapping",
    ),
    "a decorator of one's own": (
        'def mine(n, v):\n    return versioned_cache(namespace=n, version=v)\n\n@mine("n", 2)\ndef f() -> int: return 1\n',
        "no call in this file says namespace='n'",
    ),
}


def write(app: App, source: str) -> None:
    app.write("shop/__init__.py", "")
    app.write("shop/numbers.py", "V = 2\n")
    app.write("shop/views.py", HEAD + source)


@pytest.mark.parametrize("case", EDITED)
def test_only_the_number_changes(app: App, case: str) -> None:
    """Formatting, comments and everything else stay byte for byte, and the lock follows."""
    before, after = EDITED[case]
    write(app, before)
    app.lock()
    bump(app.project(), ["n"])
    assert app.read("shop/views.py") == HEAD + after
    assert app.check() == []


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_edited_safely_is_refused_with_its_place(app: App, case: str) -> None:
    """Status 2, and no file has changed."""
    source, told = REFUSED[case]
    write(app, source)
    app.lock()
    lock = app.read("memover.lock")
    assert told in app.run("bump", "n", status=2)
    assert app.read("shop/views.py") == HEAD + source
    assert app.read("memover.lock") == lock


def test_line_ends_a_mark_and_an_encoding_are_kept(app: App) -> None:
    """Windows files, and such as are not UTF-8."""
    write(app, "")
    text = '# -*- coding: latin-1 -*-\r\nfrom memover import versioned_cache\r\n\r\nE = "é"\r\n'
    text += '@versioned_cache(namespace="n", cache_if=lambda r, c: r != "é", version=2)\r\ndef f() -> int:\r\n    return 1\r\n'
    file = app.root / "shop/views.py"
    file.write_bytes(text.encode("latin-1"))
    app.run("bump", "n")
    assert file.read_bytes() == text.replace("version=2", "version=3").encode("latin-1")
    marked = "\ufefffrom memover import versioned_cache\n@versioned_cache(version=2, namespace='n')\ndef f() -> int: return 1\n"
    file.write_bytes(marked.encode())
    app.run("bump", "n")
    assert file.read_bytes() == marked.replace("version=2", "version=3").encode()


def test_a_function_can_be_named_instead_of_its_namespace(app: App) -> None:
    """And a name that fits nothing lists what there is."""
    write(app, EDITED["a literal"][0])
    app.run("bump", "shop.views:f")
    app.run("bump", "f", "--to", "7")
    assert "version=7" in app.read("shop/views.py")
    assert "there are n" in app.run("bump", "g", status=2)
    assert "at least 8" in app.run("bump", "n", "--to", "7", status=2)


def test_all_or_nothing(app: App) -> None:
    """Where one of several cannot be bumped, none is."""
    source = '@versioned_cache(namespace="n", version=2)\ndef f() -> int: return 1\n\n'
    source += '@versioned_cache(namespace="o", version=1 + 1)\ndef g() -> int: return 1\n'
    write(app, source)
    app.run("bump", "n", "o", status=2)
    assert app.read("shop/views.py") == HEAD + source


def test_other_blocks_of_the_lock_stay_as_they_are(app: App) -> None:
    """A bump says nothing about other functions."""
    source = '@versioned_cache(namespace="n", version=2)\ndef f() -> int: return 1\n\n'
    source += '@versioned_cache(namespace="o", version=2)\ndef g() -> int: return 1\n'
    write(app, source)
    app.lock()
    app.change("shop/views.py", "def g() -> int", "def g() -> str")
    app.run("bump", "n")
    assert app.codes() == ["MV001"]
