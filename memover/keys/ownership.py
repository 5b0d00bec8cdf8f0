"""Which function a namespace belongs to, in this process.

A namespace belongs to one function per store and prefix. A function claims it when it meets the store (`claim`):

    the one that comes                                        verdict
    --------------------------------------------------------  ------------------------------------------------
    same name, same code, same captures                       the same function
    same name, other key part                                 the same function, under other keys
    same name, its module is being executed again             it replaces the earlier one
    other name, its whole file is being executed again        the earlier one was renamed: it is replaced
    the earlier one is gone, and it is not another closure    it replaces the earlier one
      of the same code on a shared store
    anything else                                             ConfigurationError

A module is being executed again when module-level code in its namespace is running, and it is not the code object that ran
when the earlier function was decorated: a reload, another cell of a notebook, a line of a REPL, another `exec`. A function
made inside another is replaced when its module holds its code now under the name of the function around it, and the earlier
one's no longer. One file imported under two names is one module.

The incarnation: when a function replaces one with other code under the same version, entries of the earlier one are in the
store. A store of this process alone gives the new one keys of its own (`Claimed.version` has a suffix), so that it
starts empty, and an earlier function that is still called shares nothing with it. A shared store keeps its entries, and a
`MemoverWarning` says so.

What is remembered of namespaces, and for how long, is in `places`; what the errors say, in `clashes`.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .captures import GLOBALS
from .clashes import captures_clash, clash, functions_clash, warn
from .code import codes_within, fingerprint, found_under, functions_in, same_codes
from .identity import Identity, label
from .places import PLACES, KeySlot, NamespacePlace, shortened

if TYPE_CHECKING:
    from memover.errors import ConfigurationError

__all__ = ["UNCLAIMED", "Claim", "Claimed", "claim", "owners", "survey"]


class Claim(NamedTuple):
    """Who asked for a namespace where: `identity` is equal for one function decorated again."""

    store: str
    prefix: str
    namespace: str
    function: Callable[..., Any]
    owner: Any
    identity: str


class Claimed:
    """What a function was given with its namespace.

    `number` is 0, or the incarnation that keeps its entries in this process's memory apart from an earlier function's;
    `replaced` says whether it took the place of a function that is still there.
    """

    __slots__ = ("_identity", "_suffix", "number", "replaced")

    def __init__(self, identity: Identity | None, number: int = 0, replaced: bool = False) -> None:
        self._identity = identity
        self.number = number
        self.replaced = replaced
        # None: the code is followed at the first call.
        self._suffix = None if identity is not None and identity.follow_code else f"~{number:08x}" if number else ""

    def token(self, declared: int) -> Any:
        """The version part as bytes, or what is equal to it: the code is followed when it is first compared or called."""
        return VersionLater(self, declared) if self._suffix is None else self.version(declared).encode()

    def version(self, declared: int) -> str:
        """The version part of the function's entry keys: "2", or "2~" and 8 hex digits.

        With `follow_code` they say what the function and those it calls do; that is looked up at the first call of this.
        """
        suffix = self._suffix
        if suffix is None:
            identity = self._identity
            assert identity is not None, "it follows the code of a function"
            digits = int(fingerprint(identity.function, *identity.functions), 16)
            suffix = self._suffix = f"~{(digits + self.number) % 2**32:08x}"
        return f"{declared}{suffix}"


class VersionLater:
    """The version part of a function with `follow_code`, for comparing with what an entry says; looked up when compared."""

    __slots__ = ("_claimed", "_declared")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, claimed: Claimed, declared: int) -> None:
        self._claimed = claimed
        self._declared = declared

    def __eq__(self, other: object) -> bool:
        return self._claimed.version(self._declared).encode() == other


UNCLAIMED = Claimed(None)
"""For what has a namespace without asking: the key-value API."""


_claims: list[Claim] | None = None


def survey() -> list[Claim]:
    """The list in which every claim is collected from now on, and none refused: for a process that only looks on."""
    global _claims  # noqa: PLW0603  # a process looks on or does not
    _claims = []
    return _claims


def claim(
    identity: Identity,
    function: Callable[..., Any],
    owner: Any,
    *,
    store: str,
    prefix: str,
    namespace: str,
    version: int,
    kind: Literal["shared", "memory", "later"] = "shared",
    memory: Any = None,
    forget: Callable[[], object] | None = None,
) -> Claimed:
    """Gives the namespace to `owner`, the decorated form of `function`. Raises `ConfigurationError` if it is taken.

    `kind` says what `store` names: a store that other processes read, this process's memory (`memory` is then the store
    itself, and `forget` invalidates all entries of the namespace in it), or a default that is settled later. `owner` must keep
    `identity`; it is held weakly. `replaced()` is called on an owner that is replaced, if it has such a method: it should
    claim again before its next call. Any thread may call.
    """
    if _claims is not None:
        _claims.append(Claim(store, prefix, namespace, function, owner, label(function)))
        return Claimed(identity)
    at = (store if memory is None else PLACES.number_of(memory), prefix, namespace)
    settled = functools.partial(_settle, at, kind, identity, owner, version, forget)
    verdict = settled()
    if not isinstance(verdict, _ClaimVerdict):
        gc.collect()  # the earlier function may be gone but for the cycles it was in
        verdict = settled()
        if not isinstance(verdict, _ClaimVerdict):
            raise verdict(prefix, namespace)
    for each in verdict.replaced:
        tell = getattr(each, "replaced", None)
        if tell is not None:
            tell()
    if verdict.warn and not identity.warned and not identity.follow_code:
        identity.warned = True
        warn(identity, namespace, version)
    return Claimed(identity, verdict.number, bool(verdict.replaced))


def owners() -> list[Any]:
    """The decorated forms that own a namespace now: of those with equal keys, the last one."""
    with PLACES.latch:
        latest = [owner for slot in PLACES.slots() if (owner := slot.latest()) is not None]
    return list({id(owner): owner for owner in latest}.values())


class _ClaimVerdict(NamedTuple):
    """The incarnation, the owners that were replaced, and whether a shared store keeps another function's entries."""

    number: int
    replaced: list[Any]
    warn: bool


_Answer = _ClaimVerdict | Callable[[str, str], "ConfigurationError"]


def _settle(
    at: Any, kind: str, identity: Identity, owner: Any, version: int, forget: Callable[[], object] | None
) -> _Answer:
    """A claim's verdict, or what makes the error if it is a clash."""
    replaced: list[Any] = []
    warned = False
    with PLACES.latch:
        while True:
            entries = PLACES.latch.entries
            PLACES.sweep()
            verdict = _decide(at, kind, identity, owner, version, forget)
            if not isinstance(verdict, _ClaimVerdict):
                return verdict
            replaced += verdict.replaced
            warned = warned or verdict.warn
            # A signal handler or a finalizer may have claimed in the middle of it; to decide again changes nothing else.
            if PLACES.latch.entries == entries:
                return verdict._replace(replaced=replaced, warn=warned)


def _decide(
    at: Any, kind: str, identity: Identity, owner: Any, version: int, forget: Callable[[], object] | None
) -> _Answer:
    """The verdict of the module's table. The latch is held."""
    place = PLACES.place(at, kind, identity)
    place.forget = forget
    key = (version, shortened(identity.plain))
    replaced: list[Any] = []
    outdated = False
    if not place.same_name(identity) or not same_codes(place.codes, identity.codes):
        others = [each for each in place.owners() if each is not owner]
        if identity.serial < place.serial and _was_replaced(place, at, identity):
            return _ClaimVerdict(_number_of_guest(place, at, identity, version), [], False)
        again = _again(place, identity)
        if others and not again:
            return functools.partial(clash, place.title, place.where, identity, functions_clash(place, identity))
        known = place.versions.get(version)
        if known is not None:
            # Of a function that is gone, what it captured cannot be compared with what one of another name did.
            unlike = not again or any(slot.captures for slot in place.slots.values())
            outdated = not again or not same_codes(known[0], identity.codes)
            if unlike:
                place.renewed(version, identity.codes)
        replaced, place.slots = others, {}
        place.take(identity)
    slot = place.slots.get(key)
    if slot is not None:
        capture = slot.differing(identity)
        if capture is not None:
            others = [each for each, _ in slot.holders.values() if each() is not None and each() is not owner]
            if identity.serial < place.serial and at in identity.marks:
                return _ClaimVerdict(_number_of_guest(place, at, identity, version), [], False)
            elsewhere = capture.label.endswith(GLOBALS)
            refused = (others or kind == "shared") and not _again(place, identity)
            if refused or (others and elsewhere and kind == "shared"):
                return functools.partial(clash, place.title, place.where, identity, captures_clash(capture))
            outdated = elsewhere
            replaced = [alive for each in others if (alive := each()) is not None]
            del place.slots[key]
            place.renewed(version, identity.codes)
    if identity.serial >= place.serial:
        place.take(identity)
    slot = place.slots.get(key)
    number = place.number_of(version, identity.codes)
    if slot is None:
        slot = place.slots[key] = KeySlot(identity, number if kind == "memory" else 0)
    PLACES.hold(at, key, slot, identity, owner)
    identity.marks[at] = slot.number
    return _ClaimVerdict(slot.number, replaced, outdated and kind == "shared")


def _was_replaced(place: NamespacePlace, at: Any, identity: Identity) -> bool:
    """Whether a function is an earlier one, which the one that holds the place has replaced, and is called all the same."""
    if at in identity.marks:
        return True
    old, new = identity.execution, place.execution
    return place.same_name(identity) and (old.token, old.space) != (new.token, new.space)


def _number_of_guest(place: NamespacePlace, at: Any, identity: Identity, version: int) -> int:
    """The incarnation of a function that was replaced: in this process's memory it shares nothing with its successor."""
    if place.kind != "memory":
        return 0
    number = identity.marks.get(at)
    current = place.versions.get(version)
    if number is None or (current is not None and current[1] == number):
        number = identity.marks[at] = place.renewed(version, identity.codes)[1]
        if current is not None:
            place.versions[version] = current
    return number


def _again(place: NamespacePlace, identity: Identity) -> bool:
    """Whether the module that made the function which holds a place is being executed again, or was since."""
    old, new = place.execution, identity.execution
    module, _, name = identity.name.partition(":")
    if old.file != new.file or (not old.file and module != place.name.partition(":")[0]):
        return False
    if not place.same_name(identity):
        return new.whole and new.token != old.token
    if new.token == old.token and new.space == old.space and new.token:
        return False
    if new.space != old.space:
        return bool(new.token or new.file)
    function = identity.function
    if function is None:
        return bool(new.token)
    outer, inside, _ = name.partition(".<locals>")
    if new.token and not inside and not identity.local:
        return True
    if new.target:
        # The statement is about to replace the earlier one where the module keeps it: `f = make(...)`, run again.
        codes = [each.__code__ for each in functions_in(function.__globals__.get(new.target))]
        if any(each is place.code for each in codes):
            return True
    # What the module holds under the name now: the code of this function, and no longer that of the earlier one?
    around = found_under(function.__globals__, outer)
    layers = () if around is None or isinstance(around, type) else functions_in(around)
    held = [code for each in layers for code in codes_within(each.__code__)]
    if held:
        now, then = function.__code__, place.code
        return any(each is now for each in held) and not any(each is then for each in held)
    return bool(new.token) and place.code is not function.__code__
