"""The same reports in Celery's worker processes.

    MEMOVER_URL=redis://localhost:6379/0 BROKER=redis://localhost:6379/1 celery -A worker worker --concurrency 2
    MEMOVER_URL=redis://localhost:6379/0 BROKER=redis://localhost:6379/1 celery -A worker call make_ahead --args '[[8, 9]]'

    curl localhost:5000/reports/8     # of web.py: made_by is a process of the worker, answered_by the web server's

The prefork pool imports the module once and forks. What memover had open then stays the parent's: each worker opens
connections of its own when it first calls a cached function.
"""

import os

from celery import Celery
from reports import report

broker = os.environ.get("BROKER", "redis://localhost:6379/1")
app = Celery("worker", broker=broker, backend=broker)


@app.task(name="make_ahead")
def make_ahead(shop_ids: list[int]) -> dict[str, int]:
    """Fill the cache before anybody asks, and say how many reports had to be made."""
    counts = report.warm(shop_ids)
    return {"pid": os.getpid(), "fresh": counts.fresh, "loaded": counts.loaded, "failed": counts.failed}


@app.task(name="show")
def show(shop_id: int) -> dict[str, int]:
    """One report, as the web server would get it."""
    return report(shop_id)
