"""Every event there is: one table, from which the documentation and the levels of the logging observer are made.

Events are only ever added; an observer ignores names that it does not know.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["EVENTS", "EventKind", "documented"]


class EventKind(NamedTuple):
    """One kind of event: when it is emitted, what is set besides its name, and how loud it is.

    `level` is "debug" (many a second), "info" or "warning". `failing` is the level when the event carries an error. `counted` is
    the name of what it adds one to, "" where there is none: a counter of `counters`, or a metric that is none.
    """

    name: str
    when: str
    fields: str
    level: str
    failing: str
    counted: str = ""


EVENTS = (
    EventKind("lookup", "a call was answered", "`namespace`, `key`, `source`, `elapsed`, `load_time` if it loaded, `size`, `error` if it raised", "debug", "debug"),
    EventKind("load", "the function ran", "`namespace`, `key`, `load_time`, `error`", "debug", "debug"),
    EventKind("store", "a result, or a key-value entry (`namespace` is `~kv`), was stored", "`namespace`, `key`, `size`", "debug", "warning", "stores"),
    EventKind("store-refused", "the lease was lost: the result was overtaken and is not stored", "`namespace`, `key`, `size`", "debug", "debug", "refused_stores"),
    EventKind("upgrade", "an older version's entry was made into this one's", "`namespace`, `key`, `detail`", "debug", "warning", "upgrades"),
    EventKind("invalidate", "an invalidation: of one call (`namespace`, `key`), of a namespace (`namespace`), of tags (neither), of key-value entries (`namespace` is `~kv`)", "`error` if the store did not acknowledge it; `detail`: \"soft\", or the tags", "info", "error", "invalidations"),
    EventKind("damaged", "bytes under the key were not an entry of it; it counts as a miss", "`namespace`, `key`, `error`, `detail` (a short word)", "warning", "warning", "damaged"),
    EventKind("other-shape", "an entry of this version has another shape than the function returns; it counts as a miss", "`namespace`, `key`, `error`", "warning", "warning", "other_shape"),
    EventKind("upgrade-error", "an upgrade raised, or returned what cannot be stored; the function runs", "`namespace`, `key`, `error`, `detail`", "warning", "warning", "upgrade_errors"),
    EventKind("store-error", "the store did not answer, or refused", "`namespace`, `key`, `error`", "warning", "warning", "store_errors"),
    EventKind("unencodable", "a result was let through unstored (`on_unencodable=\"return\"`)", "`namespace`, `key`, `error`", "warning", "warning", "unencodable"),
    EventKind("too-large", "a result is longer than `max_entry_bytes`, `expanded_limit` or half of `max_bytes`, and was not stored", "`namespace`, `key`, `size`", "warning", "warning", "too_large"),
    EventKind("too-many-tags", "a result names more tags than an entry can carry, and was not stored", "`namespace`, `key`, `error`", "warning", "warning", "too_many_tags"),
    EventKind("near-fall", "the near cache is not trusted any more: calls go to the store", "`detail`: why", "info", "info"),
    EventKind("near-stand", "the near cache is trusted again", "", "info", "info"),
    EventKind("audit", "a hit was compared with the source", "`namespace`, `key`, `detail`: \"agree\" or \"differ\", the shapes and the ages; `load_time`, `error` if the function raised", "debug", "debug", "audits"),
)  # fmt: skip
"""A "differ" of an audit is logged as a warning, whatever the table says of the rest."""


def documented() -> str:
    """The table as Markdown, for docs/observing.md."""
    lines = ["| `event.name` | when | set |", "|---|---|---|"]
    lines += [f"| `{each.name}` | {each.when} | {each.fields or '–'} |" for each in EVENTS]
    return "\n".join(lines)
