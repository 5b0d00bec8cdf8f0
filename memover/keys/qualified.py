"""How classes and functions enter a key: by the name under which every process finds the same one.

    label       parts
    ----------  ------------------------------------------------------------
    class       "module:qualname"
    function    "module:qualname", plain and builtin functions alike
    method      "module:qualname" of the function, then `__self__`
    descriptor  class, name: `str.upper`

The module is the one an import would name (`classes.naming`): that of a program is not `__main__`. A name counts only if looking it up gives this very object. Lambdas, functions and classes made inside
functions, and a function whose name now belongs to its decorated self are therefore refused: two closures
have one name and two meanings.
"""

from __future__ import annotations

import sys
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodType, ModuleType, WrapperDescriptorType
from typing import TYPE_CHECKING, Any

from memover.classes.naming import class_name, function_name

from .canonical import Active, class_part, composite, encode_part
from .forms import entered, inside
from .refusal import Unkeyable

if TYPE_CHECKING:
    from .canonical import Encoder

__all__ = ["find"]


def find(kind: type) -> Encoder | None:
    """The encoder of classes and functions, or None for another type."""
    if issubclass(kind, type):
        return lambda value, active: composite("class", _name(value))
    return _FUNCTIONS.get(kind)


def _name(value: Any) -> bytes:
    """The checked name of a class or function; raises `Unkeyable` when it does not lead back to it."""
    module, qualname = getattr(value, "__module__", None) or "builtins", value.__qualname__
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is not value and getattr(found, "__func__", None) is not value:
        raise Unkeyable(
            value,
            f"{module}.{qualname} is not found under its name, so other processes and other closures could mean "
            "something else by it; define it at module level",
        )
    return encode_part(class_name(value) if isinstance(value, type) else function_name(value), {})


@entered
def _method(value: Any, active: Active) -> bytes:
    name = _name(value.__func__) if type(value) is MethodType else encode_part(value.__qualname__, active)
    return composite("method", name, inside(".__self__", encode_part, value.__self__, active))


def _builtin(value: Any, active: Active) -> bytes:
    owner = value.__self__
    plain = owner is None or isinstance(owner, ModuleType)
    return composite("function", _name(value)) if plain else _method(value, active)


def _descriptor(value: Any, active: Active) -> bytes:
    return composite("descriptor", class_part(value.__objclass__), encode_part(value.__name__, active))


_FUNCTIONS: dict[type, Encoder] = {
    FunctionType: lambda value, active: composite("function", _name(value)),
    MethodType: _method,
    BuiltinFunctionType: _builtin,
    MethodDescriptorType: _descriptor,
    WrapperDescriptorType: _descriptor,
}
