"""The bar that `progress=True` shows while many calls are answered: tqdm's, or rich's where tqdm is not installed.

Both are looked for when a bar is asked for; neither is a dependency.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.util import find_spec
from operator import length_hint
from typing import Any, TypeAlias

from memover.errors import ConfigurationError

__all__ = ["Progress", "progress_of"]

Progress: TypeAlias = bool | Callable[[int], object] | None
"""What `map` and `warm` take: True shows a bar; a callable is called with the number of calls done since the last time."""

Advance: TypeAlias = Callable[[int], object] | None


@contextmanager
def progress_of(progress: Progress, title: str, calls: Any) -> Generator[Advance, None, None]:
    """What a batch calls with numbers of calls done, while the block lasts; None without progress.

    `title` stands beside the bar; the length of `calls`, if it has one, is the end of the bar. Raises `ConfigurationError`
    if neither tqdm nor rich is installed, or if `progress` is neither a bool nor callable."""
    if progress is None or progress is False:
        yield None
    elif progress is not True:
        if not callable(progress):
            raise ConfigurationError(
                f"progress={progress!r}: pass True for a bar, or a callable that takes a number of calls (tqdm's update)."
            )
        yield progress
    else:
        total = length_hint(calls, 0) or None
        if find_spec("tqdm") is not None:
            bar = _tqdm(title, total)
        elif find_spec("rich") is not None:
            bar = _rich(title, total)
        else:
            raise ConfigurationError(
                "progress=True shows a bar of tqdm or rich, and neither is installed: run pip install tqdm, or pass a "
                "callable that takes a number of calls."
            )
        with bar as advance:
            yield advance


@contextmanager
def _tqdm(title: str, total: int | None) -> Generator[Advance, None, None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns in a notebook without ipywidgets, and shows its bar as text there
        from tqdm.auto import tqdm
    with tqdm(total=total, desc=title) as bar:
        yield bar.update


@contextmanager
def _rich(title: str, total: int | None) -> Generator[Advance, None, None]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task(title, total=total)
        yield lambda number: bars.advance(bar, number)
