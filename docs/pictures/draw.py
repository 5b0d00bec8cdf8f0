"""Draws the diagrams of the documentation: `python docs/pictures/draw.py` writes the .svg files beside it.

Each has a background of its own and follows the reader's preference for light or dark, so it can be read on any page.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
STYLE = f"""
    text {{ font-family: {FONT}; font-size: 13px; fill: #1f2328; }}
    .head {{ font-weight: 600; }}
    .small {{ font-size: 12px; fill: #57606a; }}
    .good {{ fill: #116329; }} .bad {{ fill: #a40e26; }}
    .page {{ fill: #ffffff; stroke: #d0d7de; }}
    .box {{ fill: #f6f8fa; stroke: #8c959f; }}
    .line {{ stroke: #57606a; stroke-width: 1.4; fill: none; }}
    .life {{ stroke: #afb8c1; stroke-dasharray: 4 4; }}
    .tip {{ fill: #57606a; }}
    @media (prefers-color-scheme: dark) {{
      text {{ fill: #e6edf3; }} .small {{ fill: #9ea7b3; }}
      .good {{ fill: #56d364; }} .bad {{ fill: #ff7b72; }}
      .page {{ fill: #15191f; stroke: #30363d; }} .box {{ fill: #21262d; stroke: #6e7681; }}
      .line {{ stroke: #9ea7b3; }} .life {{ stroke: #484f58; }} .tip {{ fill: #9ea7b3; }}
    }}"""


class Message(NamedTuple):
    """An arrow between two of the actors; `kind` is "", "good" or "bad"."""

    sender: str
    receiver: str
    text: str
    kind: str = ""


class Note(NamedTuple):
    """A remark on one actor's line."""

    actor: str
    text: str
    kind: str = ""


def svg(width: int, height: int, title: str, body: list[str]) -> str:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"',
        f'  role="img" aria-label="{escape(title)}">',
        f"  <title>{escape(title)}</title>",
        f"  <style>{STYLE}\n  </style>",
        '  <defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">',
        '    <path class="tip" d="M0 0 L8 4 L0 8 Z"/></marker></defs>',
        f'  <rect class="page" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
        *(f"  {line}" for line in body),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, *words: str) -> list[str]:
    """A box with one line of text under the other, the first in bold."""
    first = y + height / 2 + 4.5 - 8.5 * (len(words) - 1)
    drawn = [f'<rect class="box" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>']
    for number, line in enumerate(words):
        drawn.append(text(x + width / 2, first + 17 * number, line, "small" if number else "head"))
    return drawn


def arrow(*points: tuple[float, float]) -> str:
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline class="line" points="{path}" marker-end="url(#tip)"/>'


def sequence(title: str, actors: tuple[str, ...], steps: list[Message | Note], width: int = 860) -> str:
    """A sequence diagram: time runs down, one step a row."""
    gap = width / len(actors)
    at = {actor: gap * (number + 0.5) for number, actor in enumerate(actors)}
    top, row = 62, 38
    bottom = top + row * len(steps) + 12
    body = []
    for actor, x in at.items():
        body += [f'<line class="life" x1="{x:g}" y1="48" x2="{x:g}" y2="{bottom}"/>', *box(x - 76, 16, 152, 32, actor)]
    for number, step in enumerate(steps):
        y = top + row * number + 22
        if isinstance(step, Note):
            anchor, x = ("end", at[step.actor] - 8) if step.actor == actors[-1] else ("start", at[step.actor] + 8)
            body.append(text(x, y + 4, step.text, step.kind or "small", anchor))
            body.append(f'<circle class="tip" cx="{at[step.actor]:g}" cy="{y}" r="3.5"/>')
        else:
            start, end = at[step.sender], at[step.receiver]
            body.append(text((start + end) / 2, y - 6, step.text, step.kind))
            body.append(arrow((start, y), (end, y)))
    return svg(width, bottom + 14, title, body)


READER, STORE, SOURCE, WRITER = "Reader", "Redis", "Database", "Writer"
ACTORS = (READER, STORE, SOURCE, WRITER)


def race() -> str:
    """What happens to most caches."""
    return sequence(
        "The stale-set race in a cache that deletes: an old value is stored after the invalidation",
        ACTORS,
        [
            Message(READER, STORE, "GET price:7 → nothing"),
            Message(READER, SOURCE, "SELECT price → 10"),
            Note(READER, "is slow: a pause, a queue, a large result"),
            Message(WRITER, SOURCE, "UPDATE price = 12"),
            Message(WRITER, STORE, "DEL price:7 (nothing there)"),
            Message(READER, STORE, "SET price:7 = 10", "bad"),
            Note(STORE, "10 is served until it expires, though 12 is true", "bad"),
        ],
    )


def race_lost() -> str:
    """The same schedule in memover."""
    return sequence(
        "The same schedule in memover: the load that was overtaken is returned to its caller and not stored",
        ACTORS,
        [
            Message(READER, STORE, "read: generation g1, no entry"),
            Message(READER, STORE, "ACQUIRE → lease L1, g1"),
            Message(READER, SOURCE, "SELECT price → 10"),
            Message(WRITER, SOURCE, "UPDATE price = 12"),
            Message(WRITER, STORE, "price.invalidate(7): DROP entry and lease", "good"),
            Message(READER, STORE, "STORE 10, L1 → refused", "good"),
            Note(READER, "gets 10: its call began before the invalidation"),
            Message(WRITER, STORE, "price.invalidate_all(): BUMP g1 → g2", "good"),
            Note(STORE, "whatever was stamped with g1 is a miss", "good"),
        ],
    )


def call() -> str:
    """The life of a call, top to bottom."""
    width, middle, side = 900, 205, 730
    body: list[str] = []

    def step(y: int, *words: str, x: int = middle, wide: int = 330) -> None:
        body.extend(box(x - wide / 2, y, wide, 52, *words))

    def down(y: int, label: str = "") -> None:
        body.append(arrow((middle, y), (middle, y + 28)))
        if label:
            body.append(text(middle + 8, y + 18, label, "small", "start"))

    def aside(y: int, label: str) -> None:
        body.append(arrow((middle + 165, y), (side - 135, y)))
        body.append(text((middle + 165 + side - 135) / 2, y - 6, label, "small"))

    step(20, "bind", "arguments become a key")
    down(72)
    step(100, "read", "tokens and entry: one MGET")
    down(152)
    step(180, "judge", "tokens equal? before fresh_until?")
    aside(206, "fresh")
    step(180, "answer: a hit", "decoded, a value of the caller's own", x=side, wide=270)
    down(232, "dead, or stale without a window")
    step(260, "acquire", "lease, tokens and entry in one script")
    aside(286, "stored meanwhile")
    step(260, "answer: a hit", "judged again", x=side, wide=270)
    body.append(arrow((middle + 165, 302), (side - 160, 302), (side - 160, 356), (side - 135, 356)))
    body.append(text(side - 165, 348, "held by another", "small", "end"))
    step(340, "wait for that load", "at most wait_timeout, then run alone", x=side, wide=270)
    body += [arrow((middle, 312), (middle, 420)), text(middle + 8, 370, "ours", "small", "start")]
    step(420, "load", "the function runs")
    aside(446, "raised")
    step(420, "release the lease", "the exception goes to the caller", x=side, wide=270)
    down(472)
    step(500, "store", "only if the lease is still ours")
    aside(526, "refused: overtaken")
    step(500, "answer: the result", "returned, not stored", x=side, wide=270)
    down(552, "stored")
    step(580, "answer: the result", "stamped with the tokens of “acquire”")
    return svg(width, 652, "The life of a call: bind, read, judge; on a miss acquire, load, store", body)


PICTURES = {"race.svg": race, "race-lost.svg": race_lost, "life-of-a-call.svg": call}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (HERE / name).write_text(draw(), encoding="utf-8")
