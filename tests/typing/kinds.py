"""Kinds of functions that a type checker finds hard to tell from others; checked as api.py is, by every checker there is.

A cached method stands for a protocol's and may be replaced by a cached method in a subclass, under each checker. What none
accepts is a plain method in its place, whose callers would miss the helpers; and pyright refuses every object in place of a
method that a base class defines by `def`, abstract or not, as it does with `functools.lru_cache`: make that base a protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from typing_extensions import assert_type

import memover
from memover import Cache, Entry, versioned_cache

T = TypeVar("T")


@versioned_cache(namespace="first")
def first(items: Sequence[T]) -> T:
    return items[0]


@versioned_cache(namespace="afirst")
async def afirst(items: Sequence[T]) -> T:
    return items[0]


@versioned_cache(namespace="anything")
def anything(number: int) -> Any:
    return number


@versioned_cache(namespace="names")
def names(number: int) -> list[str]:
    return []


@versioned_cache(namespace="anames")
async def anames(number: int) -> list[str]:
    return []


def a_generic_function_is_not_taken_for_a_coroutine_function() -> None:
    assert_type(first([1]), int)
    assert_type(first(["a"]), str)
    assert_type(first.refresh([1]), int)
    assert_type(first.bypass([1]), int)
    assert_type(first.max_age(3)([1]), int)
    assert_type(first.peek([1]), Entry | None)
    assert_type(first.key([1]), str)
    first.invalidate([1])
    first(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def a_generic_coroutine_function_is_awaited() -> None:
    assert_type(await afirst([1]), int)
    assert_type(await afirst.refresh(["a"]), str)
    assert_type(await afirst.peek(["a"]), Entry | None)


def a_function_that_returns_any_is_not_a_coroutine_function() -> None:
    found: str = anything(1)
    entry: Entry | None = anything.peek(1)
    key: str = anything.key(1)
    every: list[Any] = anything.map([1])
    anything.invalidate(1)
    del found, entry, key, every


def errors_in_place_are_in_the_type_of_a_map(flag: bool) -> None:
    assert_type(names.map([1]), list[list[str]])
    assert_type(names.map([1], return_exceptions=False), list[list[str]])
    assert_type(names.map([1], return_exceptions=True), list[list[str] | BaseException])
    assert_type(names.map([1], return_exceptions=flag), list[list[str] | BaseException])


async def errors_in_place_are_in_the_type_of_an_awaited_map() -> None:
    assert_type(await anames.map([1]), list[list[str]])
    assert_type(await anames.map([1], return_exceptions=True), list[list[str] | BaseException])


class Reads(Protocol):
    def read(self, key: str) -> bytes: ...


class AsyncReads(Protocol):
    async def read(self, key: str) -> bytes: ...


class Files:
    @versioned_cache(namespace="files/read", version=2, ignore=("self",))
    def read(self, key: str) -> bytes:
        return b""

    @read.upgrade(from_version=1)
    @staticmethod
    def from_text(old: str) -> bytes:
        return old.encode()


class MoreFiles(Files):
    @versioned_cache(namespace="more-files/read", ignore=("self",))
    def read(self, key: str) -> bytes:
        return b""


class AsyncFiles:
    @versioned_cache(namespace="async-files/read", ignore=("self",))
    async def read(self, key: str) -> bytes:
        return b""


class PlainFiles(Files):
    def read(self, key: str) -> bytes:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        return b""


class OtherFiles:
    @versioned_cache(namespace="other-files/read", ignore=("self",))
    def read(self, key: str) -> int:
        return 0


class AnyFiles:
    @versioned_cache(namespace="any-files/read", ignore=("self",))
    def read(self, key: str) -> Any:
        return b""


class MoreAnyFiles(AnyFiles):
    @versioned_cache(namespace="more-any-files/read", ignore=("self",))
    def read(self, key: str) -> Any:
        return b""


class ListedFiles(Files):
    @property
    @versioned_cache(namespace="listed-files/names", ignore=("self",))
    def names(self) -> list[str]:
        return []


class MoreAsyncFiles(AsyncFiles):
    @versioned_cache(namespace="more-async-files/read", ignore=("self",))
    async def read(self, key: str) -> bytes:
        return b""


def reads(source: Reads) -> None: ...
def async_reads(source: AsyncReads) -> None: ...


def a_cached_method_stands_for_a_method_of_a_protocol() -> None:
    reads(Files())
    reads(MoreFiles())
    async_reads(AsyncFiles())
    async_reads(MoreAsyncFiles())
    reads(AnyFiles())
    reads(MoreAnyFiles())
    reads(OtherFiles())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    reads(AsyncFiles())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async_reads(Files())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(MoreFiles().read("a"), bytes)
    assert_type(MoreFiles.read(MoreFiles(), key="a"), bytes)
    assert_type(ListedFiles().names, list[str])
    MoreFiles().read.invalidate(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Rows:
    @versioned_cache(namespace="rows/any", ignore=("self",))
    def any(self, number: int) -> Any:
        return number

    @versioned_cache(namespace="rows/first", ignore=("self",))
    def first(self, items: Sequence[T]) -> T:
        return items[0]


def methods_that_return_any_and_generic_ones_are_called_without_self(rows: Rows) -> None:
    found: int = rows.any(1)
    same: int = rows.first([1])
    rows.any.invalidate(1)
    rows.first.invalidate([1])
    del found, same


def options_are_typed_one_by_one() -> None:
    memover.configure("redis://localhost/0", prefix="shop", ttl="5m", max_entries=10)
    memover.configure(ttl=None)
    memover.configure(prefix=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    memover.configure(prefx="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Cache(max_entrys=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Cache(ttl=[])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
