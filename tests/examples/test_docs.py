"""What the pages say can be followed: links lead somewhere, code runs, the changelog keeps its form."""

from __future__ import annotations

import re
import runpy
from importlib import import_module
from pathlib import Path

import click
import pytest

import memover
from memover.cli.app import memover as commands
from memover.codec import envelope
from memover.stores.redis import scripts
from tests.servers import run_python

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
OURS = re.compile(
    r"https://(?:github\.com/memover/memover/(?:blob|tree)|raw\.githubusercontent\.com/memover/memover)/main/"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    """Relative links, and absolute ones into this repository, which also work on the package index."""
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    files = [ROOT / OURS.sub("", link) for link in links if OURS.match(link)]
    files += [page.parent / link for link in links if "://" not in link]
    assert [file for file in files if not file.exists()] == []


def test_the_diagrams_are_what_their_script_draws() -> None:
    """docs/pictures/draw.py makes the .svg files beside it, but for the one that photograph.py takes."""
    pictures = ROOT / "docs" / "pictures"
    module = runpy.run_path(str(pictures / "draw.py"))
    drawn = {name: draw() for name, draw in module["PICTURES"].items()}
    assert {path.name for path in pictures.glob("*.svg")} == {*drawn, "top.svg"}
    for name, text in drawn.items():
        assert (pictures / name).read_text(encoding="utf-8") == text, f"run docs/pictures/draw.py: {name} is old"


def test_the_page_of_the_stored_format_has_every_field_and_script() -> None:
    """Offsets and sizes are those of the envelope's own table; the scripts are those that there are."""
    page = (ROOT / "docs" / "design" / "stored-format.md").read_text(encoding="utf-8")
    own = re.findall(r"^ +(\d+) +(\w+)  \w", envelope.__doc__ or "", re.MULTILINE)
    assert len(own) >= 17
    shown = re.findall(r"^\| (\d+) \| (\w+) \|", page, re.MULTILINE)
    assert [field for field in own if int(field[0]) <= 64] == shown
    assert set(re.findall(r"^\| ([A-Z]{4,}) \|", page, re.MULTILINE)) >= set(scripts.__all__) - {"Script"}


def test_the_page_of_the_layout_names_files_that_are_there() -> None:
    """A reader who looks for a rule finds it."""
    page = (ROOT / "docs" / "design" / "layout.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:memover|tests)/[\w/.]+)`", page))
    assert len(named) >= 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_readmes_first_example_runs(redis_url: str, prefix: str) -> None:
    """As printed, on a real Redis, with the keys that its comments show."""
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    assert "redis://localhost:6379/0" in code
    code = code.replace("redis://localhost:6379/0", redis_url).replace('prefix="shop"', f"prefix={prefix!r}")
    (found,) = run_python(f"{code}\nresult = [profile.key(7), *profile.cache_info()[:2], profile.peek(7)]")
    assert re.fullmatch(rf"{prefix}:2:profiles:[0-9a-f]{{32}}", found[0])
    assert found[1:] == [1, 1, None]


def test_every_release_says_what_becomes_of_entries_and_keys() -> None:
    """CHANGELOG.md: two fixed lines under each release, and one for what is being worked on."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert releases[0].startswith("[Unreleased]") or releases[0].startswith(f"[{memover.__version__}]")
    for release in releases:
        assert re.search(r"^Stored format: .", release, re.MULTILINE), release.partition("\n")[0]
        assert re.search(r"^Keys: .", release, re.MULTILINE), release.partition("\n")[0]


def test_the_changelog_keeps_its_form() -> None:
    """Headings are `[number] - date`, newest first, and kinds of changes those of Keep a Changelog."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## (.*)$", text, re.MULTILINE)
    numbered = [release for release in releases if release != "[Unreleased]"]
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", release) for release in numbered)
    assert [release.split(" - ")[1] for release in numbered] == sorted(
        (release.split(" - ")[1] for release in numbered), reverse=True
    )
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_every_promise_is_linked_to_its_tests() -> None:
    """The page of promises has one row for each, and each file of tests/promises is linked from the row of its number."""
    page = (ROOT / "docs" / "design" / "promises.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| P(\d+) \|(.*)$", page, re.MULTILINE))
    assert [int(number) for number in rows] == list(range(1, 18))
    for tests in sorted((ROOT / "tests" / "promises").glob("test_p*.py")):
        number = str(int(tests.name[len("test_p") :][:2]))
        assert f"{tests.relative_to(ROOT)})" in rows[number], (
            f"P{number} in docs/design/promises.md does not link {tests.name}"
        )


def test_the_readme_is_short_and_its_links_work_anywhere() -> None:
    """Under 900 words beside code, and no link that only a repository could follow: the package index shows it too."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)", readme)
    assert links and all(link.startswith("https://") for link in links)
    assert 300 < words_beside_code(readme) < 900


def words_beside_code(text: str) -> int:
    """The words of a page without blocks of code, names in backticks and addresses."""
    prose = re.sub(r"^```.*?^```", " ", text, flags=re.DOTALL | re.MULTILINE)
    return len(re.findall(r"\w[\w'’-]*", re.sub(r"^    .*$|\]\([^)]*\)|`[^`\n]*`", " ", prose, flags=re.MULTILINE)))


def test_words_beside_code_are_counted() -> None:
    """An indented block ends with its last line, a fence with its fence."""
    assert (
        words_beside_code("One `two` [three](https://four.five).\n\n    six\n\nseven\n\n```python\neight\n```\nnine\n")
        == 4
    )


def test_every_environment_variable_is_in_the_reference() -> None:
    """Those that the library reads, and no others."""
    page = (ROOT / "docs" / "reference" / "cache.md").read_text(encoding="utf-8")
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "memover").rglob("*.py"))
    used = set(re.findall(r"\bMEMOVER_(?:[A-Z]+)\b", source)) | {
        f"MEMOVER_{name}" for name in ("URL", "PREFIX", "VERSION", "TTL")
    }
    assert set(re.findall(r"^\| `(MEMOVER_\w+)`", page, re.MULTILINE)) == used


def test_every_extra_is_in_the_reference() -> None:
    """With what it installs; those for working on memover itself are named below the table."""
    page = (ROOT / "docs" / "reference" / "extras.md").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    names = set(re.findall(r"^(\w+) = \[", extras, re.MULTILINE))
    tabled = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert tabled == names - {"test", "quick", "lint", "docs", "examples", "bench"}
    for name in (
        "click",
        "rich",
        "tomli-w",
        "starlette",
        "uvicorn",
        "prometheus-client",
        "opentelemetry-api",
        "hiredis",
    ):
        assert name in extras and name in page
    assert all(f"`{name}`" in page for name in names)


def test_every_source_and_error_is_in_the_reference() -> None:
    """One that is added is explained."""
    counters = (ROOT / "docs" / "reference" / "counters.md").read_text(encoding="utf-8")
    assert [str(source) for source in memover.Source if f"| `{source}` |" not in counters] == []
    errors = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    raised = [
        name
        for name in memover.__all__
        if isinstance(kind := getattr(memover, name), type) and issubclass(kind, Exception)
    ]
    assert [name for name in raised if f"| `{name}` |" not in errors and name != "MemoverError"] == []


PUBLIC = [
    "memover",
    "memover.observe",
    "memover.observe.prometheus",
    "memover.observe.opentelemetry",
    "memover.testing",
]


@pytest.mark.parametrize("module", [*PUBLIC, "memover.django", "memover.django.testing"])
def test_every_public_name_is_in_the_reference(module: str) -> None:
    """What `memover` and the modules that users import export is documented from its docstring."""
    if module.startswith("memover.django"):
        pytest.importorskip("django")
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    documented = set(re.findall(r"^\.\. auto\w+:: (?:[a-z_]+\.)*(\w+)", pages, re.MULTILINE))
    public = import_module(module)
    assert public.__all__ and set(public.__all__) <= documented


@pytest.mark.parametrize("kind", ["Cache", "CachedFunction", "Entry", "Call", "Generation"])
def test_every_public_method_and_field_is_in_the_reference(kind: str) -> None:
    """Of what users hold in their hands; the fields of named tuples come with their docstrings."""
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    public = getattr(memover, kind)
    names = {name for name in dir(public) if not name.startswith("_")} - {"index", "count"} - set(dir(tuple))
    told = pages + (public.__doc__ or "")
    assert names
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", told)] == []


def test_every_option_of_every_command_says_what_it_does() -> None:
    """The reference of the command line is made from it."""
    silent = [
        (name, option.opts)
        for name, command in commands.commands.items()
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert commands.commands and silent == []
