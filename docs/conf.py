"""The documentation's site: `make docs` writes docs/_build/html/index.html, which works opened from disk."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

import memover  # noqa: E402

project = "memover"
author = "the memover developers"
copyright = "the memover developers"  # noqa: A001  # Sphinx reads this name
version = release = memover.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "_reference", "_search"]
exclude_patterns = ["_build"]

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
myst_url_schemes = ["http", "https"]

# Docstrings are written as plain text with `code` in single backticks: see _reference.
default_role = "code"
# Quotation marks and ellipses only: `--all` in the help of a command is not a dash.
smartquotes_action = "qe"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures show them as the source does
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
add_module_names = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
pygments_dark_style = "github-dark"  # the usual one underlines the names of modules, as if they were links
html_title = f"memover {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "source_repository": "https://github.com/memover/memover/",
    "source_branch": "main",
    "source_directory": "docs/",
}
