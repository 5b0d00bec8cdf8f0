"""The tables of memover in SQLite: what is in the file, and what its header says.

Times are milliseconds since the epoch of the machine's clock, frozen by no test, as Redis's `PX` is; `FOREVER` is no
limit. Names and keys are text, as `keys.names` makes them.

entries   key     the entry's key
          raw     the entry's bytes, all of them up to INLINE_BYTES, else the first of them with the header
          size    how many bytes the entry has
          parts   where the other bytes are, in `pieces`; NULL: nowhere
          expires when the entry goes
          used    when it was last written or, within some seconds, read
          lease   always NULL: a statement that sets it ends the lease on the entry, as one that inserts a row does
leases    key, holder, under (the tokens it was taken under; NULL: a mark that this load failed), ends
tokens    a generation or a tag: `number` in order, `nonce`, `token` = `number-nonce`, and until when it is needed
pieces    the rest of long entries, PIECE_BYTES each; `id` is `parts` * 65536 + 0, 1, 2...
drops     no table: a row inserted here drops an entry with its lease and moves tokens that exist, in one statement
doomed    `parts` that no entry has any more, or none has yet (not before `after`), to be removed step by step

A number is `max(now in microseconds, floor + 1, the current one + 1)`, so numbers do not begin anew with a new file.

`secure_delete` is off: what was removed may still be found in the file's free pages.
"""

from __future__ import annotations

__all__ = [
    "APPLICATION_ID", "DROPPED_NAMES", "FOREVER", "INLINE_BYTES", "PIECE_BYTES", "SCHEMA", "TABLES", "USER_VERSION",
]  # fmt: skip

APPLICATION_ID = 0x6D767231
"""`mvr1`, at offset 68 of the file."""
USER_VERSION = 2
"""The version of the format, at offset 60 of the file; a file with a greater one is not touched. 2 has the tables of 1; all
who write it mark what they change (`marks`)."""

FOREVER = 1 << 62
INLINE_BYTES = 64 * 1024
"""Longer entries are kept in pieces: they are written and removed step by step, and taking a lease does not rewrite them."""
PIECE_BYTES = 256 * 1024

TABLES = frozenset({"entries", "leases", "tokens", "pieces", "doomed", "drops"})
DROPPED_NAMES = 4

SCHEMA = (
    """CREATE TABLE entries (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  expires INTEGER NOT NULL,
  used INTEGER NOT NULL,
  size INTEGER NOT NULL,
  parts INTEGER,
  lease INTEGER,
  raw BLOB NOT NULL
)""",
    f"CREATE INDEX entries_expires ON entries (expires) WHERE expires < {FOREVER}",
    """CREATE TABLE leases (
  key TEXT PRIMARY KEY,
  holder TEXT NOT NULL,
  under BLOB,
  ends INTEGER NOT NULL
) WITHOUT ROWID""",
    """CREATE TABLE tokens (
  name TEXT PRIMARY KEY,
  number INTEGER NOT NULL,
  nonce TEXT NOT NULL,
  token BLOB NOT NULL,
  expires INTEGER NOT NULL
) WITHOUT ROWID""",
    f"CREATE INDEX tokens_expires ON tokens (expires) WHERE expires < {FOREVER}",
    "CREATE TABLE pieces (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL)",
    "CREATE TABLE doomed (parts INTEGER PRIMARY KEY, after INTEGER NOT NULL)",
    """CREATE TRIGGER lease_ended AFTER INSERT ON entries BEGIN
  DELETE FROM leases WHERE key = NEW.key;
END""",
    """CREATE TRIGGER lease_ended_too AFTER UPDATE OF lease ON entries BEGIN
  DELETE FROM leases WHERE key IN (OLD.key, NEW.key);
END""",
    """CREATE TRIGGER entries_inserted AFTER INSERT ON entries WHEN NEW.parts IS NOT NULL BEGIN
  DELETE FROM doomed WHERE parts = NEW.parts;
END""",
    """CREATE TRIGGER entries_updated AFTER UPDATE OF parts ON entries WHEN OLD.parts IS NOT NEW.parts BEGIN
  INSERT OR IGNORE INTO doomed (parts, after) SELECT OLD.parts, 0 WHERE OLD.parts IS NOT NULL;
  DELETE FROM doomed WHERE parts = NEW.parts;
END""",
    """CREATE TRIGGER entries_deleted AFTER DELETE ON entries WHEN OLD.parts IS NOT NULL BEGIN
  INSERT OR IGNORE INTO doomed (parts, after) VALUES (OLD.parts, 0);
END""",
    f"""CREATE VIEW drops AS SELECT NULL AS key, NULL AS nonce, NULL AS number, NULL AS until,
  {", ".join(f"NULL AS name{at}" for at in range(DROPPED_NAMES))}""",
    f"""CREATE TRIGGER dropped INSTEAD OF INSERT ON drops BEGIN
  DELETE FROM entries WHERE key = NEW.key;
  DELETE FROM leases WHERE key = NEW.key;
  UPDATE tokens SET number = max(NEW.number, number + 1), nonce = NEW.nonce,
    token = CAST(max(NEW.number, number + 1) || '-' || NEW.nonce AS BLOB),
    expires = CASE WHEN substr(name, instr(name, ':') + 1, 4) = 'tag:' OR instr(name, '@call') THEN NEW.until ELSE expires END
  WHERE name IN ({", ".join(f"NEW.name{at}" for at in range(DROPPED_NAMES))}) AND nonce <> NEW.nonce;
END""",
)
