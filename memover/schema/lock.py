"""`memover.lock`: what every decorated function stores, as text made for diffs.

One table per function, sorted by name, one line per fact that can change, and nothing in it that another fact implies:
a field added to a class is one line added here. TOML, format 1:

    [functions.<namespace>]
    function     module:qualname
    version      as in the source
    parameters   the names that may enter the key, in order, `*args` and `**kwargs` with their stars
    ignored      the names that `ignore=` leaves out (if any)
    key          the template, or `callable <fingerprint>` (if any)
    ttl          as declared, `callable <name>` for a function (if not the cache's default); for reviewers, never a finding
    tags         the templates, `callable <name>` for functions (if any); for reviewers, never a finding
    upgrades     versions that an upgrade reads from (if any)
    body         fingerprint of the function's source and of the local functions it calls
    shape        text of the shape
    [[functions.<namespace>.accepted]]   code, version, change and reason of each deliberate exception

    [removed]
    <namespace>  the last version of a function that is gone: its numbers are not to be used again
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from memover.errors import ConfigurationError
from memover.schema.shape import Shape, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]  # checkers look at 3.10, where it would be

__all__ = ["FORMAT", "Accepted", "Block", "Lock", "block_of", "is_below", "namespace_of", "read_lock", "tomllib"]

FORMAT = 1
_HEAD = (
    "# What each function decorated with memover stores. Written by `memover lock`; commit it, and review its diff.\n"
)


@dataclass(frozen=True)
class Accepted:
    """A change that was let through without a bump, in so many words."""

    code: str
    version: int
    change: str
    reason: str


@dataclass(frozen=True)
class Block:
    """The facts of one function."""

    function: str
    version: int
    parameters: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    key: str = ""
    ttl: str = ""
    tags: tuple[str, ...] = ()
    upgrades: tuple[int, ...] = ()
    body: str = ""
    shape: Shape = Shape("?")  # noqa: RUF009 - frozen
    accepted: tuple[Accepted, ...] = ()

    def facts(self) -> dict[str, Any]:
        """As TOML has it, in the order of the fields."""
        facts = {**vars(self), "shape": str(self.shape), "accepted": [vars(each) for each in self.accepted]}
        return {name: value for name, value in facts.items() if value or name == "parameters"}


@dataclass(frozen=True)
class Lock:
    """All blocks by name, and the highest version that each removed function had."""

    functions: Mapping[str, Block] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)

    def blocks_of(self, namespace: str | None) -> list[Block]:
        """The blocks of a namespace: several where caches share it."""
        return [block for name, block in self.functions.items() if namespace_of(name) == namespace]

    def __str__(self) -> str:
        import tomli_w

        whole: dict[str, Any] = {"format": FORMAT}
        whole["functions"] = {name: self.functions[name].facts() for name in sorted(self.functions)}
        if self.removed:
            whole["removed"] = {name: self.removed[name] for name in sorted(self.removed)}
        return _HEAD + tomli_w.dumps(whole, multiline_strings=True)


def namespace_of(name: str) -> str:
    """The namespace of a function by its name in the lock, where the function follows it if there are several."""
    return name.partition(" ")[0]


def is_below(module: str, tops: Iterable[str]) -> bool:
    """Whether a module is one of these, or inside one of these packages."""
    return any(module == each or module.startswith(f"{each}.") for each in tops)


def read_lock(text: str, name: str = "memover.lock") -> Lock:
    """The lock of a text. Raises `ConfigurationError` that says what to do for anything else."""
    try:
        whole = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        hint = "resolve the conflict in it, or run `memover lock`" if "<<<<<<<" in text else "run `memover lock`"
        raise ConfigurationError(f"{name} cannot be read: {error}; {hint}.") from None
    if whole.get("format") != FORMAT:
        raise ConfigurationError(
            f"{name} has format {whole.get('format')!r}, and this memover reads format {FORMAT}: install the memover that "
            f"wrote it, or run `memover lock` to write it anew."
        )
    try:
        functions = {each: block_of(facts) for each, facts in whole.get("functions", {}).items()}
        removed = {each: int(version) for each, version in whole.get("removed", {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{name} was changed by hand: {error!r}; run `memover lock`.") from None
    return Lock(functions, removed)


def block_of(facts: dict[str, Any]) -> Block:
    """The block of what `Block.facts` returned; KeyError, TypeError or ValueError for anything else."""
    return Block(
        function=facts["function"],
        version=int(facts["version"]),
        parameters=tuple(facts.get("parameters", ())),
        ignored=tuple(facts.get("ignored", ())),
        key=facts.get("key", ""),
        ttl=facts.get("ttl", ""),
        tags=tuple(facts.get("tags", ())),
        upgrades=tuple(facts.get("upgrades", ())),
        body=facts.get("body", ""),
        shape=parse(facts.get("shape", "?")),
        accepted=tuple(Accepted(**each) for each in facts.get("accepted", ())),
    )
