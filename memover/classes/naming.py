"""The name by which a class, a function or a module is known in every process.

Keys and stored values hold names. A program's own module is called `__main__` in the process that runs it, and
something else to everyone who imports it, so a name in a key or a value is the one an import would use:

    started as                   module in that process    name
    ---------------------------  ------------------------  ------------------------------------------------
    import shop.jobs             shop.jobs                 shop.jobs
    python -m shop.jobs          __main__                  shop.jobs
    python shop/jobs.py          __main__                  shop.jobs: as far up as there is an `__init__.py`
    python tool.py               __main__                  tool
    python -m pkg                __main__                  pkg.__main__
    a child that was spawned     __mp_main__               as in its parent
    REPL, -c, notebook, zipapp   __main__                  __main__: nobody can import it

The name is a text and nothing is imported to find it. It is settled once per program file, so that a program that
changes `sys.path` later does not change its names.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["class_name", "find_named", "function_name", "module_name", "module_of", "program_names"]

_PROGRAMS = ("__main__", "__mp_main__")

_INTERACTIVE = frozenset({"IPython", "_pyrepl", "bpython", "ipykernel", "ipykernel_launcher", "ptpython", "xonsh"})
"""Packages started with `-m` whose `__main__` is where a user types, and so not a module of theirs."""

_SUFFIXES = (".py", ".pyc", ".pyw")

_settled: dict[str, str] = {}
"""Program file to the name settled for it."""


def module_name(module: str, namespace: Mapping[str, Any] | None = None) -> str:
    """The name that a module goes by in every process.

    `module` is what a class or function calls its module; `namespace`, if given, is that module's own dict (a function's
    `__globals__`), which is surer than `sys.modules`: programs started by a debugger or a profiler are not there.
    """
    if module not in _PROGRAMS:
        return module
    if namespace is None or namespace.get("__name__") != module:
        namespace = vars(sys.modules[module]) if module in sys.modules else {}
    spec = getattr(namespace.get("__spec__"), "name", None)
    if isinstance(spec, str):
        top = spec.partition(".")[0]
        # `python` itself is `-m _pyrepl` on some versions, and `python -m asyncio` a REPL: what users type has no module.
        if top not in _INTERACTIVE and top not in sys.stdlib_module_names:
            return spec
        # `python -m cProfile shop/jobs.py` runs the script in a module that is not there, and leaves its name here.
        file: Any = sys.argv[0] if sys.argv and sys.argv[0] != namespace.get("__file__") else None
    else:
        file = namespace.get("__file__")
    if not isinstance(file, str):
        return "__main__"
    name = _settled.get(file)
    if name is None:
        name = _settled[file] = _name_of_script(file)
    return name


def class_name(kind: type) -> str:
    """The name that a class goes by in keys and in stored values: "module:qualname"."""
    return f"{module_name(kind.__module__)}:{kind.__qualname__}"


def module_of(function: Any) -> str:
    """The name of the module that a function was defined in, "" for an object that does not say."""
    module = getattr(function, "__module__", None)
    if not isinstance(module, str):
        return ""
    namespace = getattr(function, "__globals__", None)
    return module_name(module, namespace if isinstance(namespace, dict) else None)


def function_name(function: Any) -> str:
    """The name that a function goes by in keys: "module:qualname"; those of builtins are in the module `builtins`."""
    return f"{module_of(function) or 'builtins'}:{function.__qualname__}"


def program_names() -> set[str]:
    """The names that others import this process's own program under; empty for a program that nobody can import."""
    return {module_name(each) for each in _PROGRAMS if each in sys.modules} - {"__main__"}


def find_named(module: str, qualname: str) -> Any:
    """What a name stands for in this process, where the program's own module may be called `__main__`.

    Imports the module if it is none of the program's; raises `ImportError` or `AttributeError` if there is no such thing.
    """
    own = next((each for each in _PROGRAMS if each in sys.modules and module_name(each) == module), module)
    found: Any = sys.modules.get(own) or import_module(own)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def _name_of_script(file: str) -> str:
    path = os.path.realpath(file)
    folder, base = os.path.split(path)
    stem, suffix = os.path.splitext(base)
    if suffix not in _SUFFIXES or not stem.isidentifier() or not os.path.isfile(path):
        return "__main__"
    roots = {os.path.realpath(entry or os.curdir) for entry in sys.path} - {folder}
    parts = [] if stem == "__init__" else [stem]
    packaged = ""
    while os.path.isfile(os.path.join(folder, "__init__.py")) and os.path.basename(folder).isidentifier():
        folder, package = os.path.split(folder)
        parts.insert(0, package)
        packaged = ".".join(parts)
        # An `__init__.py` may also lie above the place that modules are imported from.
        if folder in roots:
            return packaged
    return packaged or _in_namespace_package(folder, stem, roots) or stem


def _in_namespace_package(folder: str, stem: str, roots: set[str]) -> str:
    """The name under which a script in a folder without `__init__.py` can be imported from a folder above, or ""."""
    for entry in sys.path:
        root = os.path.realpath(entry or os.curdir)
        if root not in roots or not folder.startswith(os.path.join(root, "")):
            continue
        packages = os.path.relpath(folder, root).split(os.sep)
        if not all(each.isidentifier() for each in packages):
            continue
        search: Any = None
        for package in packages:
            try:
                # By its last name alone: a dotted one needs the package above to be imported, which it is not.
                spec = PathFinder.find_spec(package, search)
            except (ImportError, ValueError, OSError):
                spec = None
            found = None if spec is None else spec.submodule_search_locations
            if found is None:
                search = None
                break
            search = list(found)
        if search is not None and folder in {os.path.realpath(each) for each in search}:
            return ".".join([*packages, stem])
    return ""
