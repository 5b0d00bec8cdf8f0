"""The documentation's site, opened from disk."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
CONF = f"""
import sys
sys.path.insert(0, {str(DOCS)!r})
from conf import smartquotes_action
extensions = ["_search"]
html_theme = "basic"
html_static_path = [{str(DOCS / "_static")!r}]
"""
INDEX = """
Start
=====

.. comment that no page shows

.. toctree::

   folder/page

Not a ``platypus``.

An option --all in a sentence.
"""
PAGE = """
A page
======

The quokka smiles.

A section about wombats
-----------------------

- They dig ``burrows``.

Another
-------

The answer is 304.
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pages, built with the extension of the search."""
    pytest.importorskip("sphinx", reason="the extra docs builds the site")
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name, text in (("conf.py", CONF), ("index.rst", INDEX), ("folder/page.rst", PAGE)):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(source), str(built)]
    subprocess.run(command, check=True, timeout=60)
    return built


@pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")
@pytest.mark.parametrize(
    ("query", "excerpt"),
    [
        ("quokka", "A page The quokka smiles. A section about wombats They dig burrows. Another The answer is 304."),
        ("about+wombats", "A section about wombats They dig burrows."),
        ("platypus", "Start Not a platypus. An option --all in a sentence."),
        (
            "answer+304",
            "A page The quokka smiles. A section about wombats They dig burrows. Another The answer is 304.",
        ),
        ("304", "A page The quokka smiles. A section about wombats They dig burrows. Another The answer is 304."),
    ],
)
def test_results_of_the_search_have_excerpts_from_disk_too(
    site: Path, tmp_path: Path, query: str, excerpt: str
) -> None:
    """A browser lets no page that is a file read another; the words around the one that was looked for are shown all the same."""
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=10000",
    ]
    command = [str(BROWSER), *flags, "--dump-dom", f"{(site / 'search.html').as_uri()}?q={query}"]
    page = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    shown = [re.sub(r"<[^>]*>", "", each) for each in re.findall(r'<p class="context">(.*?)</p>', page, re.DOTALL)]
    assert excerpt in shown


def test_an_option_of_a_command_keeps_its_two_hyphens(site: Path) -> None:
    """With a dash in their place it could not be copied."""
    assert "An option --all in a sentence." in (site / "index.html").read_text(encoding="utf-8")
