"""What kind of class a class is: the one place that knows how each library marks its classes.

    kind        its mark
    ----------  -----------------------------------------------------------------------------------
    ENUM        the metaclass `enum.EnumMeta`
    EXCEPTION   a base `BaseException`
    NAMEDTUPLE  a tuple with `_fields` and `_make`
    TYPEDDICT   `__required_keys__`
    MODEL       a base `pydantic.BaseModel`
    STRUCT      the metaclass of `msgspec.Struct`
    ATTRS       `__attrs_attrs__`
    DATACLASS   `__dataclass_fields__`
    ROW         a base `django.db.models.Model`, or a mapped class of SQLAlchemy
    BUILTIN     laid out on a builtin such as dict or str
    PLAIN       every other class

The order is that of the table, with one exception: of attrs and dataclass, which a class may inherit from two bases, the
declaration nearest in the method resolution order counts. `kind_of` says how instances are kept; `declared` says how a
class declares its fields, which an exception may do too.
"""

from __future__ import annotations

import enum
import os
import sys
import types
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from memover.classes.layout import base_of

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = [
    "ADDRESSES", "BOOKKEEPING", "PATHS", "RESPONSES", "VIEWS", "ClassKind", "base_names", "declared", "declares_itself", "field_names", "foreign",
    "foreign_base", "foreign_module", "frozen", "is_django", "is_iterator", "is_numpy_scalar", "is_queryset", "is_row", "kind_of",
    "model_fields", "published",
]  # fmt: skip


class ClassKind(enum.Enum):
    """The kinds of classes; the values are the words of keys and messages."""

    ENUM = "enum"
    EXCEPTION = "exception"
    NAMEDTUPLE = "namedtuple"
    TYPEDDICT = "typeddict"
    MODEL = "pydantic"
    STRUCT = "msgspec"
    ATTRS = "attrs"
    DATACLASS = "dataclass"
    ROW = "row"
    BUILTIN = "builtin"
    PLAIN = "plain"


VIEWS = frozenset({type({}.keys()), type({}.values()), type({}.items())})
"""What a dict's `keys()`, `values()` and `items()` are: they go on to show what the dict is later."""


def is_iterator(cls: type) -> bool:
    """Whether objects of this class of Python's own can be read only once: generators, `map`, `zip`, `iter(...)`, those of itertools."""
    return cls.__module__ in ("builtins", "itertools") and hasattr(cls, "__next__")


def kind_of(cls: type) -> ClassKind:
    """How instances of a class are kept."""
    if isinstance(cls, enum.EnumMeta):
        return ClassKind.ENUM
    if issubclass(cls, BaseException):
        return ClassKind.EXCEPTION
    found = declared(cls)
    if found is not None:
        return found
    if is_row(cls):
        return ClassKind.ROW
    return ClassKind.PLAIN if base_of(cls) is object else ClassKind.BUILTIN


def declared(cls: Any) -> ClassKind | None:
    """How a class declares named fields, or None when it declares none."""
    if issubclass(cls, tuple):
        named = isinstance(getattr(cls, "_fields", None), tuple) and callable(getattr(cls, "_make", None))
        return ClassKind.NAMEDTUPLE if named else None
    if isinstance(getattr(cls, "__required_keys__", None), frozenset) and issubclass(cls, dict):
        return ClassKind.TYPEDDICT
    if _derives(cls, "pydantic.main", "BaseModel"):
        return ClassKind.MODEL
    msgspec = sys.modules.get("msgspec")
    if msgspec is not None and isinstance(cls, type(getattr(msgspec, "Struct", None))) and type(cls) is not type:
        return ClassKind.STRUCT
    for base in cls.__mro__:
        if "__attrs_attrs__" in base.__dict__:
            return ClassKind.ATTRS
        if "__dataclass_fields__" in base.__dict__:
            return ClassKind.DATACLASS
    return None


def declares_itself(cls: type) -> bool:
    """Whether the fields of a dataclass or attrs class are declared by the class itself, and not by a base."""
    return "__dataclass_fields__" in cls.__dict__ or "__attrs_attrs__" in cls.__dict__


def field_names(cls: Any, kind: ClassKind) -> tuple[str, ...]:
    """The names of the fields that a class declares, in their order; () for a kind without fields."""
    if kind is ClassKind.NAMEDTUPLE:
        return tuple(cls._fields)
    if kind is ClassKind.MODEL:
        return tuple(model_fields(cls))
    if kind is ClassKind.STRUCT:
        return tuple(cls.__struct_fields__)
    if kind is ClassKind.ATTRS:
        return tuple(each.name for each in cls.__attrs_attrs__)
    if kind is ClassKind.DATACLASS:
        return tuple(each.name for each in sys.modules["dataclasses"].fields(cls))
    return ()


def model_fields(cls: Any) -> dict[str, Any]:
    """The fields of a pydantic model by name; the public attribute is a property with a warning in newer versions."""
    found: dict[str, Any] = getattr(cls, "__pydantic_fields__", None) or getattr(cls, "model_fields", None) or {}
    return found


def is_row(cls: type) -> bool:
    """Whether instances stand for rows of a database: Django models, and mapped classes of SQLAlchemy."""
    return is_django(cls) or ("sqlalchemy" in sys.modules and hasattr(cls, "__mapper__"))


def is_django(cls: type) -> bool:
    """Whether a class is a Django model."""
    return _derives(cls, "django.db.models.base", "Model")


def is_queryset(cls: type) -> bool:
    """Whether a class is a Django queryset."""
    return _derives(cls, "django.db.models.query", "QuerySet")


def _derives(cls: type, module: str, name: str) -> bool:
    """Whether a class of a library that need not be imported is among the bases."""
    base = getattr(sys.modules.get(module), name, None)
    return base is not None and base in cls.__mro__


def frozen(cls: Any, kind: ClassKind) -> bool:
    """Whether the class itself is declared frozen: a dataclass, attrs class or Struct whose fields cannot be set."""
    if kind is ClassKind.DATACLASS:
        parameters = cls.__dict__.get("__dataclass_params__")
        return parameters is not None and parameters.frozen and object.__setattr__ is not cls.__setattr__
    if kind is ClassKind.ATTRS:
        return "__attrs_attrs__" in cls.__dict__ and getattr(cls.__setattr__, "__name__", "") == "_frozen_setattrs"
    if kind is ClassKind.STRUCT:
        config = cls.__struct_config__
        return bool(config.frozen and not config.dict)
    return False


# -- classes of others ----------------------------------------------------------------------------------------------------

PATHS = ("PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath")
ADDRESSES = ("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network", "IPv4Interface", "IPv6Interface")
"""The classes of `pathlib` and `ipaddress`, in the order of their numbers in stored bytes."""

RESPONSES = frozenset(
    {"starlette.responses.Response", "werkzeug.sansio.response.Response", "django.http.response.HttpResponseBase"}
)
"""What endpoints return, as in `base_names`: made anew for every answer."""

BOOKKEEPING = frozenset({"_abc_impl", "_meta", "_sa_class_manager", "_sa_registry"})
"""Attributes that abc, Django and SQLAlchemy put into each class: objects made with it, which say nothing that its body does not."""

_ATOMIC = frozenset({"numpy", "pandas", "polars", "pyarrow", "dateutil", "msgpack", "pytz"})
_STDLIB = os.path.dirname(os.__file__)


def foreign(cls: type) -> bool:
    """Whether a class is the standard library's, or of a library whose values are kept whole (arrays, frames, zones)."""
    # Before Python 3.12 whatever make_dataclass makes says that it is from `types`.
    made = cls.__module__ == "types" and not hasattr(types, cls.__name__)
    return not made and cls.__module__ != "__main__" and foreign_module(cls.__module__.partition(".")[0])


@lru_cache(maxsize=512)
def foreign_module(top: str) -> bool:
    """The same of a top-level module."""
    if top in _ATOMIC or top in ("builtins", "typing", "typing_extensions"):
        return True
    if top not in sys.stdlib_module_names:
        return False
    # An application's own module may have such a name: `profile`, `calendar`, `code`.
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is None or (file.startswith(_STDLIB) and "-packages" not in file)


def published(cls: type, names: Container[tuple[str, str]]) -> tuple[str, str] | None:
    """Module and name of a class if they are among `names`, and the module holds exactly this class under the name; else None.

    The module is the top-level one: pathlib's classes say "pathlib._local" on some versions, decimal's "decimal" whether
    in C or Python. Only those of `freezegun.api` are under the full name."""
    module = cls.__module__ if cls.__module__ == "freezegun.api" else cls.__module__.partition(".")[0]
    named = (module, cls.__name__)
    return named if named in names and getattr(sys.modules.get(module), cls.__name__, None) is cls else None


def base_names(cls: type) -> list[str]:
    """`module.qualname` of a class and of its bases, the nearest first: for classes of libraries that need not be imported."""
    return [f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__]


def is_numpy_scalar(cls: type) -> bool:
    """Whether a class is one of numpy's own scalar classes."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(cls, numpy.generic) and cls.__module__ == "numpy"


def foreign_base(cls: type) -> type:
    """The nearest base that is foreign and holds something; `object` when there is none."""
    for base in cls.__mro__:
        top = base.__module__.partition(".")[0]
        if top not in ("__main__", "typing", "typing_extensions", "abc", "enum") and foreign_module(top):
            return base
    return object
