"""The examples for web frameworks, served as their heads say."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memover import Cache
    from tests.servers import RedisServer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TOGETHER = EXAMPLES / "flask_celery"


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


# -- FastAPI ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def articles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("fastapi")
    monkeypatch.setenv("ARTICLES", str(tmp_path / "articles.db"))
    yield load(EXAMPLES / "fastapi_articles.py")
    del sys.modules["fastapi_articles"]


@pytest.fixture
def client(articles: Any, memover_cache: Cache) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of newer ways to send requests
        from fastapi.testclient import TestClient

    with TestClient(articles.app) as made:
        yield made
    articles.app.dependency_overrides.clear()


def test_fastapi_answers_304_to_a_client_that_has_the_article(client: Any) -> None:
    """The ETag of the entry; after a change it is another one."""
    first = client.get("/articles/7")
    assert first.json() == {"title": "On naming things", "words": 900}
    assert first.headers["Age"] == "0"
    again = client.get("/articles/7", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.put("/articles/7", json={"title": "Better", "words": 900}).status_code == 204
    changed = client.get("/articles/7", headers={"If-None-Match": first.headers["ETag"]})
    assert (changed.status_code, changed.json()["title"]) == (200, "Better")
    assert changed.headers["ETag"] != first.headers["ETag"]
    assert client.get("/articles/8").status_code == 404


@pytest.mark.parametrize("title", ["One fake", "Another fake"])
def test_fastapi_overrides_of_dependencies_are_tested_with_an_empty_cache(
    title: str, client: Any, articles: Any, assert_loads: Any
) -> None:
    """The second test does not read the first one's article."""

    class Fake:
        async def article(self, article_id: int) -> Any:
            return articles.Article(title=title, words=article_id)

    articles.app.dependency_overrides[articles.database] = Fake
    with assert_loads(1, articles.article):
        assert [client.get("/articles/7").json()["title"] for _ in range(3)] == [title] * 3


def test_a_request_as_an_argument_is_refused_with_the_way_out(client: Any, articles: Any) -> None:
    """It names the parameter, and says what to give instead."""
    from starlette.requests import Request

    from memover import Cache, UnkeyableArgument

    @Cache().versioned(namespace="n")
    def page(request: Request) -> str:
        return ""

    with pytest.raises(UnkeyableArgument, match=r"ignore=\('request',\)") as caught:
        page(Request({"type": "http", "headers": []}))
    assert "differs with every request" in str(caught.value)


def test_requests_and_tasks_of_other_frameworks_are_refused_as_well() -> None:
    """Flask's own and the proxy that stands for it, a session, a task of Celery."""
    pytest.importorskip("celery")
    pytest.importorskip("flask")
    import celery
    import flask

    from memover import Cache, UnkeyableArgument

    @Cache().versioned(namespace="n")
    def page(given: Any) -> str:
        return ""

    app = flask.Flask("shop")
    task = celery.Celery("shop").task(lambda self: None, bind=True)
    with app.test_request_context("/"):
        for given in (flask.request, flask.request._get_current_object(), flask.session, flask.Response(), task):
            with pytest.raises(
                UnkeyableArgument, match=r"give the function the values|make it from the function's result"
            ):
                page(given)


# -- Flask, Celery, gunicorn --------------------------------------------------------------------------------------------------


class Services:
    """Programs of examples/flask_celery on one Redis."""

    def __init__(self, redis: RedisServer, prefix: str) -> None:
        known = {name: value for name, value in os.environ.items() if not name.startswith("MEMOVER_")}
        self.environment = {
            **known,
            "MEMOVER_URL": redis.url,
            "MEMOVER_PREFIX": prefix,
            "BROKER": redis.url.rpartition("/")[0] + "/1",
        }
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        started = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=TOGETHER,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.running.append(started)
        return started

    def task(self, name: str, *args: Any) -> Any:
        """The result of a task, asked for by a program of its own."""
        source = f"import json, worker; print(json.dumps(worker.app.send_task({name!r}, {args!r}).get(timeout=60)))"
        ended = subprocess.run(
            [sys.executable, "-c", source],
            cwd=TOGETHER,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(ended.stdout)

    def close(self) -> None:
        for each in self.running:
            each.terminate()
        for each in self.running:
            each.wait(30)


@pytest.fixture
def services(start_redis: Callable[..., RedisServer], prefix: str) -> Iterator[Services]:
    for name in ("celery", "flask", "gunicorn"):
        pytest.importorskip(name)
    made = Services(start_redis(), prefix)
    yield made
    made.close()


def get(port: int, path: str, **headers: str) -> tuple[int, Any, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.headers, None


def serving(port: int) -> bool:
    try:
        get(port, "/nothing")
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_gunicorn_with_preload_and_celery_share_one_function(services: Services) -> None:
    """A report made by a worker of Celery is a hit in both workers of gunicorn, until a tag invalidates it."""
    port = free_port()
    services.start("gunicorn", "--config", "gunicorn.conf.py", "--bind", f"127.0.0.1:{port}", "web:app")
    services.start("celery", "-A", "worker", "worker", "--pool", "prefork", "--concurrency", "2", "--loglevel", "error")
    wait_until(lambda: serving(port), "gunicorn serves", timeout=60)
    made = services.task("make_ahead", [7, 8])
    assert (made["loaded"], made["failed"]) == (2, 0)
    answered: set[int] = set()
    for _ in range(200):
        _, headers, report = get(port, "/reports/7")
        assert report["made_by"] == made["pid"]
        answered.add(report["answered_by"])
        if len(answered) == 2:
            break
    assert len(answered) == 2, "both workers have answered"
    assert services.task("make_ahead", [7])["fresh"] == 1
    assert get(port, "/reports/7", **{"If-None-Match": headers["ETag"]})[0] == 304
    request = urllib.request.Request(f"http://127.0.0.1:{port}/shops/7/changed", method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 204
    _, _, report = get(port, "/reports/7")
    assert report["made_by"] == report["answered_by"]
    assert services.task("show", 7)["made_by"] == report["made_by"]
