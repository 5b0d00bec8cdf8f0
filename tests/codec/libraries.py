"""Classes made with other libraries, at home in one module."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import attrs
import msgspec
import pydantic

T = TypeVar("T")
RUNS: list[str] = []


@attrs.define
class Attrs:
    a: int
    b: Any = None


@attrs.frozen
class AttrsFrozen:
    a: int
    _hidden: int = 2


@attrs.define(slots=False)
class AttrsDict:
    a: int


class Struct(msgspec.Struct):
    a: int
    b: Any = None


class StructFrozen(msgspec.Struct, frozen=True, kw_only=True):
    a: int = 1


class StructHooked(msgspec.Struct):
    a: int

    def __post_init__(self) -> None:
        self.a += 1


class StructUnset(msgspec.Struct):
    a: int | msgspec.UnsetType = msgspec.UNSET


class Model(pydantic.BaseModel):
    a: int
    b: Any = None
    _secret: int = pydantic.PrivateAttr(default=5)

    @pydantic.field_validator("a")
    @classmethod
    def double(cls, value: int) -> int:
        RUNS.append("validated")
        return value * 2


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: int = 1


class Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    a: tuple[int, ...] = ()


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]


class Names(pydantic.RootModel[list[str]]):
    pass


@pydantic.dataclasses.dataclass
class Checked:
    a: int


def anything() -> Page[int]:
    """A function at home in this module."""
    raise NotImplementedError
