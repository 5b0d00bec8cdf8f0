"""The `memover.Cache`s behind Django's aliases. Django makes a backend per alias and thread; they share what is here."""

from __future__ import annotations

import hmac
import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from memover.cache import Cache
from memover.codec.pickle import PickleCodec
from memover.default import changed, swapped
from memover.errors import ConfigurationError
from memover.keys.names import check_prefix
from memover.latch import Latch

__all__ = ["DjangoCache", "kept", "overridden_within", "shared_cache", "stand_in"]

_SALT = b"memover.django.MemoverCache"
_caches: dict[tuple[str, str], DjangoCache] = {}
"""By kind and place: "shared" and what the settings say of it, or "stand-in" and an alias."""
_overridden: list[Any] = []
"""For each `override_settings(CACHES=...)` under way, the cache that `memover.using` had put in place of all when it began."""
_latch = Latch()


class DjangoCache(Cache):
    """A `Cache` whose prefix may be empty, as Django's KEY_PREFIX is by default."""

    @staticmethod
    def _check_prefix(prefix: Any) -> str:
        return "" if prefix == "" else check_prefix(prefix)


def shared_cache(url: str, prefix: str, options: dict[str, Any]) -> DjangoCache:
    """The cache of this process for a location, a prefix and options; made when first asked for.

    Two aliases that differ only in VERSION, TIMEOUT or KEY_FUNCTION share one, and so its entries."""
    if "ttl" in options or "prefix" in options or "version" in options or "key_function" in options:
        raise ConfigurationError(
            "In CACHES, give TIMEOUT, KEY_PREFIX, VERSION and KEY_FUNCTION beside OPTIONS, in Django's words."
        )
    place = "shared", json.dumps([url, prefix, sorted(options.items())], default=lambda it: f"{type(it)} {id(it)}")
    with _latch:
        cache = _caches.get(place)
        if cache is None:
            settled = {**options, "codec": _codec_for(options.get("codec", "pickle"))}
            try:
                cache = _caches[place] = DjangoCache(url, prefix=prefix, **settled)
            except TypeError as error:
                raise ConfigurationError(f"OPTIONS of the cache at {url.rpartition('@')[2]}: {error}.") from None
        return cache


def stand_in(alias: str, backend: Any, *, enabled: bool) -> DjangoCache:
    """The cache in this process's memory that functions on an alias of Django's own backends use."""
    with _latch:
        cache = _caches.get(("stand-in", alias))
        if cache is None:
            cache = _caches["stand-in", alias] = DjangoCache(
                "memory://",
                prefix=backend.key_prefix,
                ttl=backend.default_timeout,
                max_entries=max(backend._max_entries, 1),
                codec=_codec_for("pickle"),
                enabled=None if enabled else False,
            )
        return cache


@contextmanager
def kept() -> Generator[None, None, None]:
    """Has the caches of now again afterwards, with what is in their memory, if the settings are again those of now."""
    before = dict(_caches)
    try:
        yield
    finally:
        _replace(before)
        changed()


def _replace(caches: dict[tuple[str, str], DjangoCache]) -> None:
    with _latch:
        _caches.clear()
        _caches.update(caches)


def _codec_for(spec: Any) -> Any:
    """The codec that OPTIONS["codec"] asks for: "pickle" (signed), "msgpack", an object, or the dotted path of one or
    of what makes one."""
    if spec == "pickle":
        return PickleCodec(keys=[_derived(key) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)])
    if spec == "msgpack":
        return None
    if isinstance(spec, str):
        try:
            spec = import_string(spec)
        except ImportError as error:
            raise ConfigurationError(f"OPTIONS['codec']: {error}. Give 'pickle', 'msgpack' or a dotted path.") from None
    return spec() if isinstance(spec, type) or not hasattr(spec, "encode") else spec


def _derived(secret: str | bytes) -> bytes:
    # A key of our own, so that what Django signs with the same secret for another purpose is never a signature here.
    return hmac.new(secret.encode() if isinstance(secret, str) else secret, _SALT, "sha256").digest()


def overridden_within(cache: Any) -> bool:
    """Whether the settings of the caches were overridden inside the innermost `memover.using`, which has `cache`."""
    return bool(_overridden) and _overridden[-1] is cache


def _settings_changed(*, setting: str, enter: bool, **_: Any) -> None:
    if setting == "CACHES" and enter:
        _overridden.append(swapped())
    elif setting == "CACHES" and _overridden:
        _overridden.pop()
    if setting in ("CACHES", "SECRET_KEY", "SECRET_KEY_FALLBACKS"):
        _replace({})
        changed()


setting_changed.connect(_settings_changed, dispatch_uid="memover.django")
