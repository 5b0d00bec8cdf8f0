"""What was probably meant by an option's value that is of another type or form than the option's.

Numbers and switches come as text from settings files and the environment, sizes and times with the units of other tools, and
addresses without a scheme. Messages say what to write instead. Imported only when there is something to complain of.
"""

from __future__ import annotations

import math
import re
from typing import Any

__all__ = ["duration", "number", "switch", "url", "whole", "write"]

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt])(i?)b?", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
_TIMES = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)[\s,]*", re.IGNORECASE)
_UNITS = {
    "ms": "ms", "msec": "ms", "msecs": "ms", "millisecond": "ms", "milliseconds": "ms",
    "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "m": "m", "min": "m", "mins": "m", "minute": "m", "minutes": "m",
    "h": "h", "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
    "d": "d", "day": "d", "days": "d",
    "w": "w", "week": "w", "weeks": "w",
}  # fmt: skip
_NEVER = ("none", "never", "null")
_SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_SCHEMES = (
    "memory", "sqlite", "unix",
    *(f"{family}{kind}" for kind in ("", "+cluster", "+sentinel") for family in ("redis", "rediss", "valkey", "valkeys")),
)  # fmt: skip
_HOST = re.compile(r"(?:[\w-]+(?:\.[\w-]+)*|\[[0-9a-f:]+\])(?::[0-9]+)?", re.IGNORECASE | re.ASCII)


def write(name: str, value: object, *, least: float | None = None, most: float | None = None) -> str:
    """`; write name=value`, the end of a message; nothing where there is no value, or one out of bounds."""
    low, high = -math.inf if least is None else least, math.inf if most is None else most
    if value is None or (isinstance(value, (int, float)) and not low <= value <= high):
        return ""
    return f"; write {name}={value!r}"


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return value.strip() if isinstance(value, str) else ""


def number(value: Any) -> int | float | None:
    """The number in a text."""
    text = _text(value)
    for kind in (int, float):
        try:
            found = kind(text)
        except ValueError:
            continue
        return found if abs(found) < float("inf") else None
    return None


def whole(value: Any) -> int | None:
    """The whole number in a text, with a unit of bytes or without, or of a float."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    found = number(value)
    if found is not None:
        return int(found) if found == int(found) else None
    size = _SIZE.fullmatch(_text(value))
    if size is None:
        return None
    return int(float(size[1]) * (1024 if size[3] else 1000) ** _POWERS[size[2].lower()])


def switch(value: Any) -> bool | None:
    """True or False in a text."""
    return _SWITCHES.get(_text(value).lower())


def duration(value: Any, least: float = 0.0) -> str:
    """How a time that was given as a text is written, "" where that cannot be told."""
    text = _text(value)
    found = number(value)
    if found is not None:
        return f'{found!r} (seconds) or "{found}s"' if found > least else ""
    if text.lower() in _NEVER:
        return "None"
    parts = _TIMES.findall(text)
    if parts and not _TIMES.sub("", text) and all(unit.lower() in _UNITS for _, unit in parts):
        return '"' + "".join(f"{amount}{_UNITS[unit.lower()]}" for amount, unit in parts) + '"'
    return ""


def url(value: str) -> str:
    """The URL of a store that another spelling stands for, "" where none is likely. Never a user name or a password."""
    text = value.strip()
    if text.lower().strip(":/") in ("memory", "locmem"):
        return "memory://"
    scheme, colons, rest = text.partition("://")
    if colons:
        from difflib import get_close_matches

        known = get_close_matches(scheme.lower().replace("-", "+"), _SCHEMES, 1, 0.75)
        if not known and scheme.lower() in ("tcp", "http", "https"):
            known = ["redis"]
        return f"{known[0]}://{_bare(rest)}" if known else ""
    scheme, colon, rest = text.partition(":")
    if colon and scheme.lower() in _SCHEMES and rest and not rest.isdigit():
        return f"{scheme.lower()}://{_bare(rest.lstrip('/'))}"  # one slash, or none
    place, _, database = text.partition("/")
    host = _bare(place)
    end = f"/{database}" if database.isdigit() else ""
    hosts = host.rpartition("@")[2].split(",")
    if text.endswith((".db", ".sqlite", ".sqlite3", ".sock", ".socket")):
        kind = "unix://" if text.endswith((".sock", ".socket")) else "sqlite:///"
        return "" if "@" in text else f"{kind}{text}"
    if text.startswith(("/", ".", "~")) or (database and not end) or not all(map(_HOST.fullmatch, hosts)):
        return ""
    if len(hosts) > 1:
        return f"redis+cluster://{host}"
    return f"redis://{host}{end}" if host == "localhost" or ":" in host or "." in host else ""


def _bare(place: str) -> str:
    """A place without user name, password and options, which may be a password."""
    if "@" in place and "?" in place:
        return "..."  # which of them ends the password cannot be told
    _, at, host = place.partition("?")[0].rpartition("@")
    return f"...@{host}" if at else host
