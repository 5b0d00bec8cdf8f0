"""URLs of stores: passwords are in no message and no address, and what cannot be meant is refused."""

from __future__ import annotations

import traceback

import pytest

from memover.errors import ConfigurationError, StoreError
from memover.stores.redis import RedisStore
from memover.stores.redis.url import parse_url
from tests.redis_store.conftest import a_key, limits
from tests.servers import RedisServer, free_port

SECRET = [
    "redis://:s3cr3t/word@localhost:{port}/0",
    "redis://user:s3cr3t#word@localhost:{port}",
    "redis://user:s3cr3t?word@localhost:{port}",
    "redis://user:12345#s3cr3t@localhost:{port}",
    "redis://user:12345/s3cr3t@localhost:{port}",
    "redis://user:s3cr3t[x@localhost:{port}/0",
    "redis://user:s3cr3t]x@localhost:{port}/0",
    "redis://user:s3cr3t@x@localhost:{port}/0",
    "redis://user:s3cr3t:x@localhost:{port}/0",
    "redis://us/er:s3cr3t@localhost:{port}/0",
    "redsi://:s3cr3t@localhost",
    "redis://:s3cr3t@localhost:port/0",
    "redis://:s3cr3t@localhost:99999999/0",
    "redis://:s3cr3t@localhost:{port}/s3cr3t",
    "redis://:s3cr3t@localhost:{port}/0?foo=s3cr3t",
    "redis://:s3cr3t@localhost:{port}/0?socket_keepalive=s3cr3t&socket_read_size=s3cr3t",
    "redis://localhost:{port}/0?password=s3cr3t",
    "rediss://:s3cr3t/word@localhost:{port}/0",
    "unix://:s3cr3t/x@/nowhere/redis.sock",
    "unix://:s3cr3t@/nowhere/redis.sock?db=s3cr3t",
    "redis+sentinel://:s3cr3t/x@localhost:{port}/svc",
    "redis+sentinel://u:s3cr3t@localhost:{port}/svc?sentinel_password=s3cr3t&foo=bar",
    "redis+sentinel://u:s3cr3t@localhost:s3cr3t/svc",
    "redis+cluster://user:p:s3cr3t@localhost:{port},h:1",
    "redis+cluster://user:s3cr3t,x@localhost:{port}",
    "redis+cluster://user:s3cr3t@localhost:{port}/7",
]


@pytest.mark.parametrize("url", SECRET)
def test_a_password_is_in_no_message(url: str) -> None:
    """Whatever is wrong with the URL, its characters, its port, its options or the server: no message quotes the password."""
    said = ""
    try:
        store = RedisStore(parse_url(url.format(port=free_port())), limits())
        said = store.address + repr(store)
        store.fetch(a_key("t"))
    except (ConfigurationError, StoreError) as error:
        said += "".join(traceback.format_exception(error)) + repr(error.__dict__)
    lines = [line for line in said.splitlines() if not line.startswith(" ")]  # without this file's own source
    assert "s3cr3t" not in "".join(lines)
    assert "12345" not in "".join(lines)


@pytest.mark.parametrize("password", ["plain", "a/b", "a#b", "a?b", "a@b", "a[b]", "a:b", "a%b", "a,b", "ä b"])
def test_any_password_can_be_written(password: str) -> None:
    """Percent-encoded, every password reaches the server as it is."""
    with RedisServer(password=password) as server:
        store = RedisStore(parse_url(server.url), limits(socket_timeout=5.0, socket_connect_timeout=5.0))
        assert store.fetch(a_key("t")).raw is None
        store.close()


def test_a_wrong_password_is_said_without_it() -> None:
    """The server refuses it: an error that quotes nothing."""
    with RedisServer(password="right") as server:
        store = RedisStore(parse_url(server.url.replace("right", "s3cr3t")), limits())
        with pytest.raises(StoreError) as caught:
            store.fetch(a_key("t"))
        assert "s3cr3t" not in str(caught.value)
        assert store.address in str(caught.value)


def test_what_cannot_be_meant() -> None:
    """Options that no connection takes, and a path that is no database, are refused when the store is made."""
    with pytest.raises(ConfigurationError, match="foo"):
        RedisStore(parse_url("redis://localhost/0?foo=1"), limits())
    with pytest.raises(ConfigurationError, match="number of a database"):
        parse_url("redis://localhost/zero")
    with pytest.raises(ConfigurationError, match="socket_timeout"):
        parse_url("redis://localhost/0?socket_timeout=1")
