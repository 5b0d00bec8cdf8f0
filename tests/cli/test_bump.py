"""`memover bump` changes the digits of one number, or says where they are and changes nothing."""

from __future__ import annotations

import py_compile
import shlex
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from memover.cli.app import memover
from memover.cli.bump import bump, bump_all
from memover.cli.project import CannotRun

if TYPE_CHECKING:
    from .conftest import App

HEAD = "from memover import versioned_cache\n\n"
NUMBERS = """\
from memover import versioned_cache

V = 2
W = 2

def cached(name, version=1):
    return versioned_cache(namespace=name, version=version)
"""

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
    "a namespace that is made of others": (
        'APP = "n"\n\n@versioned_cache(namespace=f"{APP}", version=2)\ndef f() -> int: return 1\n',
        'APP = "n"\n\n@versioned_cache(namespace=f"{APP}", version=3)\ndef f() -> int: return 1\n',
    ),
    "a decorator of one's own": (
        'def mine(n, v):\n    return versioned_cache(namespace=n, version=v)\n\n@mine("n", 2)\ndef f() -> int: return 1\n',
        'def mine(n, v):\n    return versioned_cache(namespace=n, version=v)\n\n@mine("n", 3)\ndef f() -> int: return 1\n',
    ),
    "a decorator of one's own that has a default": (
        'def mine(n, *, v=1):\n    return versioned_cache(namespace=f"{n}", version=v)\n\n@mine("n")\ndef f() -> int: return 1\n',
        'def mine(n, *, v=1):\n    return versioned_cache(namespace=f"{n}", version=v)\n\n@mine("n", v=2)\ndef f() -> int: return 1\n',
    ),
    "a decorator of one's own that passes options on": (
        'def mine(n, **o):\n    return versioned_cache(namespace=n, **o)\n\n@mine("n", ttl=5)\ndef f() -> int: return 1\n',
        'def mine(n, **o):\n    return versioned_cache(namespace=n, **o)\n\n@mine("n", ttl=5, version=2)\ndef f() -> int: return 1\n',
    ),
    "a decorator of one's own in another module": (
        'from shop.numbers import cached\n\n@cached("n", version=2)\ndef f() -> int: return 1\n',
        'from shop.numbers import cached\n\n@cached("n", version=3)\ndef f() -> int: return 1\n',
    ),
    "ten from nine": (
        '@versioned_cache(namespace="n", version=9)\ndef f() -> int: return 1\n',
        '@versioned_cache(namespace="n", version=10)\ndef f() -> int: return 1\n',
    ),
}

REFUSED = {
    "a constant of a library": (
        'from signal import SIGINT\n\n@versioned_cache(namespace="n", version=int(SIGINT))\ndef f() -> int: return 1\n',
        "shop/views.py:5: version=int(SIGINT) is computed",
    ),
    "a constant of another module that a third uses": (
        'from shop.numbers import W\n\n@versioned_cache(namespace="n", version=W)\ndef f() -> int: return 1\n',
        "version=W is used in other places too (shop/third.py:1)",
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
    "a decorator of one's own with one version for all": (
        'def mine(n):\n    return versioned_cache(namespace=n, version=2)\n\n@mine("n")\ndef f() -> int: return 1\n',
        "shop/views.py:4: mine() gives one version to all that it decorates",
    ),
    "options from a function": (
        'def options():\n    return {"namespace": "n"}\n\n@versioned_cache(**options())\ndef f() -> int: return 1\n',
        "no call in this file says namespace='n'",
    ),
}


def write(app: App, source: str) -> None:
    app.write("shop/__init__.py", "")
    app.write("shop/numbers.py", NUMBERS)
    app.write("shop/third.py", "from shop.numbers import W\n")
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


def test_bytecode_of_the_former_number_is_not_taken_for_that_of_the_new_one(app: App) -> None:
    """Python compares a source's length and second with those of its bytecode: here nothing, which no clock decides."""
    before, after = EDITED["a literal"]
    write(app, before)
    app.lock()
    py_compile.compile(
        str(app.root / "shop/views.py"), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH, doraise=True
    )
    app.run("bump", "n")
    assert app.read("shop/views.py") == HEAD + after
    assert app.check() == []


def test_a_look_at_the_source_leaves_no_bytecode(app: App) -> None:
    """Else an edit within the same second, of a number say, is not seen by the next look."""
    write(app, EDITED["a literal"][0])
    app.run("lock", env={"PYTHONDONTWRITEBYTECODE": ""})
    assert list(app.root.rglob("__pycache__")) == []


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


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if at % 4 == 0 else pytest.mark.slow) for at, case in enumerate(EDITED)]
)
def test_check_advises_the_bump_that_works(app: App, case: str) -> None:
    """The command of the finding, typed as it stands there, ends with status 0 and leaves nothing to be found."""
    write(app, EDITED[case][0])
    app.lock()
    app.change("shop/views.py", ") -> int: return 1", ") -> str: return ''")
    (found,) = app.check()
    assert found.fixes[0] == "memover bump n"
    app.run(*shlex.split(found.fixes[0])[1:])
    assert app.check() == []


@pytest.mark.parametrize("case", REFUSED)
def test_check_advises_no_bump_that_would_not_work(app: App, case: str) -> None:
    """It says where the number is to be changed by hand, and the exception that can be made instead."""
    source, told = REFUSED[case]
    write(app, source)
    app.lock()
    app.change("shop/views.py", "def f() -> int", "def f() -> str")
    (found,) = app.check()
    assert [each.partition(" ")[0] for each in found.fixes] == ["raise", "memover"]
    assert told in found.fixes[0]
    assert "then: memover lock" in found.fixes[0]


def test_a_constant_of_another_module_is_changed_there(app: App) -> None:
    """If nothing else uses it."""
    source = 'from shop.numbers import V\n\n@versioned_cache(namespace="n", version=V)\ndef f() -> int: return 1\n'
    write(app, source)
    app.lock()
    app.change("shop/views.py", "-> int", "-> str")
    (found,) = app.check()
    assert found.fixes[0] == "memover bump n"
    assert app.run("bump", "n") == "shop/numbers.py:3: n 2 -> 3\n"
    assert app.read("shop/numbers.py") == NUMBERS.replace("V = 2", "V = 3")
    assert app.check() == []


LOOP = """\
def make(name):
    @versioned_cache(namespace=f"loop/{name}", version=1)
    def f(n: int) -> int:
        return n
    return f

a, b = make("a"), make("b")
"""


def test_functions_of_one_call_are_bumped_together(app: App) -> None:
    """They have one number: the advice names both, and `--all` takes the other along."""
    write(app, LOOP)
    app.lock()
    app.change("shop/views.py", "-> int", "-> str")
    for found in app.check():
        assert set(shlex.split(found.fixes[0])) == {"memover", "bump", "loop/a", "loop/b"}
    assert "bump them together" in app.run("bump", "loop/a", status=2)
    assert "version=1" in app.read("shop/views.py")
    app.run("bump", "--all")
    assert "version=2" in app.read("shop/views.py")
    assert app.check() == []


def test_all_bumps_what_the_check_found_and_nothing_else(app: App) -> None:
    """And says so where there is nothing."""
    source = '@versioned_cache(namespace="n", version=2)\ndef f() -> int: return 1\n\n'
    source += '@versioned_cache(namespace="o", version=2)\ndef g() -> int: return 1\n'
    write(app, source)
    app.lock()
    assert "nothing to bump" in app.run("bump", "--all")
    app.change("shop/views.py", "def g() -> int", "def g() -> str")
    assert app.run("bump", "--all") == "shop/views.py:6: o 2 -> 3\n"
    assert app.check() == []
    assert "--all" in app.run("bump", status=2)


def test_all_of_one_module_leaves_the_others_alone(app: App) -> None:
    """In the source and in the lock."""
    write(app, '@versioned_cache(namespace="n")\ndef f() -> int: return 1\n')
    app.write(
        "shop/more.py",
        'from memover import versioned_cache\n\n@versioned_cache(namespace="o")\ndef g() -> int: return 1\n',
    )
    app.lock()
    app.change("shop/views.py", "-> int", "-> str")
    app.change("shop/more.py", "-> int", "-> str")
    assert app.run("bump", "--all", "shop.more").endswith("o 1 -> 2\n")
    assert "version=" not in app.read("shop/views.py")
    assert app.codes() == ["MV001"]


def test_all_takes_modules_and_packages_as_the_check_does(app: App) -> None:
    """They stand after `--all`; one that does not import is an error that names it."""
    write(app, '@versioned_cache(namespace="n", version=2)\ndef f() -> int: return 1\n')
    app.lock()
    app.change("shop/views.py", "def f() -> int", "def f() -> str")
    assert app.run("bump", "--all", "shop").endswith(": n 2 -> 3\n")
    assert "nothing to bump" in app.run("bump", "--all", "shop.views")
    assert "shop.nothing" in app.run("bump", "--all", "shop.nothing", status=2)
    assert app.check() == []


LEFT = """\
from signal import SIGINT

@versioned_cache(namespace="n", version=2)
def f() -> int: return 1

@versioned_cache(namespace="o", version=1 + 1)
def g() -> int: return 1

V = 2
globals()["V"] = 2

@versioned_cache(namespace="p", version=V)
def h() -> int: return 1

@versioned_cache(namespace="q")
def i() -> int: return 1
"""


def test_all_bumps_what_can_be_bumped_and_lists_the_rest(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 1: what is done is said and stands in the lock; for the rest the place, the reason and the command that follows."""
    write(app, LEFT)
    app.write("pyproject.toml", "")
    app.lock("shop")
    app.write("shop/views.py", app.read("shop/views.py").replace("-> int", "-> str"))
    monkeypatch.chdir(app.root)
    ended = CliRunner().invoke(memover, ["bump", "--all", "shop"])
    assert ended.exit_code == 1
    *done, title, computed, elsewhere = ended.output.splitlines()
    assert done == ["shop/views.py:5: n 2 -> 3", "shop/views.py:17: q 1 -> 2"]
    assert title == "Not bumped:"
    assert computed.startswith("  shop/views.py:8: version=1 + 1 is computed")
    assert computed.endswith("change it by hand, then run `memover lock shop`.")
    assert elsewhere.startswith("  shop/views.py:11: writing version 3 here gave p the version 2")
    assert elsewhere.endswith("Change it by hand, then run `memover lock shop`.")
    assert [(each.namespace, each.code) for each in app.check("shop")] == [("o", "MV001"), ("p", "MV001")]
    assert "V = 2\n" in app.read("shop/views.py")
    for old, new in (("1 + 1", "1 + 2"), ('"V"] = 2', '"V"] = 3')):
        app.change("shop/views.py", old, new)
    app.lock("shop")
    assert bump_all(app.project(), ["shop"]) == ([], [])


def test_all_says_which_modules_it_could_not_look_at(app: App) -> None:
    """The functions of the others are bumped: a module that does not import keeps nothing from being done."""
    write(app, '@versioned_cache(namespace="n", version=2)\ndef f() -> int: return 1\n')
    app.lock()
    app.change("shop/views.py", "-> int", "-> str")
    app.write("shop/broken.py", "import libraryofnobody\n")
    for names, version in ([], 3), (["shop.views", "shop.broken"], 4):
        (done,), (left,) = bump_all(app.project(), names)
        assert (done.name, done.new) == ("n", version)
        assert "shop.broken does not import" in left
        app.write("shop/views.py", app.read("shop/views.py").replace("-> str", "-> bytes"))
    with pytest.raises(CannotRun, match=r"shop\.broken does not import"):
        bump_all(app.project(), ["shop.broken"])


def test_fix_bumps_the_others_where_a_number_comes_from_somewhere_else(app: App) -> None:
    """What shows only after it was written is taken back, and the rest is done."""
    write(app, LEFT)
    app.lock()
    app.write("shop/views.py", app.read("shop/views.py").replace("-> int", "-> str"))
    told = app.run("check", "--fix", status=1)
    assert "n 2 -> 3" in told and "q 1 -> 2" in told
    assert [each.namespace for each in app.check()] == ["o", "p"]


def test_a_check_of_named_targets_advises_with_those_targets(app: App) -> None:
    """Without settings in pyproject.toml a command needs to be told what to look at."""
    write(app, EDITED["a literal"][0])
    app.write("pyproject.toml", "")
    app.run("lock", "shop", "--lockfile", "other.lock")
    app.change("shop/views.py", "-> int", "-> str")
    told = app.run("check", "shop", "--lockfile", "other.lock", status=1)
    bump_, accept = (line.split(": ", 1)[1] for line in told.splitlines() if line.lstrip().startswith(("fix:", "or:")))
    assert bump_ == "memover bump n --target shop --lockfile other.lock"
    app.run(*shlex.split(accept)[1:])
    app.run("check", "shop", "--lockfile", "other.lock")
    app.run(*shlex.split(bump_)[1:])
    app.run("check", "shop", "--lockfile", "other.lock")


def test_fix_mends_what_commands_can_mend(app: App) -> None:
    """Versions and the lock; what is left is reported, and decides the status."""
    source = '@versioned_cache(namespace="n", version=2)\ndef f() -> int: return 1\n\n'
    source += '@versioned_cache(namespace="o", version=1 + 1)\ndef g() -> int: return 1\n'
    write(app, source)
    app.lock()
    app.change("shop/views.py", "def f() -> int", "def f() -> str")
    app.write("shop/more.py", HEAD + '@versioned_cache(namespace="p")\ndef h() -> int: return 1\n')
    told = app.run("check", "--fix")
    assert "shop/views.py:3: n 2 -> 3" in told
    assert "new p" in told
    assert "no findings" in told
    app.change("shop/views.py", "def g() -> int", "def g() -> str")
    app.change("shop/views.py", "def f() -> str", "def f() -> bytes")
    told = app.run("check", "--fix", status=1)
    assert "n 3 -> 4" in told
    assert "raise the version of o by hand (shop/views.py:6: version=1 + 1 is computed)" in told
    assert app.codes() == ["MV001"]
    assert "memover lock" in app.run("check", "--fix", "--lockfile", "none.lock", status=2)


@pytest.mark.parametrize("form", ["terminal", "github", "markdown"])
def test_what_is_to_be_done_too_is_no_choice(form: str, app: App) -> None:
    """A command for some functions and a change by hand for another are both needed; an exception is the other way."""
    source = "from dataclasses import dataclass\n@dataclass\nclass C:\n    a: int\n"
    for name, version in (("n", "2"), ("o", "1 + 1"), ("p", "2 + 1")):
        source += f'@versioned_cache(namespace="{name}", version={version})\ndef {name}() -> C: ...\n\n'
    write(app, source)
    app.lock()
    app.change("shop/views.py", "    a: int", "    a: str")
    told = app.run("check", "--format", form, status=1).replace("`", "")
    places = [
        told.index(words)
        for words in (
            "fix: memover bump n",
            "and: raise the version of o by hand",
            "and: raise the version of p by hand",
            "or: memover lock --accept",
        )
    ]
    assert places == sorted(places)


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
