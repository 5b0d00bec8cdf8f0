"""SVG plots for the documentation, by matplotlib, in colours that follow the reader's preference for light or dark."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

__all__ = ["ACCENTS", "figure", "save"]

INK, PALE, PAGE = "#1f2328", "#d0d7de", "#ffffff"
ACCENTS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#6e7781")
_DARK = {
    INK: "#e6edf3",
    PALE: "#30363d",
    PAGE: "#15191f",
    ACCENTS[0]: "#58a6ff",
    ACCENTS[1]: "#f0883e",
    ACCENTS[2]: "#56d364",
    ACCENTS[3]: "#bc8cff",
    ACCENTS[4]: "#ff7bb5",
    ACCENTS[5]: "#9ea7b3",
}


def figure(columns: int, *, width: float = 9.0, height: float = 3.8) -> tuple[Any, Any]:
    """A figure with so many plots side by side, and the plots."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "memover",
            "font.family": "sans-serif",
            "font.size": 10,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": INK,
            "axes.facecolor": PAGE,
            "figure.facecolor": PAGE,
            "grid.color": PALE,
            "xtick.color": INK,
            "ytick.color": INK,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    from matplotlib import pyplot

    return pyplot.subplots(1, columns, figsize=(width, height), squeeze=False, layout="constrained")


def save(drawn: Any, path: Path, title: str) -> None:
    """Write a figure as SVG with a title; each colour becomes a variable that a dark page changes."""
    drawn.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    text = path.read_text()
    light, dark = [], []
    for number, (colour, other) in enumerate(_DARK.items()):
        text = text.replace(colour, f"var(--c{number})")
        light.append(f"--c{number}:{colour}")
        dark.append(f"--c{number}:{other}")
    style = f"svg{{{';'.join(light)}}}@media(prefers-color-scheme:dark){{svg{{{';'.join(dark)}}}}}"
    at = text.index("<svg ")
    end = text.index(">", at) + 1
    head = f'{text[at : end - 1]} role="img" aria-label="{escape(title)}">'
    written = f"{text[:at]}{head}\n <title>{escape(title)}</title>\n <style>{style}</style>{text[end:]}"
    path.write_text("\n".join(line.rstrip() for line in written.splitlines()) + "\n")
