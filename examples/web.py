"""An asynchronous web service with a cached query, and a POST that invalidates it.

    pip install memover starlette uvicorn
    MEMOVER_URL=redis://localhost:6379/0 uvicorn --app-dir examples web:app --workers 4

    curl -i localhost:8000/articles/7      # X-Cache: loaded, and fresh from then on
    curl -X POST localhost:8000/articles/7 -d '{"title": "A better title"}'
    curl -i localhost:8000/articles/7      # loaded, with the new title, whichever worker answers

Four workers share the entries, and after a POST has been answered none of them serves the old article. What they share as a
database is a file (ARTICLES names it; default: one in the directory for temporary files).
"""

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypedDict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import memover
from memover import versioned_cache


class Article(TypedDict):
    title: str
    words: int


DATABASE = os.environ.get("ARTICLES", str(Path(tempfile.gettempdir()) / "memover-articles.db"))


def query(statement: str, *values: Any) -> list[Any]:
    """The rows that a statement returns, in a transaction of its own."""
    with closing(sqlite3.connect(DATABASE)) as connection, connection:
        return connection.execute(statement, values).fetchall()


query("CREATE TABLE IF NOT EXISTS articles (id INTEGER PRIMARY KEY, title TEXT, words INTEGER)")
query("INSERT OR IGNORE INTO articles VALUES (7, 'On naming things', 900)")


@versioned_cache(namespace="articles", version=1, ttl="10m", cache_if=lambda article, call: article is not None)
async def article(article_id: int) -> Article | None:
    """A slow query. Requests that come at the same time wait for one run of it, in all the workers."""
    await asyncio.sleep(0.2)
    found = await asyncio.to_thread(query, "SELECT title, words FROM articles WHERE id = ?", article_id)
    return {"title": found[0][0], "words": found[0][1]} if found else None


async def show(request: Request) -> Response:
    with memover.default_cache().detect() as lookups:
        found = await article(request.path_params["article_id"])
    headers = {"X-Cache": ", ".join(str(lookup.source) for lookup in lookups)}
    if found is None:
        return JSONResponse({"detail": "no such article"}, status_code=404, headers=headers)
    return JSONResponse(found, headers=headers)


async def change(request: Request) -> Response:
    article_id = request.path_params["article_id"]
    title = (await request.json())["title"]
    if not await asyncio.to_thread(query, "UPDATE articles SET title = ? WHERE id = ? RETURNING id", title, article_id):
        return JSONResponse({"detail": "no such article"}, status_code=404)
    # After the write, before the answer. It raises InvalidationFailed if the store did not acknowledge it, so nobody
    # is told "done" while the old article is still served; it is repeated behind our back until it is acknowledged.
    await article.invalidate(article_id)
    return Response(status_code=204)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    yield
    await memover.default_cache().aclose()


app = Starlette(
    routes=[
        Route("/articles/{article_id:int}", show, methods=["GET"]),
        Route("/articles/{article_id:int}", change, methods=["POST"]),
    ],
    lifespan=lifespan,
)
