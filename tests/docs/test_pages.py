"""Every block of code in the README and the documentation is run, and the outputs that pages show are compared."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import memover
from tests.docs import pages

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(each for each in (ROOT / "docs").rglob("*.md") if "_build" not in each.parts)]
ELSEWHERE = {ROOT / "docs" / "operations.md"}
"""Pages whose commands have a running system of their own in another test: tests/ops/test_docs.py."""
WITH_CODE = [page for page in PAGES if page not in ELSEWHERE and "```" in page.read_text(encoding="utf-8")]


def environment() -> dict[str, str]:
    """As after `pip install`: memover and its programs are found, and nothing is configured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEMOVER_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def run(text: str, directory: Path, url: str = pages.REDIS) -> None:
    pages.run(pages.blocks_of(text), directory, url, environment())


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_code_of_the_page_runs(page: Path, start_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    """In order, in an empty directory, on an empty Redis; each output is the one shown."""
    text = page.read_text(encoding="utf-8")
    url = start_redis().url if pages.REDIS in text else pages.REDIS
    run(text, tmp_path, url)


def test_the_tutorial_runs_without_a_server(tmp_path: Path) -> None:
    """As it says: with a SQLite file in the place of Redis."""
    run((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"), tmp_path, f"sqlite:///{tmp_path}/tutorial.db")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("```python\n1 + 1  # 3\n```\n", "line 2 of the page shows 3, and it is 2"),
        ("```python\n1 + 1  # 2.0: a float\n```\n", "shows 2.0, and it is 2"),
        ("```python\nnowhere\n```\n", "NameError"),
        ("```console\n$ echo one; echo two\none\n```\n", "two"),
        ("```console\n$ echo a long line\na ... lime\n```\n", "a long line"),
        ("```console\n$ false\n```\n", "false"),
        ("```python\n# f.py\nprint(7)\n```\n```console\n$ python f.py\n8\n```\n", "7"),
        ("```toml\nx = = 1\n```\n", "Invalid"),
        ("```yaml\nx: [1\n```\n", "expected ',' or ']'"),
        ("```python\n# f.py\nx = 1\n```\n", "nothing on the page runs f.py"),
        ("```python\n# conftest.py\nx = 1\n```\n", "nothing on the page runs conftest.py"),
        ("```python\n# f.py\nabs(-1)  # 2\n```\n```console\n$ python f.py\n```\n", "'2' is not compared"),
        ("```python\ndef f():\n    abs(-1)  # 2\n```\n", "line 3: the comment '2' is not compared"),
        ("```python\nabs(-1)  # 2, or so\n```\n", "'2, or so' is not compared"),
        ("```python\nabs(-1)  # [...]\n```\n", "shows .Ellipsis., and it is 1"),
        ("```python\nabs(-1)  # [one]\n```\n", "is not compared"),
        ("```console\nls\n```\n", "begins with a command"),
        ("* a list\n\n  ```python\n  nowhere\n  ```\n", "in a list"),
    ],
)
def test_a_page_that_shows_something_wrong_is_found_out(text: str, wrong: str, tmp_path: Path) -> None:
    """Values, names, outputs, statuses, files, TOML; and what would be passed over."""
    with pytest.raises((AssertionError, ValueError, yaml.YAMLError), match=wrong):
        run(text, tmp_path)


def test_a_page_that_is_right_passes(tmp_path: Path) -> None:
    """With `...` for what differs from run to run, exports, and a setup that is not shown."""
    run(
        "<!-- setup\nname = 'x'\n-->\n```python\nname * 2  # 'xx'\nname * 3  # the name, three times\n```\n"
        "```console\n$ export NAME=x\n$ echo $NAME is $RANDOM or so\nx is ... or so\n```\n",
        tmp_path,
    )


def test_a_block_of_an_unknown_kind_is_found_out() -> None:
    """A block that nobody runs would go wrong unnoticed."""
    with pytest.raises(ValueError, match="'ruby'"):
        pages.blocks_of("```ruby\nputs 1\n```\n")


def test_what_ci_is_told_to_use_is_there() -> None:
    """The action, the GitLab job and the hook that the page on review names, of this release."""
    text = (ROOT / "docs" / "schema.md").read_text(encoding="utf-8")
    github, gitlab, hooks = (
        yaml.safe_load(code) for code in re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    )
    assert github["jobs"]["memover"]["steps"][-1]["uses"] == f"memover/memover@v{memover.__version__}"
    assert (ROOT / "action.yml").exists()
    assert (ROOT / gitlab["include"][0]["remote"].partition("/memover/main/")[2]).is_file()
    known = {each["id"] for each in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))}
    assert {each["id"] for each in hooks["repos"][0]["hooks"]} <= known
    assert hooks["repos"][0]["rev"] == f"v{memover.__version__}"


def test_programs_before_and_after_stand_where_they_are_run() -> None:
    """In the guides to moving, whose test runs them."""
    pairs = [page for page in WITH_CODE if re.search("^```python (before|after)$", page.read_text(), re.MULTILINE)]
    assert pairs and {page.parent.name for page in pairs} == {"moving"}
