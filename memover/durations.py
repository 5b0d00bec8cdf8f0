"""Durations in four spellings: seconds (int or float), `timedelta`, text such as `"1h30m"` or `"250ms"`, None for "never ends".

Inside memover they are float seconds, infinity for never.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta

from memover.errors import ConfigurationError

__all__ = ["Duration", "duration_in", "seconds_of"]

Duration = int | float | str | timedelta | None

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|[smhdw])")
_TEXT = re.compile(r"\s*(?:[0-9]+(?:\.[0-9]+)?\s*(?:ms|[smhdw])\s*)+\Z")
_FORMS = 'seconds, a timedelta, text such as "1h30m", or None for never'


def duration_in(text: str) -> Duration:
    """The duration in an environment variable: a number of seconds, any other spelling of one, or "never"."""
    if text.lower() in ("none", "never"):
        return None
    try:
        return float(text)
    except ValueError:
        return text


def seconds_of(value: Duration, name: str, *, least: float = 0.0, zero: bool = False, never: bool = True) -> float:
    """Seconds of a duration in any of its spellings; infinity for None.

    `least` is exclusive unless `zero` allows it; `never=False` refuses None and infinity. Raises
    `ConfigurationError` that names the option and the spellings.
    """
    seconds: float
    if value is None:
        seconds = math.inf
    elif isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        if not _TEXT.match(value):
            from memover.spelling import duration

            meant = duration(value, least)
            told = f"write {meant}. Durations are" if meant else "give"
            raise ConfigurationError(
                f"{name}={value!r} is not a duration: {told} {_FORMS} (units: {', '.join(_UNITS)})."
            )
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf
    else:
        raise ConfigurationError(f"{name}={value!r} is not a duration: give {_FORMS}.")
    if math.isnan(seconds) or seconds < least or (seconds == least and not zero):
        bound = "at least" if zero else "greater than"
        raise ConfigurationError(f"{name}={value!r} must be {bound} {least:g} seconds; give {_FORMS}.")
    if not never and math.isinf(seconds):
        raise ConfigurationError(f"{name}={value!r} must end at some time: give seconds, a timedelta or text.")
    return seconds
