"""What the pages say can be followed: links lead somewhere, code runs, the changelog keeps its form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import memover
from tests.servers import run_python

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    """Relative links of README, changelog and docs."""
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")) if "://" not in link]
    assert links or page.name != "README.md"
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readmes_first_example_runs(redis_url: str, prefix: str) -> None:
    """As printed, on a real Redis, with the keys that its comments show."""
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    assert "redis://localhost:6379/0" in code
    code = code.replace("redis://localhost:6379/0", redis_url).replace('prefix="shop"', f"prefix={prefix!r}")
    code = code.replace("-> Profile: ...", "-> dict: return {'id': user_id}")
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


def test_every_promise_is_linked_to_its_tests() -> None:
    """The README has one row for each promise, and each file of tests/promises is linked from the row of its number."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| P(\d+) \|(.*)$", readme, re.MULTILINE))
    assert [int(number) for number in rows] == list(range(1, 14))
    for tests in sorted((ROOT / "tests" / "promises").glob("test_p*.py")):
        number = str(int(tests.name[len("test_p") :][:2]))
        assert f"({tests.relative_to(ROOT)})" in rows[number], f"P{number} does not link {tests.name}"
