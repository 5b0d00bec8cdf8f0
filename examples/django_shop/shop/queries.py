"""Every answer says in a header how many queries it took, so that one can see what the cache saves."""

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.db import connection
from django.utils.decorators import sync_and_async_middleware


class Count:
    """An execute wrapper that counts."""

    def __init__(self) -> None:
        self.queries = 0

    def __call__(self, execute: Callable[..., Any], *args: Any) -> Any:
        self.queries += 1
        return execute(*args)


@sync_and_async_middleware
def count_queries(get_response: Callable[..., Any]) -> Callable[..., Any]:
    """Middleware: `X-Queries` on every response."""
    if iscoroutinefunction(get_response):

        async def awaited(request: Any) -> Any:
            count = Count()
            with connection.execute_wrapper(count):
                response = await get_response(request)
            response["X-Queries"] = count.queries
            return response

        return awaited

    def called(request: Any) -> Any:
        count = Count()
        with connection.execute_wrapper(count):
            response = get_response(request)
        response["X-Queries"] = count.queries
        return response

    return called
