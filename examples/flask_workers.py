"""A Flask application whose gunicorn workers share one SQLite file: no server to run, no worker computes what another has.

    gunicorn --workers 4 --bind 127.0.0.1:8000 --chdir examples flask_workers:app
    curl http://127.0.0.1:8000/report/2024          # slow once, whichever worker it reaches
    curl -X POST http://127.0.0.1:8000/report/2024  # new figures: every worker computes it anew
    curl http://127.0.0.1:8000/numbers              # what this worker has done so far

MEMOVER_STORE names the file (default: a file in the directory for temporary files).
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from flask import Flask, jsonify

from memover import Cache

STORE = os.environ.get("MEMOVER_STORE", str(Path(tempfile.gettempdir()) / "memover-flask.db"))

app = Flask(__name__)
cache = Cache(f"sqlite:///{STORE}", prefix="flask", ttl="10m")


@cache.versioned(namespace="report")
def report(year: int) -> dict[str, Any]:
    """Something that takes a while."""
    time.sleep(0.2)
    return {"year": year, "computed by": os.getpid(), "total": year * 1000}


@app.get("/report/<int:year>")
def show(year: int) -> Any:
    return jsonify(report(year))


@app.post("/report/<int:year>")
def changed(year: int) -> Any:
    report.invalidate(year)
    return jsonify({"invalidated": year})


@app.get("/numbers")
def numbers() -> Any:
    info = report.cache_info()
    return jsonify({"worker": os.getpid(), "hits": info.hits, "loads": info.loads})
