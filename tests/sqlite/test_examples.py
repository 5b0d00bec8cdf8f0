"""The examples of SQLite do what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.servers import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def test_the_script_is_instant_the_second_time(tmp_path: Path) -> None:
    """The second process parses nothing; after --forget it parses everything again."""
    said = [
        subprocess.run(
            [sys.executable, "examples/library_report.py", "--store", str(tmp_path / "x.db"), "--modules", "12", *more],
            cwd=ROOT,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for more in ([], [], ["--forget"])
    ]
    assert "12 parsed now, 0 found" in said[0]
    assert " 0 parsed now, 12 found" in said[1]
    assert "12 parsed now, 0 found" in said[2]
    assert said[0].splitlines()[1] == said[1].splitlines()[1]


def test_a_fresh_kernel_finds_what_the_notebook_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notebook is executed twice, each time by a kernel of its own: the second one computes nothing."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("MEMOVER_NOTEBOOK_STORE", str(tmp_path / "x.db"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    said = []
    for _ in range(2):
        notebook = nbformat.read(ROOT / "examples" / "notebook.ipynb", as_version=4)
        nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
        said.append(
            [output["text"] for cell in notebook.cells for output in cell.get("outputs", ()) if "text" in output]
        )
    assert said[0][0] == "303 primes, the last is 1999; 1 computed now\n"
    assert said[1][0] == "303 primes, the last is 1999; 0 computed now\n"
    assert said[0][1] == said[1][1]


def test_four_gunicorn_workers_share_a_file(tmp_path: Path) -> None:
    """One of them computes, all of them answer with it; an invalidation in one is one in all."""
    pytest.importorskip("flask")
    pytest.importorskip("gunicorn")
    port = free_port()
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "--workers", "4", "--bind", f"127.0.0.1:{port}"),
            *("--chdir", "examples", "--log-level", "error", "flask_workers:app"),
        ],
        cwd=ROOT,
        env={**ENVIRONMENT, "MEMOVER_STORE": str(tmp_path / "x.db")},
    )

    def ask(path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    try:
        wait_until(lambda: bool(ask("/numbers")), "gunicorn to answer", passing=(OSError,))
        first = ask("/report/2024")
        workers = Counter(ask("/numbers")["worker"] for _ in range(60))
        assert len(workers) > 1, "the test is of several workers"
        assert all(ask("/report/2024") == first for _ in range(40))
        assert ask("/report/2024", "POST") == {"invalidated": 2024}
        second = {json.dumps(ask("/report/2024")) for _ in range(20)}
        assert len(second) == 1
    finally:
        server.terminate()
        server.wait(20)
