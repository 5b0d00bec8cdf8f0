"""Articles over HTTP with FastAPI: a cached query, answers that browsers may keep, and a write that invalidates.

pip install memover fastapi uvicorn
MEMOVER_URL=redis://localhost:6379/0 uvicorn --app-dir examples fastapi_articles:app --workers 4

curl -i localhost:8000/articles/7
curl -i localhost:8000/articles/7 -H 'If-None-Match: <the ETag of the answer>'     # 304, without a body
curl -X PUT localhost:8000/articles/7 -H 'Content-Type: application/json' -d '{"title": "Better", "words": 900}'
curl -i localhost:8000/articles/7     # the new article and another ETag, whichever worker answers

What the workers share as a database is a file (ARTICLES names it; default: one in the directory for temporary files).
"""

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel

import memover
from memover import versioned_cache


class Article(BaseModel):
    title: str
    words: int


class Database:
    """Stands for a pool of connections."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._query("CREATE TABLE IF NOT EXISTS articles (id INTEGER PRIMARY KEY, title TEXT, words INTEGER)")
        self._query("INSERT OR IGNORE INTO articles VALUES (7, 'On naming things', 900)")

    def _query(self, statement: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    async def article(self, article_id: int) -> Article | None:
        rows = await asyncio.to_thread(self._query, "SELECT title, words FROM articles WHERE id = ?", article_id)
        return Article(title=rows[0][0], words=rows[0][1]) if rows else None

    async def change(self, article_id: int, changed: Article) -> None:
        statement = "INSERT OR REPLACE INTO articles VALUES (?, ?, ?)"
        await asyncio.to_thread(self._query, statement, article_id, changed.title, changed.words)


_database = Database(os.environ.get("ARTICLES", str(Path(tempfile.gettempdir()) / "memover-articles.db")))


def database() -> Database:
    return _database


# The database says how the answer is found and not which it is, so it is no part of the key. A request would not be one
# either: give the function the values that its answer depends on.
@versioned_cache(
    namespace="articles", version=1, ttl="10m", ignore=("rows",), cache_if=lambda found, call: found is not None
)
async def article(article_id: int, rows: Database) -> Article | None:
    """A slow query; requests that come at the same time wait for one run of it, in all the workers."""
    return await rows.article(article_id)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # Configured by MEMOVER_URL and MEMOVER_PREFIX. Nothing is connected to before the first call.
    yield
    await memover.default_cache().aclose()


app = FastAPI(lifespan=lifespan)
Rows = Annotated[Database, Depends(database)]


@app.get("/articles/{article_id}", response_model=Article)
async def show(article_id: int, request: Request, response: Response, rows: Rows) -> Article | Response:
    found = await article(article_id, rows)
    if found is None:
        raise HTTPException(404, "no such article")
    entry = await article.peek(article_id, rows)
    if entry is not None:
        response.headers.update({"ETag": entry.etag, "Cache-Control": "no-cache", "Age": f"{entry.age:.0f}"})
        if request.headers.get("If-None-Match") == entry.etag:
            return Response(status_code=304, headers={"ETag": entry.etag})
    return found


@app.put("/articles/{article_id}", status_code=204)
async def change(article_id: int, changed: Article, rows: Rows) -> None:
    await rows.change(article_id, changed)
    # After the write, before the answer: nobody is told "done" while the old article is still served.
    await article.invalidate(article_id, rows)
