"""`memover serve`: the page of a running cache, on this machine unless a token is given."""

from __future__ import annotations

import secrets
import sys
from contextlib import suppress

import click

from memover.cli.project import CannotRun
from memover.cli.running import StoreContext, on_store

__all__ = ["serve"]

_MISSING = (
    'The page needs what `pip install memover` leaves out ({name} is not installed):\n\n    pip install "memover[web]"'
)
_TOKEN_LEAST = 16


@click.command("serve")
@on_store
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8686, show_default=True, help="0 takes a free one.")
@click.option("--token", envvar="MEMOVER_TOKEN", help="Who asks must know it. Default: MEMOVER_TOKEN, else none.")
@click.option("--allow-invalidate", is_flag=True, help="Have the button that invalidates a namespace.")
def serve(context: StoreContext, form: str, host: str, port: int, token: str | None, allow_invalidate: bool) -> None:
    """Show a running cache as a page that renews itself: functions, contents, entries, the doctor's checks.

    It only reads unless --allow-invalidate. On another address than loopback it needs --token.
    """
    try:
        import uvicorn

        from memover.web.app import application
        from memover.web.guard import is_loopback
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "memover":
            raise
        raise CannotRun(_MISSING.format(name=error.name)) from None
    if token is not None and len(token) < _TOKEN_LEAST:
        raise CannotRun(
            f"The token has {len(token)} characters, and is to keep others out: give at least {_TOKEN_LEAST}, say {secrets.token_urlsafe(24)}."
        )
    if token is None and not is_loopback(host):
        raise CannotRun(
            f"--host {host} is open to other machines, so the page needs a token: --token {secrets.token_urlsafe(24)}, or MEMOVER_TOKEN."
        )
    app = application(context, host=host, token=token or "", allow_invalidate=allow_invalidate)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,  # it would log ?token=
        server_header=False,
        timeout_graceful_shutdown=1,  # streams never end by themselves
        limit_concurrency=200,
    )
    try:
        bound = config.bind_socket()
    except SystemExit:
        raise CannotRun(
            f"{host}:{port} cannot be listened on: is another memover serve running there? --port takes another."
        ) from None
    bound.listen()  # who reads the address below may connect at once, and waits until the page is there
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{bound.getsockname()[1]}/"
    click.echo(f"memover serve: {address}  (Ctrl-C ends it)")
    if token is not None:
        click.echo("Open it once with ?token=… at the end of the address; the browser is then remembered.")
    sys.stdout.flush()
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[bound])
