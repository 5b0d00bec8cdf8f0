"""The names of everything memover keeps in a store; each parses one way only. The text of a key is formed here and nowhere
else, but for leases, which `model.Key` and `keys.keyvalue` form in the same way.

    key         text                                    made by
    ----------  --------------------------------------  ----------------
    entry       {prefix}:{version}:{namespace}:{text}   `entry_key`
    generation  {prefix}:gen:{namespace}                `generation_key`
    soft mark   {prefix}:gen:{namespace}@soft           `soft_key`
    shard       {either of these two}@shard{<3 letters>} `keys.shards`, braces as written
    registry    {<generation key>}@shards, braces too   `keys.shards`
    call token  {prefix}:gen:{namespace}@call{0..1023}  `stripe_key`
    tag clock   {prefix}:gen:@tags                      `tag_clock_key`
    coarse      {prefix}:gen:@all                       `coarse_key`
    tag         {prefix}:tag:{escaped tag}              `tag_key`
    lease       {<entry key>}:lease, braces as written  `lease_key`, `model.Key`
    report      {prefix}:report:{process id}            `report_key`

    prefix     1 to 64 of   A-Z a-z 0-9 _ . -
    namespace  1 to 200 of  A-Z a-z 0-9 _ . - /
    version    decimal, from 1 to 2**63 - 1, no leading zero; with `follow_code` then `~` and 8 hex digits
    text       32 lower-case hex digits, or a human key (`template.py`): 1 to 200 printable ASCII characters

Why one way only: neither prefix, version nor namespace holds a colon, so the first three colons are the
separators and the rest is the text; `gen`, `tag` and `report` are no versions, and `@` is in no namespace. A lease begins with `{`, which begins
no prefix. No part holds `{` or `}`, so the braces of a lease are a Redis Cluster hash tag around the whole
entry key (Redis Cluster specification, "Hash tags"): the lease shares the slot of its entry and of nothing else.

Escaping (`escape`), for tags and human keys: printable ASCII other than `%`, `{`, `}`, `~` stands for
itself; every other character becomes `%XX` for each byte of its UTF-8 form (lone surrogates too, as
CPython's "surrogatepass" writes them). The escaped text is thus one line of ASCII, and two texts never
escape alike. `~` is kept for marks that no text can begin with; `~h` marks a digest of an over-long text.
"""

from __future__ import annotations

from string import ascii_letters, digits
from typing import TYPE_CHECKING, Any
from zlib import crc32

from memover.errors import ConfigurationError, raised_by_handler
from memover.later import later

if TYPE_CHECKING:
    import hashlib
else:
    hashlib = later(__name__, "hashlib")

__all__ = [
    "TEXT_LIMIT", "check_namespace", "check_prefix", "check_version", "coarse_key", "entry_key", "escape",
    "generation_key", "lease_key", "report_key", "soft_key", "stripe_key", "tag_clock_key", "shorten", "tag_key",
    "tag_of", "of_calls", "token_prefixes", "transient",
]  # fmt: skip

STRIPES = 1024
PREFIX_LIMIT = 64
NAMESPACE_LIMIT = 200
VERSION_LIMIT = 2**63 - 1
TEXT_LIMIT = 200
"""The longest text of a human key or an escaped tag in characters; a longer one enters as a marked digest."""

_PREFIX = frozenset(ascii_letters + digits + "_.-")
_NAMESPACE = _PREFIX | {"/"}

PLAIN = frozenset(map(chr, range(0x21, 0x7F))) - frozenset("%{}~")
"""The characters that stand for themselves in an escaped text."""

_PLAIN_BYTES = "".join(sorted(PLAIN)).encode()


def _check_name(text: Any, what: str, allowed: frozenset[str], limit: int, marks: str) -> str:
    if type(text) is not str:
        raise ConfigurationError(f"{what} must be a str, not {type(text).__name__}; write {what}='shop', say")
    if not text:
        raise ConfigurationError(f"{what} must not be empty; write {what}='shop', say")
    if len(text) > limit:
        raise ConfigurationError(f"{what} has {len(text)} characters, more than {limit}; choose a shorter one")
    bad = next((char for char in text if char not in allowed), None)
    if bad is not None:
        raise ConfigurationError(f"{what} {text!r} holds {bad!r}; use only ASCII letters, digits and {marks}")
    return text


def check_prefix(text: Any) -> str:
    """The prefix as given, or `ConfigurationError`: 1 to 64 ASCII letters, digits, `_ . -`."""
    return _check_name(text, "prefix", _PREFIX, PREFIX_LIMIT, "_ . -")


def check_namespace(text: Any) -> str:
    """The namespace as given, or `ConfigurationError`: 1 to 200 ASCII letters, digits, `_ . - /`."""
    return _check_name(text, "namespace", _NAMESPACE, NAMESPACE_LIMIT, "_ . - /")


def check_version(value: Any) -> int:
    """The version as given, or `ConfigurationError`: an int from 1 to 2**63 - 1, and not a bool."""
    if type(value) is not int:
        from memover.spelling import whole, write

        text = value.lower().removeprefix("v") if isinstance(value, str) else value
        meant = None if isinstance(value, bool) else write("version", whole(text), least=1, most=VERSION_LIMIT)
        raise ConfigurationError(
            f"version must be an int, not {value!r} ({type(value).__name__}){meant or '; write version=1'}"
        )
    if not 1 <= value <= VERSION_LIMIT:
        raise ConfigurationError("version must be from 1 to 2**63 - 1; begin with version=1 and add one at each change")
    return value


def entry_key(prefix: str, version: int | str, namespace: str, text: str) -> str:
    """The key of one call's entry; prefix, version and namespace have been checked, text is a binding's."""
    return f"{prefix}:{version}:{namespace}:{text}"


def generation_key(prefix: str, namespace: str) -> str:
    """The key of a namespace's generation, one for all its versions."""
    return f"{prefix}:gen:{namespace}"


def soft_key(prefix: str, namespace: str) -> str:
    """The key of a namespace's soft mark: moved by `invalidate_all(soft=True)`, it makes entries stale, not dead."""
    return f"{prefix}:gen:{namespace}@soft"


def stripe_key(prefix: str, namespace: str, text: str) -> str:
    """The key of the call token that this call shares with about a thousandth of the namespace's calls.

    It stands for the call in entries whose load used the call's result, and moves when such a call is invalidated."""
    return f"{prefix}:gen:{namespace}@call{crc32(text.encode()) % STRIPES}"


def tag_clock_key(prefix: str) -> str:
    """The key of the token that moves with every tag, so that a load can tell whether any tag moved meanwhile."""
    return f"{prefix}:gen:@tags"


def coarse_key(prefix: str) -> str:
    """The key of the token that moves with every invalidation: for entries that depend on too many to list."""
    return f"{prefix}:gen:@all"


def token_prefixes(prefix: str) -> tuple[bytes, bytes]:
    """What the keys of all tokens under a prefix begin with."""
    return f"{prefix}:gen:".encode(), f"{prefix}:tag:".encode()


def of_calls(name: bytes) -> bool:
    """Whether a token's key is that of single calls."""
    return b"@call" in name


def transient(name: bytes) -> bool:
    """Whether a token's key is that of a tag or of single calls, which live only as long as what needs them."""
    kind, _, rest = name.partition(b":")[2].partition(b":")
    return kind == b"tag" or (kind == b"gen" and b"@call" in rest)


def tag_key(prefix: str, tag: str) -> str:
    """The key of a tag's token; the tag may be any text that is not empty (see the module on escaping).

    Tags are compared as they are: case counts and Unicode is not normalised. `ConfigurationError` for
    an empty tag or one that is no str.
    """
    if not isinstance(tag, str):
        raise ConfigurationError(
            f"a tag must be a str, not {_said(tag)} ({type(tag).__name__}); write f'user:{{id}}', say"
        )
    if not tag:
        raise ConfigurationError("a tag must not be empty; write 'user:7', say")
    return f"{prefix}:tag:{shorten(escape(tag))}"


def _said(tag: Any) -> str:
    try:
        return repr(tag)
    except ValueError as error:
        if raised_by_handler(error):
            raise
        return "..."  # an int of more digits than Python writes


def tag_of(prefix: str, key: str) -> str | None:
    """The tag, as it is written in keys, whose token is kept under this key; None for the key of anything else."""
    start = f"{prefix}:tag:"
    return key[len(start) :] if key.startswith(start) else None


def lease_key(entry_key: str) -> str:
    """The key of the lease on an entry, in the entry's Redis Cluster slot."""
    return "{" + entry_key + "}:lease"


def report_key(prefix: str, process: str) -> str:
    """The key of what one process reports of itself; `process` is text that no other process has, of plain characters."""
    return f"{prefix}:report:{process}"


def escape(text: str | bytes, also: str = "") -> str:
    """The text as printable ASCII without `% { } ~` and the characters in `also`; different texts stay different."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if not data.translate(None, _PLAIN_BYTES) and not any(char in also for char in data.decode("ascii")):
        return data.decode("ascii")
    return "".join(char if (char := chr(byte)) in PLAIN and char not in also else f"%{byte:02X}" for byte in data)


def shorten(text: str) -> str:
    """An escaped text of at most 200 characters as it is, a longer one as `~h` and 128 bits of its digest."""
    if len(text) <= TEXT_LIMIT:
        return text
    return "~h" + hashlib.blake2b(text.encode("ascii"), digest_size=16).hexdigest()
