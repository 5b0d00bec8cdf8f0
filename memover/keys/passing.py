"""Objects that come and go with a request, a task or a transaction: never part of a key, and what to give instead.

Recognised by the names of their classes, those of their bases included, so that no framework is imported.
"""

from __future__ import annotations

from memover.classes.kinds import RESPONSES, VIEWS, base_names, is_iterator

__all__ = ["fleeting", "hint_for"]

_REQUEST = "it differs with every request: give the function the values of it that its result depends on"
_PROXY = "it stands for another object in each request: give the function the values that its result depends on"
_PART = "it is a part of the request: give the function the values in it that its result depends on"
_ANSWER = "it is made anew for every answer: make it from the function's result"
_TASK = "it is the task and not what it works on: give the function the values that its result depends on"
_CONNECTION = "it says how the result is found and not which it is"

_HINTS: dict[str, str] = {
    **dict.fromkeys(RESPONSES, _ANSWER),
    "starlette.requests.HTTPConnection": _REQUEST,
    "django.http.request.HttpRequest": _REQUEST,
    "werkzeug.sansio.request.Request": _REQUEST,
    "rest_framework.request.Request": _REQUEST,
    "aiohttp.web_request.BaseRequest": _REQUEST,
    "litestar.connection.base.ASGIConnection": _REQUEST,
    "sanic.request.types.Request": _REQUEST,
    "starlette.datastructures.Headers": _PART,
    "starlette.datastructures.ImmutableMultiDict": _PART,
    "django.http.request.HttpHeaders": _PART,
    "django.http.request.QueryDict": _PART,
    "django.core.files.uploadedfile.UploadedFile": _PART,
    "werkzeug.datastructures.headers.Headers": _PART,
    "werkzeug.datastructures.structures.MultiDict": _PART,
    "werkzeug.datastructures.file_storage.FileStorage": _PART,
    "werkzeug.local.LocalProxy": _PROXY,
    "starlette.background.BackgroundTask": _ANSWER,
    "starlette.datastructures.UploadFile": _PART,
    "celery.app.task.Task": _TASK,
    "celery.local.celery.local": _TASK,  # the name that its proxies of tasks go by
    "celery.app.task.Context": _TASK,
    "sqlalchemy.orm.session.Session": _CONNECTION,
    "sqlalchemy.ext.asyncio.session.AsyncSession": _CONNECTION,
    "sqlalchemy.engine.base.Engine": _CONNECTION,
    "sqlalchemy.engine.base.Connection": _CONNECTION,
    "httpx._client.BaseClient": _CONNECTION,
    "requests.sessions.Session": _CONNECTION,
    "aiohttp.client.ClientSession": _CONNECTION,
    "redis.client.Redis": _CONNECTION,
    "sqlite3.Connection": _CONNECTION,
}


def hint_for(kind: type) -> str:
    """Why objects of a class are no part of a key, and what to give instead; "" for all other classes."""
    return next((_HINTS[name] for name in base_names(kind) if name in _HINTS), "")


def fleeting(kind: type) -> tuple[str, str] | None:
    """Why objects of a class of Python's own are no argument, though what they yield may be, and what to give instead."""
    if is_iterator(kind):
        return "it can be read only once", "give a list or a tuple of what it yields"
    if kind in VIEWS:
        return "it shows what the dict is later", "give a list, a tuple or a set of it"
    return None
