"""The place of the default cache, and who follows it. `memover.api` fills it; this module knows no `Cache`.

Functions on the default cache ask for it when they are first called, and again after it has changed; in between they
hold on to it, so that a call costs nothing extra.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from memover.errors import ConfigurationError
from memover.latch import Latch
from memover.living import Living

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "changed", "codec_of", "current", "follow", "followers", "made", "make_with", "named", "resolve_aliases_with",
    "set_default", "swap_in", "swap_out", "swapped",
]  # fmt: skip


class Follower(Protocol):
    """What holds on to the default cache and must let go of it when it changes."""

    def let_go(self) -> None: ...

    def declare_version(self, cache: Any) -> None: ...


_latch = Latch()
_default: Any = None
_swapped: list[Any] = []
_followers: Living[Any] = Living()
_make: Callable[[], Any] | None = None
_resolve: Callable[[str], Any] | None = None
_codec_of: Callable[[str], Any] | None = None


def make_with(make: Callable[[], Any]) -> None:
    """Has the default cache made by `make` where none was set."""
    global _make  # noqa: PLW0603  # there is one default cache
    _make = make


def resolve_aliases_with(resolve: Callable[[str], Any], codec: Callable[[str], Any]) -> None:
    """Has names of caches (the aliases of Django's CACHES) looked up by `resolve`, and their codecs by `codec`."""
    global _resolve, _codec_of  # one framework names caches
    _resolve, _codec_of = resolve, codec


def current() -> Any:
    """The default cache; made now where none was set."""
    global _default  # noqa: PLW0603  # there is one default cache
    with _latch:
        if _swapped:
            return _swapped[-1]
        if _default is None:
            if _make is None:
                import_module("memover.api")  # which says how; a program may have imported a part of memover alone
            assert _make is not None, "memover.api has set it"
            _default = _make()
        return _default


def set_default(cache: Any) -> Any:
    """Makes `cache` the default; returns the former one, None where none was set."""
    global _default  # there is one default cache
    with _latch:
        former, _default = _default, cache
        _changed()
    return former


def swap_in(cache: Any) -> None:
    """Puts `cache` before the default, until `swap_out`."""
    with _latch:
        _swapped.append(cache)
        _changed()


def made() -> bool:
    """Whether there is a default cache already; asking does not make one."""
    with _latch:
        return bool(_swapped) or _default is not None


def swapped() -> Any:
    """The cache that was put before the default last; None where none was."""
    with _latch:
        return _swapped[-1] if _swapped else None


def swap_out(cache: Any) -> None:
    """Takes `cache` away again. By identity and from the end: blocks of several threads may overlap."""
    with _latch:
        for at in range(len(_swapped) - 1, -1, -1):
            if _swapped[at] is cache:
                del _swapped[at]
                break
        _changed()


def named(alias: str) -> Any:
    """The cache behind an alias of Django's CACHES. Raises `ConfigurationError`."""
    if _resolve is None:
        try:
            import_module("memover.django.aliases")  # which registers itself
        except ImportError as error:
            raise ConfigurationError(
                f"cache={alias!r} names an alias of Django's CACHES, and Django cannot be imported ({error}): install "
                f"memover[django], or give a Cache."
            ) from None
    assert _resolve is not None, "memover.django.aliases has set it"
    return _resolve(alias)


def codec_of(alias: str) -> Any:
    """The codec that functions on an alias of Django's CACHES use, None where the alias names none.

    Also where `using` has put another cache in the alias's place: what the alias can store is then stored in tests too."""
    named(alias)
    return None if _codec_of is None else _codec_of(alias)


def changed() -> None:
    """What an alias stands for has changed: every follower asks again."""
    with _latch:
        _changed()


def follow(follower: Follower) -> None:
    """Has `follower.let_go()` called whenever the default cache changes."""
    with _latch:
        _followers.add(follower)


def followers() -> list[Any]:
    """Everything that follows the default cache."""
    with _latch:
        return list(_followers)


def _changed() -> None:
    for follower in list(_followers):
        follower.let_go()
