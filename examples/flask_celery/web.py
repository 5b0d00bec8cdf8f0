"""Reports over HTTP with Flask.

    MEMOVER_URL=redis://localhost:6379/0 flask --app web run
    MEMOVER_URL=redis://localhost:6379/0 gunicorn --bind 127.0.0.1:5000 --config gunicorn.conf.py web:app

    curl -i localhost:5000/reports/7                  # made_by and answered_by are one process
    curl -X POST localhost:5000/shops/7/changed       # the next answer is made anew

With the worker of worker.py beside it, a report that a task made is answered without being made again.
"""

import os

from flask import Flask, Response, jsonify, request
from reports import report

import memover

app = Flask(__name__)


@app.get("/reports/<int:shop_id>")
def show(shop_id: int) -> Response:
    made = report(shop_id)
    answer = jsonify({**made, "answered_by": os.getpid()})
    entry = report.peek(shop_id)
    if entry is not None:
        answer.set_etag(entry.etag.strip('"'))
        answer.cache_control.max_age = int(min(entry.max_age, 60))
        answer.make_conditional(request)  # 304 without a body, if the client has it
    return answer


@app.post("/shops/<int:shop_id>/changed")
def changed(shop_id: int) -> tuple[str, int]:
    memover.default_cache().invalidate_tags(f"shop:{shop_id}")
    return "", 204
