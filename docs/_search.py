"""The search of the site: excerpts also where it is opened from disk, and numbers.

Sphinx' search reads an excerpt out of the page it found, which a browser forbids to pages that are files. So the build writes
the text of all pages into one script, searchtext.js, and search.js gives it to the search in place of the pages.

It leaves numbers out of the index and out of what is asked for. People search for a status (304), a port or a default, so here
they are words like any other, in the index and in search.js.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.search.en import SearchEnglish

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_TEXT = "searchtext.js"


class English(SearchEnglish):
    """English, with numbers."""

    def word_filter(self, word: str) -> bool:
        """Whether the index has the word."""
        return word not in self.stopwords


def sections(document: nodes.document) -> dict[str, str]:
    """The text of each section without those inside it, by every anchor that leads there, in the order of the page."""
    texts: dict[str, str] = {}
    for section in document.findall(nodes.section):
        parts = [part.astext() for child in section if not isinstance(child, nodes.section) for part in _shown(child)]
        text = " ".join(" ".join(parts).split())
        texts |= dict.fromkeys((f"#{each}" for each in section["ids"]), text)
    return texts


def _shown(node: nodes.Node) -> list[nodes.Node]:
    """The blocks of text inside that a page shows."""
    blocks = (nodes.TextElement, nodes.Invisible)
    return [found for found in node.findall(lambda each: isinstance(each, blocks)) if _outermost(found)]


def _outermost(node: nodes.Node) -> bool:
    return not isinstance(node, nodes.Invisible) and not isinstance(node.parent, nodes.TextElement)


def load(app: Sphinx, page: str, template: str, context: dict[str, Any], document: nodes.document | None) -> None:
    if page == "search":
        app.add_js_file(_TEXT)
        app.add_js_file("search.js")


def write(app: Sphinx, error: Exception | None) -> None:
    if error is None:
        texts = {name: sections(app.env.get_doctree(name)) for name in sorted(app.env.found_docs)}
        script = f"const PAGE_TEXTS = {json.dumps(texts, ensure_ascii=False)};\n"
        (app.outdir / "_static" / _TEXT).write_text(script, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_search_language(English)
    app.connect("html-page-context", load)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True}
