"""Why a value was refused, and where in it: walked only after the packer has failed, so that success costs nothing."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import msgpack

from memover.classes.kinds import RESPONSES, VIEWS, base_names, is_iterator
from memover.codec.faults import FAULTS, from_outside
from memover.codec.mv1.format import Unencodable
from memover.errors import UnencodableValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["explain", "refusal_of"]

DEPTH_LIMIT = 1024  # msgpack's own is this, or less in older versions

_HINTS: dict[type, tuple[str, str]] = {
    memoryview: ("a memoryview, a window on memory that another object owns", "return bytes(it)"),
    types.FunctionType: ("a function", "return data, and look the function up by name"),
    types.BuiltinFunctionType: ("a function", "return data, and look the function up by name"),
    types.MethodType: ("a bound method", "return data, and look the method up by name"),
    types.ModuleType: ("a module", "return data"),
    types.CoroutineType: ("a coroutine that nobody awaited", "await it"),
    type: ("a class", "return its name, and look the class up by it"),
}

_DATETIME, _DURATION = (
    f"return its {method}(), or a Series of it where nanoseconds count"
    for method in ("to_pydatetime", "to_pytimedelta")
)
_INDEX = "return its to_numpy(), or pandas.Series(it)"
_INSTEAD: dict[str, str] = {
    "pandas.Timestamp": _DATETIME,
    "pandas._libs.tslibs.timestamps.Timestamp": _DATETIME,
    "pandas.Timedelta": _DURATION,
    "pandas._libs.tslibs.timedeltas.Timedelta": _DURATION,
    "pandas.Index": _INDEX,
    "pandas.core.indexes.base.Index": _INDEX,
    "pandas._libs.tslibs.period._Period": "return str(it)",
    "pandas._libs.interval.IntervalMixin": "return its left and right",
    "pyarrow.lib.Table": "return its to_pandas()",
    "scipy.sparse._base._spbase": "return its arrays (data, indices, indptr, or data, row, col) and its shape",
}
"""What to return instead of what libraries for data have besides arrays and frames, by the names of a class and its bases."""

_LEAVES = (bool, int, float, str, bytes, bytearray, msgpack.ExtType, msgpack.Timestamp)
_TOO_DEEP = Unencodable("a value nested deeper than msgpack takes", "return a flatter one")


def refusal_of(kind: type) -> Unencodable:
    """The refusal of a class that no kind of value covers."""
    known = _HINTS.get(kind)
    if known is not None:
        return Unencodable(*known)
    if issubclass(kind, type):
        return Unencodable(*_HINTS[type])
    if is_iterator(kind):
        article = "an" if kind.__qualname__[0] in "aeiou" else "a"
        return Unencodable(f"{article} {kind.__qualname__}, which can be read only once", "return list(it)")
    if kind in VIEWS:
        return Unencodable(f"a view of a dict ({kind.__qualname__}), which changes with it", "return list(it)")
    if not RESPONSES.isdisjoint(base_names(kind)):
        return Unencodable(
            f"a {kind.__module__}.{kind.__qualname__}, which is made anew for every request",
            "return the data that the response is made from, and make it where the function is called",
        )
    instead = next((_INSTEAD[name] for name in base_names(kind) if name in _INSTEAD), None)
    if instead is not None:
        return Unencodable(f"a {kind.__module__}.{kind.__qualname__}, which memover does not keep", instead)
    return Unencodable(
        f"a {kind.__module__}.{kind.__qualname__}, which memover does not know how to keep",
        "return builtins or a dataclass, or teach memover the class with register_value(type, encode, decode)",
    )


def explain(
    value: Any,
    error: Exception,
    children: Callable[[Any], tuple[list[Any], Callable[[int], str] | None]],
    function: str,
) -> UnencodableValue:
    """The error that names the first object in `value` which cannot be kept, and its path."""
    path: list[str] = ["$"]
    above: list[int] = [id(value)]
    kept: list[Any] = []
    stack: list[Iterator[tuple[str, Any]]] = []
    current = value
    try:
        while True:
            made = _parts(current, children)
            kept.append(made)
            stack.append(made)
            step = None
            while stack:
                step = next(stack[-1], None)
                if step is not None:
                    break
                stack.pop()
                above.pop()
                path.pop()
            if step is None:
                break
            label, current = step
            path.append(label)
            if id(current) in above and not isinstance(current, (int, str, bytes, float, type(None))):
                raise Unencodable("an object that contains itself", "return a value without cycles")
            above.append(id(current))
            if len(above) > DEPTH_LIMIT:
                raise _TOO_DEEP
    except Unencodable as refused:
        return _error("".join(path), refused, type(current), function, value)
    except FAULTS as other:
        if from_outside(other):
            raise
        error = other
    if isinstance(error, Unencodable):  # of something that was made on the way, and is no longer there to be found
        why = error
    elif isinstance(error, ValueError) and "recursion" in str(error):
        why = _TOO_DEEP
    else:
        why = Unencodable(f"an object on which encoding failed with {error!r}", "return builtins or a dataclass")
    return _error("".join(path) or "$", why, type(current), function, value)


def _error(path: str, refused: Unencodable, kind: type, function: str, value: Any) -> UnencodableValue:
    of = f" of {function}" if function else ""
    if len(path) > 300:
        path = f"{path[:150]}…{path[-150:]}"
    return UnencodableValue(
        f"The result{of} cannot be stored as it is: at {path} there is {refused.why}. To store it, {refused.hint}, or "
        'give the function a codec=. To have such results returned and not stored, use on_unencodable="return". '
        "This result is the error's `value`.",
        function=function,
        path=path,
        kind=f"{kind.__module__}.{kind.__qualname__}",
        value=value,
    )


def _parts(
    value: Any, children: Callable[[Any], tuple[list[Any], Callable[[int], str] | None]]
) -> Iterator[tuple[str, Any]]:
    kind = type(value)
    if kind is list:
        return iter([(f"[{place}]", each) for place, each in enumerate(value)])
    if kind is dict:
        return iter([part for key, each in value.items() for part in ((f"{_key(key)}<key>", key), (_key(key), each))])
    if value is None or kind in _LEAVES:
        return iter(())
    if kind is memoryview:
        raise refusal_of(memoryview)
    made, labels = children(value)
    if labels is None:
        offset = 2 if len(made) > 1 and kind.__name__ == "deque" else 1
        return iter([(f"[{place - offset}]", each) for place, each in enumerate(made) if place >= offset])
    return iter([(labels(place), each) for place, each in enumerate(made) if place >= 1])


def _key(key: Any) -> str:
    if type(key) is str and key.isidentifier():
        return f".{key}"
    if type(key) in (str, int, float, bool, bytes, type(None)) and (type(key) is not int or abs(key) < 2**64):
        return f"[{key!r}]"  # of a long int Python makes no text
    return f"[<{type(key).__qualname__}>]"
