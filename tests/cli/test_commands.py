"""The commands as they are typed: what they print, what they write, and their exit status."""

from __future__ import annotations

import json
import venv
from typing import TYPE_CHECKING

import pytest

from memover.schema.lock import read_lock
from tests.servers import RedisServer

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import App

VIEWS = """\
from dataclasses import dataclass

from memover import versioned_cache


@dataclass
class Profile:
    id: int
    name: str


@versioned_cache(namespace="profiles", version=2)
def profile(user_id: int, region: str = "eu") -> Profile:
    return Profile(user_id, region)
"""
FIELD = ("    name: str\n", "    name: str\n    email: str | None = None\n")


@pytest.fixture
def shop(app: App) -> App:
    app.write("shop/__init__.py", "")
    app.write("shop/views.py", VIEWS)
    return app


@pytest.fixture
def changed(shop: App) -> App:
    """Locked, and then a field was added without a bump."""
    shop.lock()
    shop.change("shop/views.py", *FIELD)
    return shop


def test_check_without_a_lock_says_how_to_write_one(shop: App) -> None:
    """Status 2, and the command."""
    assert "memover lock" in shop.run("check", status=2)


def test_the_command_that_writes_a_missing_lock_works_as_it_stands(shop: App) -> None:
    """With the targets that were checked, where pyproject.toml has none; without any, what is missing are targets."""
    shop.write("pyproject.toml", "[project]\nname = 'x'\n")
    assert 'targets = ["shop"' in shop.run("check", status=2)
    advice = shop.run("check", "shop", status=2).partition("`memover ")[2].partition("`")[0]
    shop.run(*advice.split())
    shop.run("check", "shop")


def test_an_unknown_option_is_status_two(shop: App) -> None:
    """As everywhere."""
    shop.run("check", "--nonsense", status=2)


def test_no_target_at_all_is_status_two(app: App) -> None:
    """The message shows the lines that pyproject.toml lacks."""
    app.write("pyproject.toml", "[project]\nname = 'x'\n")
    assert 'targets = ["shop"' in app.run("lock", status=2)


def test_a_project_that_is_as_its_lock_says_passes(shop: App) -> None:
    """Status 0."""
    assert "1 function" in shop.run("lock")
    assert "no findings" in shop.run("check")


def test_adding_one_field_changes_one_line_of_the_lock(shop: App) -> None:
    """The lock is made for diffs."""
    shop.lock()
    before = shop.read("memover.lock").splitlines()
    shop.change("shop/views.py", *FIELD)
    shop.run("lock", "--accept", "MV001", "profiles", "--reason", "nobody reads old entries")
    after = shop.read("memover.lock").splitlines()
    start = after.index("[[functions.profiles.accepted]]")
    assert [line for line in after[:start] if line not in before] == ["  email: str | None"]


def test_the_lock_is_the_same_text_however_often_it_is_written(shop: App) -> None:
    """Nothing in it depends on the run, the directory or the order of imports."""
    shop.lock()
    first = shop.read("memover.lock")
    shop.run("lock", env={"PYTHONHASHSEED": "7"})
    assert shop.read("memover.lock") == first
    assert str(shop.root) not in first


def test_a_changed_shape_is_told_with_the_field_and_the_command(changed: App) -> None:
    """Which field, its old and new type, the place, and what to type."""
    changed.change("shop/views.py", "    id: int", "    id: str")
    told = changed.run("check", status=1)
    for words in (
        "shop/views.py:8: MV001 profiles: the shape of the result changed, but the version is still 2",
        "Profile.id: int -> str",
        "Profile.email is new: str | None",
        "fix: memover bump profiles",
        'memover lock --accept MV001 profiles --reason "..."',
        "1 error",
    ):
        assert words in told


def test_the_command_that_is_told_mends_it(changed: App) -> None:
    """Bump, and the check passes."""
    assert "profiles 2 -> 3" in changed.run("bump", "profiles")
    assert 'namespace="profiles", version=3)' in changed.read("shop/views.py")
    assert changed.check() == []


def test_lock_does_not_hide_a_change_that_needs_a_bump(changed: App) -> None:
    """Writing the lock anew is no way around the review: the block stays, and the status is 1."""
    before = changed.read("memover.lock")
    told = changed.run("lock", status=1)
    assert "MV001" in told
    assert "1 function" not in told, "what was not written is not counted as written"
    assert "Not written" in told
    assert changed.read("memover.lock") == before


def test_lock_writes_what_it_may_and_says_so(changed: App) -> None:
    """A change that needs a bump keeps no other function out of the lock, and "Not written" is not said of those."""
    changed.write(
        "shop/more.py", "from memover import versioned_cache\n@versioned_cache(namespace='n')\ndef n() -> int: ...\n"
    )
    told = changed.run("lock", status=1)
    assert told.index("new  n") < told.index("memover.lock: written, except for these") < told.index("MV001 profiles")
    assert "Not written" not in told
    functions = read_lock(changed.read("memover.lock")).functions
    assert functions["n"].version == 1
    assert "email" not in str(functions["profiles"].shape)


def test_a_deliberate_exception_is_in_the_lock_with_its_reason(changed: App) -> None:
    """Where a reviewer sees it; the next bump removes it."""
    changed.run("lock", "--accept", "MV001", "profiles", status=2)
    changed.run("lock", "--accept", "MV001", "profiles", "--reason", "readers ignore it")
    (accepted,) = read_lock(changed.read("memover.lock")).functions["profiles"].accepted
    assert (accepted.code, accepted.version, accepted.reason) == ("MV001", 2, "readers ignore it")
    assert accepted.change == "Profile.email is new: str | None"
    assert changed.check() == []
    changed.run("bump", "profiles")
    assert read_lock(changed.read("memover.lock")).functions["profiles"].accepted == ()


def test_only_what_is_there_can_be_accepted(shop: App) -> None:
    """An exception for nothing would be one for the future."""
    shop.lock()
    assert "no MV001" in shop.run("lock", "--accept", "MV001", "profiles", "--reason", "x", status=2)
    assert "cannot be accepted" in shop.run("lock", "--accept", "MV003", "profiles", "--reason", "x", status=2)


@pytest.mark.parametrize(
    ("comment", "codes"),
    [("# memover: ignore[MV001]", []), ("# memover: ignore", []), ("# memover: ignore[MV002, MV005]", ["MV001"])],
)
def test_a_comment_at_the_function_ignores_codes(changed: App, comment: str, codes: list[str]) -> None:
    """Between the decorator and the `def`."""
    changed.change("shop/views.py", "version=2)", f"version=2)  {comment}")
    assert changed.codes() == codes


def test_codes_are_selected_and_ignored(changed: App) -> None:
    """On the command line and in pyproject.toml, by beginnings too."""
    changed.run("check", "--ignore", "MV001")
    changed.run("check", "--select", "MV002,MV003")
    changed.run("check", "--select", "MV00", status=1)
    changed.run("check", "--select", "XY", status=2)
    changed.write("pyproject.toml", '[tool.memover]\ntargets = ["shop"]\nignore = ["MV001"]\n')
    changed.run("check")


def test_a_setting_that_does_not_exist_is_status_two(shop: App) -> None:
    """A typing error must not turn a check off."""
    shop.write("pyproject.toml", '[tool.memover]\ntarget = ["shop"]\n')
    assert "no setting 'target'" in shop.run("check", status=2)


# Imports


def test_a_target_that_does_not_import_is_a_finding_and_the_others_are_checked(changed: App) -> None:
    """With its place and its error."""
    changed.write("shop/broken.py", "import nowhere_to_be_found\n")
    found = {each.code: each for each in changed.check()}
    assert set(found) == {"MV001", "MV008"}
    assert "nowhere_to_be_found" in found["MV008"].message
    assert (found["MV008"].path, found["MV008"].line) == ("shop/broken.py", 1)


@pytest.mark.parametrize(
    "end", ["import sys; sys.exit(3)", "import os; os._exit(3)", "import os; os.kill(os.getpid(), 9)"]
)
def test_a_module_that_ends_the_process_is_a_finding_too(changed: App, end: str) -> None:
    """The others are imported by another process."""
    changed.write("shop/ends.py", end + "\n")
    assert changed.codes() == ["MV008", "MV001"]


def test_functions_of_a_broken_module_are_not_called_gone(shop: App) -> None:
    """Only its import is; the lock keeps their blocks."""
    shop.lock()
    before = shop.read("memover.lock")
    shop.change("shop/views.py", "from memover import", "import nowhere\nfrom memover import")
    assert shop.codes() == ["MV008"]
    assert [each.code for each in shop.lock().refused] == ["MV008"]
    assert shop.read("memover.lock") == before


def test_what_an_application_prints_does_not_disturb(shop: App) -> None:
    """It may even write to file descriptor 1."""
    shop.write("shop/noisy.py", "import os\nprint('{}')\nos.write(1, b'[]')\nprint(input)\n")
    shop.lock()
    assert shop.check() == []


def test_no_connection_is_made_and_nothing_is_cached(shop: App) -> None:
    """Not by a cache of the application's own, nor by a call or an invalidation while it is imported."""
    with RedisServer() as server:
        shop.write(
            "shop/eager.py",
            f"from memover import Cache, configure\ncache = Cache({server.url!r}, prefix='eager')\n"
            f"configure({server.url!r})\n\n@cache.versioned(namespace='eager')\ndef eager(n: int) -> int:\n    return n\n\n"
            "eager(1)\neager.invalidate_all()\n",
        )
        before = server.info("stats")["total_connections_received"]
        shop.lock()
        assert shop.check() == []
        # The look at the statistics is a connection itself.
        assert server.info("stats")["total_connections_received"] == before + 1
        with server.client() as client:
            assert client.dbsize() == 0


def test_a_clash_is_told_with_both_places(shop: App) -> None:
    """Also where the second function would not have been decorated."""
    shop.lock()
    shop.write("shop/more.py", VIEWS)
    (found,) = [each for each in shop.check() if each.code == "MV003"]
    assert "shop.more:profile" in found.message or "shop.views:profile" in found.message


def test_one_namespace_on_two_caches_is_no_clash(shop: App) -> None:
    """Each is in the lock, under its namespace and its function."""
    shop.write(
        "shop/two.py",
        "from memover import Cache\na, b = Cache(prefix='a'), Cache(prefix='b')\n"
        "@a.versioned(namespace='two')\ndef one() -> int: return 1\n"
        "@b.versioned(namespace='two')\ndef two() -> int: return 2\n",
    )
    shop.lock()
    assert set(read_lock(shop.read("memover.lock")).functions) == {"profiles", "two shop.two:one", "two shop.two:two"}
    assert shop.check() == []


def test_a_number_that_a_removed_function_had_is_not_used_again(shop: App) -> None:
    """The lock remembers what is gone."""
    shop.lock()
    source = shop.read("shop/views.py")
    shop.write("shop/views.py", "")
    shop.lock()
    shop.write("shop/views.py", source)
    (found,) = shop.check()
    assert (found.code, found.fixes) == ("MV002", ("memover bump profiles --to 3",))
    shop.run("bump", "profiles")
    assert "version=3" in shop.read("shop/views.py")
    assert shop.check() == []


# Formats


def test_github_sees_the_finding_beside_its_line(changed: App) -> None:
    """One workflow command, its line breaks escaped."""
    line = changed.run("check", "--format", "github", status=1).splitlines()[0]
    assert line.startswith("::error file=shop/views.py,line=10,title=MV001 shape-changed::profiles: the shape")
    assert "%0AProfile.email is new: str | None%0Afix: memover bump profiles" in line


def test_gitlab_gets_a_code_quality_report(changed: App) -> None:
    """With what GitLab requires of each issue."""
    (issue,) = json.loads(changed.run("check", "--format", "gitlab", status=1))
    assert issue["location"] == {"path": "shop/views.py", "lines": {"begin": 10}}
    assert {"description", "check_name", "fingerprint", "severity"} <= set(issue)


def test_json_says_everything(changed: App) -> None:
    """For programs."""
    report = json.loads(changed.run("check", "--format", "json", status=1))
    (found,) = report["findings"]
    assert report["failed"] is True
    assert found["details"] == ["Profile.email is new: str | None"]
    assert (found["code"], found["namespace"], found["path"], found["line"]) == (
        "MV001",
        "profiles",
        "shop/views.py",
        10,
    )


def test_sarif_is_sarif(changed: App) -> None:
    """Version 2.1.0: every result names a rule that is described."""
    report = json.loads(changed.run("check", "--format", "sarif", status=1))
    (run,) = report["runs"]
    (result,) = run["results"]
    assert report["version"] == "2.1.0"
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "MV001"
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 10}


def test_markdown_can_be_a_comment(changed: App) -> None:
    """And a report can go to a file."""
    changed.run("check", "--format", "markdown", "--output", "report.md", status=1)
    report = changed.read("report.md")
    assert "**MV001** shape-changed, `shop/views.py:10` `profiles`" in report
    assert "`memover bump profiles`" in report


# Without the extra


def test_without_the_extra_help_says_what_to_install(tmp_path: Path) -> None:
    """`pip install memover` alone: status 0 for --help, 2 for a command."""
    import os
    import subprocess
    from pathlib import Path as P

    import memover

    venv.create(tmp_path / "venv", with_pip=False)
    inside = tmp_path / "venv" / "bin" / "python"
    needed = {}
    for name in ("msgpack", "redis", "wrapt", "typing_extensions"):
        module = __import__(name)
        assert module.__file__ is not None
        file = P(module.__file__)
        needed[name] = file.parent if file.name == "__init__.py" else file
    lib = tmp_path / "lib"
    lib.mkdir()
    for path in (*needed.values(), P(memover.__file__).parent):
        (lib / path.name).symlink_to(path)
    env = {**os.environ, "PYTHONPATH": str(lib)}
    for arguments, status in ((["--help"], 0), ([], 0), (["check"], 2)):
        ended = subprocess.run(
            [inside, "-m", "memover", *arguments], env=env, capture_output=True, text=True, check=False
        )
        assert ended.returncode == status, ended.stderr
        assert 'pip install "memover[cli]"' in ended.stdout + ended.stderr


def test_help_lists_the_commands(shop: App) -> None:
    """With the extra."""
    told = shop.run("--help")
    assert all(command in told for command in ("lock", "check", "bump", "gc"))
