"""The names in the store that a function's calls have: those of its namespace, of each call, and of older versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.engine.judge import VERSION
from memover.keys.names import entry_key, generation_key, soft_key, stripe_key, tag_clock_key
from memover.keys.shards import grain_of, may_have_shards, names_by_grain
from memover.model import Key
from memover.runtime.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from memover.engine.tokens import Witness
    from memover.keys.binding import Binding
    from memover.keys.ownership import Claimed
    from memover.keys.tags import Tags
    from memover.policy import Policy
    from memover.runtime.state import CacheState

__all__ = ["CallNames"]


class CallNames:
    """What one function's calls are called in the store. `learned` are the tokens that each entry was found to depend on."""

    upgrades: Mapping[int, Callable[[Any], Any]]
    described: Callable[..., Any]

    def __init__(self, policy: Policy, binding: Binding, tags: Tags, state: CacheState, claimed: Claimed) -> None:
        self.policy = policy
        self.binding = binding
        self.tags = tags
        self.state = state
        self.claimed = claimed
        self.witness: Witness = state.witness
        prefix, namespace = state.prefix, policy.namespace
        self.generation_name: bytes = generation_key(prefix, namespace).encode()
        self.soft_name = soft_key(prefix, namespace).encode() if policy.stale_window > 0 else None
        self.clock_name = tag_clock_key(prefix).encode()
        self.coarse_name = state.coarse_name
        self.names: tuple[bytes, ...] = (self.generation_name,)
        if self.soft_name is not None:
            self.names = (*self.names, self.soft_name)
        count = state.store.generation_shards if may_have_shards(self.generation_name) else 1
        self.names_by_grain = names_by_grain(self.names, count) if count > 1 else None
        """Where the generation stands in shards, what takes the place of `names` for the calls of each grain."""
        self.version_name = VERSION + namespace.encode()
        state.witness.versions[self.version_name] = claimed.token(policy.version)
        self.learned: Recent[str, tuple[bytes, ...]] = Recent(state.max_entries)

    def key(self, text: str, version: int | None = None) -> Key:
        """The names in the store of a call whose arguments come to `text`."""
        start = self._start
        if start is None or version is not None:
            policy = self.policy
            own = version is None or version == policy.version
            start = entry_key(self.state.prefix, self.version_text if own else str(version), policy.namespace, "")
            if own:
                self._start = start
        return Key(start + text, self.names if self.names_by_grain is None else self.names_by_grain[grain_of(text)])

    _start: str | None = None
    """What the keys of this version begin with, once the first of them has been asked for."""

    @property
    def version_text(self) -> str:
        """The version part of entry keys."""
        return self.claimed.version(self.policy.version)

    @property
    def version_mark(self) -> tuple[bytes, bytes]:
        """What stands for the version in entries whose load used a result of this function."""
        return self.version_name, self.version_text.encode()

    def lookup(self, version: int | None = None) -> Callable[..., Key]:
        """The way from a call's arguments to its key: bound, digested, tagged, and remembered where that is safe."""
        tags = self.tags
        if not tags.early and version is None:
            return self.binding.compile(self.key)
        plain = self.binding.compile(lambda text: self.key(text, version))
        prefix, arguments = self.state.prefix, self.binding.arguments

        def tagged(*args: Any, **kwargs: Any) -> Key:
            key = plain(*args, **kwargs)
            if len(key.names) > len(self.names) or not tags.early:
                return key
            names = tags.early_names(prefix, self.described(key, args, kwargs), arguments(args, kwargs))
            full = Key(key.text, (*key.names, *names))
            if tags.stable:  # the record is in the binding's memo: what is written twice is the same
                key.required, key.names = full.required, full.names
            return full

        return tagged

    def is_at(self, home: object) -> bool:
        """Whether its entries are where `home` says."""
        return self.state.is_at(home)

    def call_name(self, key: Key) -> bytes:
        """The token that stands for this call in entries whose load used its result."""
        return stripe_key(self.state.prefix, self.policy.namespace, key.text.split(":", 3)[3]).encode()

    def older_keys(self, key: Key) -> Sequence[tuple[int, Key]]:
        """The versions that this call's entry can be upgraded from, the newest first, each with the call's key there.

        Empty for a key of another version."""
        if not self.upgrades:
            return ()
        prefix, policy = self.state.prefix, self.policy
        own = entry_key(prefix, self.version_text, policy.namespace, "")
        if not key.text.startswith(own):
            return ()
        text, names = key.text[len(own) :], key.names[: key.required]
        return [
            (version, Key(entry_key(prefix, version, policy.namespace, text), names))
            for version in sorted(self.upgrades, reverse=True)
        ]

    def known_key(self, key: Key) -> Key:
        """The key with what was learned of its entry."""
        names = self.learned.get(key.text)
        return key if names is None else key.asking(names)

    def learn(self, key: Key, names: Sequence[bytes]) -> Key:
        """Reads these tokens with this key from now on."""
        wanted = tuple(name for name in names if not name.startswith(VERSION))
        asking = key.asking(wanted)
        if len(asking.names) > asking.required or key.text in self.learned:
            self.learned.put(key.text, wanted)
        return asking
