"""A password in a URL shows up in no message, whatever is wrong with the URL."""

from __future__ import annotations

import json
import traceback
from typing import TYPE_CHECKING

import pytest

from memover import Cache

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cr3t"
URLS = [
    f"redis://:{SECRET}/word@localhost:1/0",
    f"redis://user:{SECRET}#word@localhost:1",
    f"redis://user:{SECRET}?word@localhost:1",
    f"redis://user:wo/{SECRET}@localhost:1/0",
    f"redis://user:wo#{SECRET}@localhost:1/0",
    f"redis://user:wo?{SECRET}@localhost:1/0",
    f"redis://user:se[{SECRET}@localhost:1/0",
    f"redsi://:{SECRET}@localhost",
    f"redis:/:{SECRET}@localhost",
    f"redis+sentinel://:{SECRET}/x@localhost:1/svc",
    f"redis+cluster://user:p:{SECRET}@localhost:1,localhost:2",
    f"redis://:{SECRET}@localhost:port/0",
    f"redis://:{SECRET}@localhost:99999/0",
    f"redis+cluster://user:{SECRET[:3]},{SECRET}@localhost:1",
    f"redis+sentinel://u:{SECRET}@localhost:1/svc?sentinel_password={SECRET}&foo=bar",
    f"redis+sentinel://localhost:1/svc?sentinel_password={SECRET}",
    f"redis://:{SECRET}@localhost:1/0?foo=bar",
    f"redis://localhost:1/0?password={SECRET}",
    f"redis://:{SECRET}@localhost:1/notanumber",
    f"redis://:%zz{SECRET}@localhost:1/0",
    f"rediss://:{SECRET}@localhost:1/0?ssl_cert_reqs=nonsense",
    f"sqlite://user:{SECRET}@localhost:1/store.db",
    f"sqlite://user:wo/{SECRET}@localhost/store.db",
    f"sqlite:///nowhere/store.db?key={SECRET}",
    f"sqlite:///nowhere/store.db#{SECRET}",
    f"sqlite://nowhere/store.db?key={SECRET}",
    f"sqlite://?key={SECRET}",
    f"unix://user:{SECRET}@/nowhere/redis.sock?db=0",
    f"unix://:{SECRET}/x@/nowhere/redis.sock?db=x",
]


@pytest.mark.parametrize("url", URLS)
def test_no_message_shows_a_password(url: str, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the error, its causes and their frames' text, nor `repr`, `address`, logs or the errors of calls.

    (A traceback shows lines of code and not values, so the test's own URL is not in it.)"""
    said: list[str] = []
    try:
        cache = Cache(
            url, prefix=prefix, breaker_first=60, breaker_last=60, socket_timeout=0.2, socket_connect_timeout=0.2
        )
    except Exception as error:
        said += _everything(error)
    else:
        said += [repr(cache), str(cache), cache.address]

        @cache.versioned(namespace="n")
        def f() -> int:
            return 1

        f()
        said += [repr(f), str(f.cache_parameters())]
        for call in (f.invalidate_all, lambda: cache.set("k", 1), lambda: cache.invalidate_tags("t")):
            try:
                call()
            except Exception as error:
                said += _everything(error)
        try:
            cache.close()
        except Exception as error:
            said += _everything(error)
    said += [record.getMessage() for record in caplog.records]
    assert [text for text in said if SECRET in text] == []


def _everything(error: BaseException) -> list[str]:
    said = []
    seen: BaseException | None = error
    while seen is not None:
        said += [str(seen), repr(seen), repr(seen.__dict__), repr(seen.args)]
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    # What a user sees in a log: only of the error's own text, for the call that raised it has the URL in its source line.
    said += [line for line in traceback.format_exception_only(type(error), error) if line]
    return said


WAYS = ["option", "environment", "settings"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("url", [each for each in URLS if not each.startswith("sqlite:///")])
def test_no_command_shows_a_password(
    url: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever the URL comes from: an option, MEMOVER_URL, or [tool.memover]."""
    from click.testing import CliRunner

    from memover.cli.app import memover

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEMOVER_URL", raising=False)
    (tmp_path / "pyproject.toml").write_text(
        "[tool.memover]\n" + (f"url = {json.dumps(url)}\n" if how == "settings" else "")
    )
    for command in (["ls"], ["doctor", "--format", "json"], ["inspect", "f", "1"], ["invalidate", "f", "--yes"]):
        result = CliRunner(env={"MEMOVER_URL": url} if how == "environment" else {}).invoke(
            memover, [*command, *(["--url", url] if how == "option" else [])]
        )
        assert result.exit_code in (1, 2)
        said = [result.output, *(_everything(result.exception) if result.exception is not None else [])]
        assert [text for text in said if SECRET in text] == []
    assert SECRET not in caplog.text
