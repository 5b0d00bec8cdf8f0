"""Every statement on the tables of `schema`: the specification, as `stores.redis.scripts` is for Redis.

Each write is **one** statement in autocommit: atomic as one of Redis's scripts is, and with no moment at which Python code
runs while the write lock is held. So an exception from outside, at any bytecode, leaves no transaction open (P17), and a
thread that waits for the interpreter holds up no other process. What cannot be decided in SQL (headers of key-value
entries) is computed from what was read and written only if that is still there. A batch is one statement of many rows.

Above or below each are its parameters in order and, behind the dot, what it answers or does.
"""

from __future__ import annotations

from functools import lru_cache

from memover.stores.sqlite.schema import DROPPED_NAMES, FOREVER


@lru_cache(maxsize=512)
def among(statement: str, values: int) -> str:
    """A statement whose last parameters are so many values in a list."""
    return statement.replace("{}", ",".join("?" * values))


# -- reading ----------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def read(names: int) -> str:
    """name..., key, now · one row: token or NULL for each name, id, raw, size, parts, expires of the entry, or NULLs."""
    return (
        "SELECT "
        + "(SELECT token FROM tokens WHERE name = ?), " * names
        + "e.id, e.raw, e.size, e.parts, e.expires FROM (SELECT 1) LEFT JOIN entries e ON e.key = ? AND e.expires > ?"
    )


@lru_cache(maxsize=256)
def look(names: int) -> str:
    """name..., now, key · as `read` without `expires`, then holder, under of a lease that has not ended, or NULLs."""
    return (
        "SELECT "
        + "(SELECT token FROM tokens WHERE name = ?), " * names
        + "e.id, e.raw, e.size, e.parts, l.holder, l.under FROM (SELECT ? AS now, ? AS key) a "
        "LEFT JOIN entries e ON e.key = a.key AND e.expires > a.now LEFT JOIN leases l ON l.key = a.key AND l.ends > a.now"
    )


READ_PIECES = "SELECT bytes FROM pieces WHERE id >= ?1 * 65536 AND id < (?1 + 1) * 65536 ORDER BY id"
"""parts · the bytes of the pieces, in order."""

BATCH = 128
"""Entries and tokens of a batch are read this many at a time."""
READ_ENTRIES = f"SELECT key, id, raw, size, parts FROM entries WHERE expires > ? AND key IN ({','.join('?' * BATCH)})"
"""now, key... (filled up with NULLs) · the entries there are, in any order."""
READ_TOKENS = f"SELECT name, token FROM tokens WHERE name IN ({','.join('?' * BATCH)})"
"""name... (filled up with NULLs) · the tokens there are, in any order."""

READ_ROW = "SELECT raw, size, parts, expires > ?2 FROM entries WHERE key = ?1"
"""key, now · the entry as it is, expired or not."""

# -- tokens -----------------------------------------------------------------------------------------------------------------

_MOVED = """ON CONFLICT (name) DO UPDATE SET
  number = max(excluded.number, tokens.number + 1), nonce = excluded.nonce,
  token = CAST(max(excluded.number, tokens.number + 1) || '-' || excluded.nonce AS BLOB), expires = {expires}
"""


@lru_cache(maxsize=256)
def ensure(names: int) -> str:
    """now in microseconds, nonce, then name, floor, expires of each · tokens that are missing or behind their floor are put
    back."""
    return f"""WITH asked (name, floor, expires) AS (VALUES {",".join(["(?,?,?)"] * names)}),
made AS (SELECT name, expires, max(?, floor + 1) AS number, ? AS nonce FROM asked
  WHERE NOT EXISTS (SELECT 1 FROM tokens t WHERE t.name = asked.name AND t.number >= asked.floor))
INSERT INTO tokens (name, number, nonce, token, expires)
SELECT name, number, nonce, CAST(number || '-' || nonce AS BLOB), expires FROM made WHERE true
{_MOVED.format(expires="max(tokens.expires, excluded.expires)")}"""


@lru_cache(maxsize=256)
def bump(names: int) -> str:
    """name, floor, expires, whether it moves even if it does not exist, of each, then the first name, its floor + 1 or now
    in microseconds if that is more, nonce · the new tokens with their names, in any order.

    One that carries the nonce stays: the step is repeated. None is numbered below the first."""
    return f"""WITH asked (name, floor, expires, must) AS (VALUES {",".join(["(?,?,?,?)"] * names)}),
first (name, number, nonce) AS (VALUES (?, ?, ?)),
base (number, nonce) AS (SELECT CASE WHEN t.nonce = f.nonce THEN t.number
  ELSE max(f.number, coalesce(t.number + 1, 0)) END, f.nonce FROM first f LEFT JOIN tokens t ON t.name = f.name)
INSERT INTO tokens (name, number, nonce, token, expires)
SELECT name, max(number, floor + 1), nonce, CAST(max(number, floor + 1) || '-' || nonce AS BLOB), expires
FROM asked JOIN base WHERE must OR EXISTS (SELECT 1 FROM tokens t WHERE t.name = asked.name)
ON CONFLICT (name) DO UPDATE SET
  number = CASE WHEN nonce = excluded.nonce THEN number ELSE max(excluded.number, number + 1) END,
  token = CASE WHEN nonce = excluded.nonce THEN token
    ELSE CAST(max(excluded.number, number + 1) || '-' || excluded.nonce AS BLOB) END,
  nonce = excluded.nonce,
  expires = CASE WHEN nonce = excluded.nonce THEN max(expires, excluded.expires) ELSE excluded.expires END
RETURNING name, token"""


PROLONG = "UPDATE tokens SET expires = ?1 WHERE expires < ?1 AND name IN ({})"
"""expires, name... · these tokens are needed until then, at least."""
SHORT_LIVED = "SELECT 1 FROM tokens WHERE expires < ?1 AND name IN ({}) LIMIT 1"
"""expires, name... · one row if one of these tokens would go before then."""


# -- leases and entries of calls ----------------------------------------------------------------------------------------------


def _conditions(required: list[str], names: list[str], floors: list[str]) -> tuple[str, str]:
    """What a lease is taken under, and that the tokens with floors are there and not behind."""
    under = " || ',' || ".join(f"(SELECT token FROM tokens WHERE name = {each})" for each in required)
    present = (
        f" AND EXISTS (SELECT 1 FROM tokens WHERE name = {each} AND number >= {least})"
        for each, least in zip(names, floors)
    )
    return under, "".join(present)


@lru_cache(maxsize=256)
def acquire(names: int, required: int, floors: int) -> str:
    """key, holder, ends, now, force, then the names, then the floors of the first ones · the lease is taken, under the
    required tokens, unless another has it under the same. One row if it was: the tokens, then raw and size of the entry, or
    NULLs. None if one of the tokens that have floors is missing or behind."""
    name = [f"?{6 + at}" for at in range(names)]
    floor = [f"?{6 + names + at}" for at in range(floors)]
    under, present = _conditions(name[:required], name, floor)
    return f"""INSERT INTO leases (key, holder, under, ends)
SELECT ?1, ?2, CAST({under} AS BLOB), ?3 WHERE true{present}
ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, under = excluded.under, ends = excluded.ends
WHERE ?5 OR ends <= ?4 OR under IS NULL OR under <> excluded.under OR holder = excluded.holder
RETURNING {"".join(f"(SELECT token FROM tokens WHERE name = {each}), " for each in name)}
(SELECT raw FROM entries WHERE key = ?1 AND expires > ?4), (SELECT size FROM entries WHERE key = ?1 AND expires > ?4)"""


TAKE = """INSERT INTO leases (key, holder, under, ends)
SELECT ?1, ?2, ?3, ?4 WHERE (SELECT token FROM tokens WHERE name = ?5) = ?3
AND NOT EXISTS (SELECT 1 FROM entries WHERE key = ?1 AND expires > ?6)
ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, under = excluded.under, ends = excluded.ends
WHERE ends <= ?6 OR under IS NULL OR under <> excluded.under"""
"""key, holder, token as read, ends, name, now · the lease is taken as `acquire` takes one, if that is the token and there is no
entry."""


ROWS = 64
"""How many rows a statement of a batch has at most."""


def padded(rows: int) -> int:
    """How many rows a statement for so many has: few different texts are prepared; the other rows are filled with NULLs."""
    return max(8, 1 << (rows - 1).bit_length())


@lru_cache(maxsize=256)
def acquire_many(rows: int, required: int, floors: int) -> str:
    """now, then key, holder, ends, the names of the required tokens and those that have floors, the floors, of each · the
    leases are taken as `acquire` takes one; the keys of those that were."""
    name = [f"name{at}" for at in range(max(required, floors))]
    floor = [f"floor{at}" for at in range(floors)]
    under, present = _conditions(name[:required], name, floor)
    row = f"({','.join('?' * (3 + len(name) + floors))})"
    return f"""WITH moment (now) AS (VALUES (?)),
asked ({", ".join(["key", "holder", "ends", *name, *floor])}) AS (VALUES {",".join([row] * rows)})
INSERT INTO leases (key, holder, under, ends)
SELECT key, holder, CAST({under} AS BLOB), ends FROM asked WHERE key IS NOT NULL{present}
ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, under = excluded.under, ends = excluded.ends
WHERE ends <= ?1 OR under IS NULL OR under <> excluded.under OR holder = excluded.holder
RETURNING key"""


_HELD = "key = ?1 AND holder = ?2 AND under IS NOT NULL AND ends > ?3"
_STORED = """ON CONFLICT (key) DO UPDATE SET raw = excluded.raw, size = excluded.size, parts = excluded.parts,
  expires = excluded.expires, used = excluded.used, lease = NULL"""

STORE = f"""INSERT OR IGNORE INTO entries (key, used, raw, size, parts, expires)
VALUES (CASE WHEN EXISTS (SELECT 1 FROM leases WHERE {_HELD})
AND (?6 IS NULL OR EXISTS (SELECT 1 FROM doomed WHERE parts = ?6 AND after > ?3)) THEN ?1 END, ?3, ?4, ?5, ?6, ?7)
{_STORED}"""
"""key, holder, now, raw, size, parts, expires · stored, and the lease given back, if it is held.

If it is not, the key is NULL and the row ignored. `INSERT ... SELECT` would write the row into a temporary table first, as it
does wherever the table has triggers."""


@lru_cache(maxsize=16)
def store_many(rows: int) -> str:
    """now, then key, holder, raw, size, parts, expires of each · each stored, and its lease given back, if it is held; the
    keys of those that were."""
    return f"""WITH moment (now) AS (VALUES (?)),
given (key, holder, raw, size, parts, expires) AS (VALUES {",".join(["(?,?,?,?,?,?)"] * rows)})
INSERT INTO entries (key, used, raw, size, parts, expires)
SELECT key, ?1, raw, size, parts, expires FROM given g WHERE EXISTS
  (SELECT 1 FROM leases l WHERE l.key = g.key AND l.holder = g.holder AND l.under IS NOT NULL AND l.ends > ?1)
{_STORED}
RETURNING key"""


RELEASE = f"DELETE FROM leases WHERE {_HELD}"
"""key, holder, now · the lease is given back, if it is held."""

FAIL = f"UPDATE leases SET under = NULL, ends = ?4 WHERE {_HELD}"
"""key, holder, now, ends · the lease is given back, if it is held, and a mark stays that the load failed."""


@lru_cache(maxsize=16)
def renew(rows: int) -> str:
    """now, then key, holder, ends of each · each lease lasts longer, if it is held; the keys and holders of those that were."""
    return f"""WITH moment (now) AS (VALUES (?)), asked (key, holder, ends) AS (VALUES {",".join(["(?,?,?)"] * rows)})
INSERT INTO leases (key, holder, under, ends)
SELECT l.key, l.holder, l.under, a.ends FROM asked a JOIN leases l ON l.key = a.key AND l.holder = a.holder
WHERE l.under IS NOT NULL AND l.ends > ?1
ON CONFLICT (key) DO UPDATE SET ends = excluded.ends
RETURNING key, holder"""


READ_HEAD = "SELECT raw FROM entries WHERE key = ? AND expires > ?"
"""key, now · the first bytes of the entry."""

DROP = f"""INSERT INTO drops (key, nonce, number, until, {", ".join(f"name{at}" for at in range(DROPPED_NAMES))})
VALUES (?, ?, ?, ?, {", ".join("?" * DROPPED_NAMES)})"""
"""key, nonce, now in microseconds, expires of short-lived tokens, names (filled up with NULLs) · the entry and its lease are
gone, and the tokens that exist have moved. In one step: who reads what was made of the entry finds a token that has moved as
soon as the entry can be loaded anew."""

END_LEASES = "DELETE FROM leases WHERE key IN ({})"
"""key... · nobody has a lease on these."""
REMOVE = "DELETE FROM entries WHERE key IN ({})"
"""key... · these entries are gone."""


# -- long entries -------------------------------------------------------------------------------------------------------------

DOOM = "INSERT INTO doomed (parts, after) VALUES (?, ?) ON CONFLICT (parts) DO UPDATE SET after = excluded.after"
"""parts, after · to be removed after that moment, unless an entry has them by then."""
ADD_PIECE = "INSERT INTO pieces (id, bytes) VALUES (?, ?)"
"""id, bytes."""

# -- key-value ----------------------------------------------------------------------------------------------------------------

_SAME = "raw IS ?2 AND (SELECT token FROM tokens WHERE name = ?3) = ?4"


@lru_cache(maxsize=64)
def put(rows: int) -> str:
    """used, generation's name, generation, then key, raw, size, parts, expires of each · stored, if that is the generation.
    As many rows are changed as are asked for, or none."""
    return f"""WITH given (key, raw, size, parts, expires) AS (VALUES {",".join(["(?,?,?,?,?)"] * rows)})
INSERT INTO entries (key, raw, size, parts, expires, used)
SELECT key, raw, size, parts, expires, ? FROM given WHERE (SELECT token FROM tokens WHERE name = ?) = ?
{_STORED}"""


ADD = f"""INSERT INTO entries (key, raw, size, parts, expires, used)
SELECT ?1, ?5, ?6, ?7, ?8, ?9 WHERE (SELECT token FROM tokens WHERE name = ?3) = ?4
{_STORED}
WHERE entries.raw IS ?2"""
"""key, raw as read, generation's name, generation, raw, size, parts, expires, used · stored, if nothing has changed."""

CHANGE = f"""UPDATE entries SET raw = ?5, size = ?6, parts = ?7, expires = coalesce(?8, expires), used = ?9
WHERE key = ?1 AND {_SAME}"""
"""key, raw as read, generation's name, generation, raw, size, parts, expires or NULL, used · replaced, if nothing has
changed; the lease stays."""

SWAP = "UPDATE entries SET raw = ?3, size = ?4, parts = ?5, used = ?6 WHERE key = ?1 AND raw IS ?2 AND expires > ?6"
"""key, raw as read, raw, size, parts, now · replaced, if nothing has changed."""

DISCARD = f"DELETE FROM entries WHERE key = ?1 AND {_SAME}"
"""key, raw as read, generation's name, generation · removed, if nothing has changed."""

MOVE = f"""UPDATE OR REPLACE entries SET key = ?5, raw = ?6, size = ?7, parts = ?8, used = ?9,
lease = NULL WHERE key = ?1 AND {_SAME}"""
"""key, raw as read, generation's name, generation, new key, raw, size, parts, used · the entry has the other key, whose
entry and lease are gone, if nothing has changed."""

# -- behind writes ------------------------------------------------------------------------------------------------------------

_LIMITED = f"expires < {FOREVER}"  # said in so many words, or the partial index is not used
PROBE = f"""SELECT (SELECT min(expires) FROM entries WHERE {_LIMITED}), (SELECT min(expires) FROM tokens WHERE {_LIMITED}),
(SELECT min(after) FROM doomed), (SELECT page_count FROM pragma_page_count),
(SELECT freelist_count FROM pragma_freelist_count), (SELECT page_size FROM pragma_page_size)"""
"""When the first entry, the first token and the first of the doomed go (NULL: there is none), pages, those of them that are
free, bytes of a page. No parameters: one that is compared with `expires` has the statement prepared anew for each value,
because it decides whether the partial index serves."""
DOOMED = "SELECT parts FROM doomed WHERE after < ?1 LIMIT ?2"
"""now, limit · some of those to be removed."""
SWEEP = f"""DELETE FROM entries WHERE id IN
(SELECT id FROM entries WHERE expires < ?1 AND {_LIMITED} ORDER BY expires LIMIT ?2)"""
"""now, limit · entries that nobody reads any more are removed."""
LEASES = "SELECT key, ends FROM leases WHERE key > ? ORDER BY key LIMIT ?"
"""key, limit · those after that one."""
SWEEP_LEASES = "DELETE FROM leases WHERE key > ?1 AND key <= ?2 AND ends < ?3"
"""key, key, now · those between the two that have ended."""
SWEEP_TOKENS = f"""DELETE FROM tokens WHERE name IN
(SELECT name FROM tokens WHERE expires < ?1 AND {_LIMITED} ORDER BY expires LIMIT ?2)"""
"""now, limit."""
SWEEP_PIECES = """DELETE FROM pieces WHERE id IN
(SELECT id FROM pieces WHERE id >= ?1 * 65536 AND id < (?1 + 1) * 65536 LIMIT ?2)"""
"""parts, limit."""
FORGET = "DELETE FROM doomed WHERE parts = ?1 AND after < ?2 AND NOT EXISTS (SELECT 1 FROM pieces WHERE id >= ?1 * 65536 AND id < (?1 + 1) * 65536)"
"""parts, now."""
SAMPLE = "SELECT id, size, used FROM entries WHERE id > ?1 ORDER BY id LIMIT ?2"
"""id, limit · the entries after that one."""
SAMPLE_TOKENS = "SELECT name, number FROM tokens WHERE name > ?1 ORDER BY name LIMIT ?2"
"""name, limit · the tokens after that one."""

EVICT = "DELETE FROM entries WHERE used <= ?1 AND id IN ({})"
"""used before, id... · these entries make room, unless used since."""
EVICT_TOKENS = "DELETE FROM tokens WHERE number <= ?1 AND name IN ({})"
"""number, name... · these tokens make room, unless moved since."""
USED = "UPDATE entries SET used = ?1 WHERE used < ?1 AND id IN ({})"
"""used, id... · these were read then."""
UNNOTED = "SELECT id FROM entries WHERE used < ?1 AND id IN ({})"
"""used before, id... · which of these were last noted before then."""
