"""The shards of a generation: on a Cluster, several keys instead of one, so that no single node is read by every hit.

With `generation_shards=n` the generation of a namespace stands in n keys besides its own, and so does its soft mark. A call
reads the one that its arguments pick, the same for every version of the function; an invalidation moves the namespace's own
key and all n. The slots of the Cluster are divided into `GRAINS` ranges of 16, and there is one possible shard key in each:

    shard     {prefix}:gen:{namespace}@shard{<tag of the grain>}         and  …@soft@shard{<tag>}
    registry  {<prefix>:gen:<namespace>}@shards, in the slot of the namespace's own generation key

The tag is the first of three letters whose slot lies in the grain's range (`tags`), and Redis Cluster hashes what is inside
the braces alone: so n shards lie as evenly over the slots as n of `GRAINS` ranges can. Shard j of n is the key of grain
ceil(j * GRAINS / n): whatever n is, its keys are among the same `GRAINS` keys.

**Settings that differ.** Processes may be started with different n (a rolling deployment, a command line, another service).
A reader whose n is 1 reads the namespace's own key, which every invalidation moves. For the others, the registry lists
every n that anything was loaded under, and an invalidation moves the keys of them all. Three rules make this hold:

1.  A load registers its n after its token was read and before the function runs. An invalidation after the load
    began reads the registry after that.
2.  A registry that has just been made may have taken the place of one that was lost: it carries a mark, `?` and a nonce.
    As long as it does, an invalidation looks at all `GRAINS` keys and moves those that exist.
3.  An invalidation that has looked, and has found none but what is registered, removes the mark, if the registry is still the very text
    that was read before the look. What was loaded before the look would have been found; what was loaded after
    it has registered since, and so has changed the text.

Where there is no registry at all, a process with n above 1 looks at all keys too. One with n = 1 does not, so that a namespace
without shards costs nothing: it moves what it has ever seen registered.
"""

from __future__ import annotations

from binascii import crc_hqx
from functools import lru_cache
from itertools import product
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from memover.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "GRAINS", "Registered", "check_shards", "grain_of", "may_have_shards", "names_by_grain", "nonce_of", "parse_registry",
    "registry_key", "shard_of", "shards", "unsharded", "with_shards",
]  # fmt: skip

GRAINS = 1024
"""The greatest number of shards, and the number of keys that may be one."""
_SLOTS = 16384
_MARK = b"@shard{"


def check_shards(value: Any) -> int:
    """The checked number of shards, or `ConfigurationError`: a whole number from 1 to `GRAINS`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= GRAINS:
        from memover.spelling import whole, write

        meant = "" if isinstance(value, (bool, int)) else write("generation_shards", whole(value), least=1, most=GRAINS)
        raise ConfigurationError(
            f"generation_shards={value!r} must be a whole number from 1 to {GRAINS}{meant}: 1 keeps a namespace's generation "
            f"in one key, and about as many as the Cluster has primaries spread it over all of them."
        )
    return value


@lru_cache(maxsize=1)
def tags() -> tuple[str, ...]:
    """For each grain the text in braces that puts a key into its range of slots."""
    found: dict[int, str] = {}
    for letters in product(ascii_lowercase, repeat=3):
        tag = "".join(letters)
        found.setdefault(crc_hqx(tag.encode(), 0) % _SLOTS * GRAINS // _SLOTS, tag)
        if len(found) == GRAINS:
            break
    return tuple(found[grain] for grain in range(GRAINS))


def _first_grain(shard: int, count: int) -> int:
    return -(-shard * GRAINS // count)


def _key(name: bytes, grain: int) -> bytes:
    return b"%b%b%b}" % (name, _MARK, tags()[grain].encode())


def grain_of(text: str) -> int:
    """The grain of a call whose arguments come to `text`; the same for every version of its function."""
    return crc_hqx(text.encode(), 0) % GRAINS


def shard_of(name: bytes, count: int, text: str) -> bytes:
    """The key that such a call reads in place of a generation or soft mark; itself for a count of 1."""
    return _key(name, _first_grain(grain_of(text) * count // GRAINS, count)) if count > 1 else name


def names_by_grain(names: Sequence[bytes], count: int) -> tuple[tuple[bytes, ...], ...]:
    """For each grain the shards that its calls read in place of these names."""
    rows = list(zip(*(shards(name, count) for name in names)))
    return tuple(rows[grain * count // GRAINS] for grain in range(GRAINS))


@lru_cache(maxsize=64)
def shards(name: bytes, count: int) -> tuple[bytes, ...]:
    """The keys of all shards of a generation or soft mark; none for a count of 1, which is the key itself. For a count of
    `GRAINS`, every key that may be a shard under any setting."""
    return tuple(_key(name, _first_grain(shard, count)) for shard in range(count)) if count > 1 else ()


def with_shards(names: Sequence[bytes], count: int) -> tuple[bytes, ...]:
    """These names, and after them the shards of those that have some."""
    if count == 1:
        return tuple(names)
    return (*names, *(shard for name in names if may_have_shards(name) for shard in shards(name, count)))


def may_have_shards(name: bytes) -> bool:
    """Whether a key is the generation or the soft mark of a namespace of functions."""
    kind, _, rest = name.partition(b":")[2].partition(b":")
    namespace, at, what = rest.partition(b"@")
    return kind == b"gen" and bool(namespace) and not namespace.startswith(b"~") and (not at or what == b"soft")


def unsharded(name: bytes) -> bytes:
    """The generation or soft mark whose shard this is; any other name as it is."""
    return name.partition(_MARK)[0]


def registry_key(name: bytes) -> bytes:
    """The key that lists the settings in use for a namespace: `name` is its generation, its soft mark, or a shard."""
    return b"{%b}@shards" % name.partition(b"@")[0]


class Registered(NamedTuple):
    """What a registry says: the numbers of shards in use, and whether there may be others."""

    counts: frozenset[int]
    unsure: bool


def parse_registry(text: bytes | None, *, unsure: bool) -> Registered:
    """What is stored as a registry; `unsure` is what the absence of one means. Text that memover did not write says nothing."""
    if text is None:
        return Registered(frozenset(), unsure)
    counts, sure = set(), True
    for part in text.split(b","):
        if part.isdigit() and len(part) <= 4 and 1 <= int(part) <= GRAINS:
            counts.add(int(part))
        else:
            sure = False
    return Registered(frozenset(counts), not sure)


def nonce_of(name: bytes, nonce: str) -> bytes:
    """The nonce of an invalidation for one of its keys: its own for a shard, so that no two shards hold equal tokens.

    An entry that another setting finds under another shard is then a miss."""
    if _MARK not in name:
        return nonce.encode()
    return f"{nonce[:8]}{int(nonce[8:], 16) ^ crc32(name):08x}".encode()
