"""What an `sqlite:` URL says: `sqlite:///relative.db`, `sqlite:////absolute.db`."""

from __future__ import annotations

import os
from urllib.parse import unquote

from memover.errors import ConfigurationError

__all__ = ["parse_url"]

_SCHEME = "sqlite://"


def parse_url(url: str) -> str:
    """The absolute path of the file that an `sqlite:` URL names.

    A relative path is relative to the current directory at this moment; `~` is the user's home; `%20` is a space. Nothing
    is opened. Raises `ConfigurationError` that says how the URL is written.
    """
    if not url.lower().startswith(_SCHEME):
        raise ConfigurationError(f"{url!r} is no SQLite URL: write sqlite:///relative.db or sqlite:////absolute.db.")
    rest = url[len(_SCHEME) :]
    options = min((rest.index(mark) for mark in "?#" if mark in rest), default=len(rest))
    if not rest.startswith("/"):
        if "@" in rest:  # it is not repeated: there may be a password in it
            raise ConfigurationError(
                "An SQLite URL has no user, password or host: three slashes and a relative path (sqlite:///memover.db), or four "
                "and an absolute one (sqlite:////var/cache/memover.db)."
            )
        rest = rest[:options]  # the rest may hold a key or a password
        if rest:
            raise ConfigurationError(
                f"{_SCHEME + rest!r} has {rest.partition('/')[0]!r} where a host would be: a file has none. Three slashes and a relative "
                f"path (sqlite:///{rest}), or four and an absolute one (sqlite:////var/cache/{os.path.basename(rest)})."
            )
        raise ConfigurationError("The URL names no file: write sqlite:///relative.db or sqlite:////absolute.db.")
    text = rest[1:]
    if "?" in text or "#" in text:
        raise ConfigurationError(
            f"{_SCHEME + rest[:options]!r} has options behind '?' or '#' (not repeated here): give them as keyword arguments (max_bytes=...); in a file's name write "
            f"%3F for '?' and %23 for '#'."
        )
    path = unquote(text)
    if not path or path.endswith(("/", os.sep)):
        raise ConfigurationError(f"{url!r} names no file: write sqlite:///relative.db or sqlite:////absolute.db.")
    if path == ":memory:":
        raise ConfigurationError(f"{url!r} would be gone with its connection: for this process's memory use memory://.")
    if "\0" in path:
        raise ConfigurationError(f"{url!r} holds a zero byte, which no file's name can.")
    path = os.path.realpath(os.path.expanduser(path))
    if os.path.isdir(path):
        raise ConfigurationError(
            f"{url!r} is a directory: name a file in it, say sqlite:///{text.rstrip('/')}/memover.db."
        )
    return path
