"""`progress=True`: a bar of tqdm or rich while `map` and `warm` answer."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memover.errors import ConfigurationError
from memover.runtime import progress as module
from tests.batches.test_map import Squares

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.face.ways import Way

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["tqdm", "rich"])
def bars(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Only this one is installed."""
    name: str = request.param
    pytest.importorskip(name)
    monkeypatch.setattr(module, "find_spec", lambda asked: find_spec(asked) if asked == name else None)
    return name


def test_a_bar_counts_the_calls_of_map(way: Way, bars: str, capfd: pytest.CaptureFixture[str]) -> None:
    """With the one installed or the other, hits and misses together, on stderr, under the function's namespace."""
    squares = Squares(way)
    assert squares.map([1, 2]) == [1, 4]
    assert squares.map([1, 2, 3, 4, 4], progress=True) == [1, 4, 9, 16, 16]
    out, err = capfd.readouterr()
    assert out == ""
    assert "5/5" in err
    assert squares.square.namespace in err


def test_a_bar_counts_the_calls_of_warm(way: Way, bars: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Its end is the length of what is warmed; an iterator without one is counted without an end."""
    squares = Squares(way)
    assert way.run(squares.square.warm(range(7), progress=True)).loaded == 7
    assert "7/7" in capfd.readouterr().err
    assert way.run(squares.square.warm(iter_of(range(9)), progress=True)).loaded == 2
    assert "9" in capfd.readouterr().err


def iter_of(numbers: range) -> Iterator[int]:
    yield from numbers


def test_a_bar_is_closed_when_a_call_raises(way: Way, bars: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The error is the caller's, and the bar has counted every call by then."""
    squares = Squares(way)
    squares.bad = {2}
    with pytest.raises(LookupError):
        squares.map([1, 2, 3], progress=True)
    assert "3/3" in capfd.readouterr().err
    assert squares.map([1, 3], progress=True) == [1, 9]


def test_progress_false_is_silent(way: Way, capfd: pytest.CaptureFixture[str]) -> None:
    """False is None."""
    assert Squares(way).map([1, 2], progress=False) == [1, 4]
    assert capfd.readouterr() == ("", "")


def test_without_tqdm_and_rich_it_says_what_to_install(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is loaded."""
    monkeypatch.setattr(module, "find_spec", lambda asked: None)
    squares = Squares(way)
    with pytest.raises(ConfigurationError, match="pip install tqdm"):
        squares.map([1, 2], progress=True)
    with pytest.raises(ConfigurationError, match="pip install tqdm"):
        way.run(squares.square.warm([1, 2], progress=True))
    assert squares.loads == []


@pytest.mark.parametrize("progress", [3, "bar", 1.5])
def test_what_is_neither_a_bool_nor_callable_is_refused(way: Way, progress: Any) -> None:
    """With the two forms named."""
    with pytest.raises(ConfigurationError, match="True for a bar, or a callable"):
        Squares(way).map([1], progress=progress)


def test_tqdm_and_rich_are_not_imported_before_they_are_asked_for() -> None:
    """Importing memover costs neither."""
    program = "import sys, memover; sys.exit(bool({'tqdm', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_bar_is_shown_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cell's output, with no warning about widgets that are not installed."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cell = (
        "from memover import Cache, versioned_cache\n"
        "@versioned_cache(namespace='bars', cache=Cache('memory://'))\n"
        "def square(x):\n    return x * x\n"
        "square.map(range(5), progress=True)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = notebook.cells[0]["outputs"]
    shown = "".join(output.get("text", "") for output in outputs)
    shown += "".join(str(output.get("data", "")) for output in outputs)
    assert "bars" in shown and "5/5" in shown and "[0, 1, 4, 9, 16]" in shown
    assert "Warning" not in shown
