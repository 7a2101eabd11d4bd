"""Which tables a function's code refers to, read from its code objects. Never runs a user's code.

What can't be seen here (a table found by `app.tables[name]`, through a method, behind a property) is noticed at first
access, and the epoch is redone; `@app.agent(tables=[…])` says it ahead.
"""

from __future__ import annotations

import functools
import inspect
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from headwater.app.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

DEPTH_MAX = 8
"""How many calls deep code is followed; beyond that, first access finds the table."""

FUNCTIONS_MAX = 2_000
"""How many functions are looked at in all: an agent that calls into a large library must not hold up the start."""


def tables_touched(fun: Callable[..., Any], tables: Iterable[Table]) -> set[Table]:
    """Return those of `tables` that the function's code, or plain functions it calls, refers to."""
    wanted = {id(table): table for table in tables}
    found: set[Table] = set()
    seen: set[int] = set()
    waiting: list[tuple[Any, int]] = [(fun, 0)]
    while waiting and len(found) < len(wanted) and len(seen) < FUNCTIONS_MAX:
        target, depth = waiting.pop(0)
        function = _function(target)
        if function is None or id(function) in seen:
            continue
        seen.add(id(function))
        for value in _referred(function):
            table = wanted.get(id(value))
            if table is not None:
                found.add(table)
            elif depth < DEPTH_MAX and _function(value) is not None:
                waiting.append((value, depth + 1))
    return found


def topics_touched(fun: Callable[..., Any], topics: Iterable[Any]) -> set[Any]:
    """Return those of `topics` that the function's code, or plain functions it calls, refers to."""
    wanted = {id(topic): topic for topic in topics}
    found: set[Any] = set()
    for function in _functions(fun):
        found.update(wanted[id(value)] for value in _referred(function) if id(value) in wanted)
    return found


def names_in(fun: Callable[..., Any]) -> set[str]:
    """Return all names that the function's code, and plain functions it calls, have."""
    return {
        name for function in _functions(fun) for code in _codes(function.__code__) for name in code.co_names
    }


def _functions(fun: Callable[..., Any]) -> Iterator[FunctionType]:
    """Yield the function and plain functions it calls, each once."""
    seen: set[int] = set()
    waiting: list[tuple[Any, int]] = [(fun, 0)]
    while waiting and len(seen) < FUNCTIONS_MAX:
        target, depth = waiting.pop(0)
        function = _function(target)
        if function is None or id(function) in seen:
            continue
        seen.add(id(function))
        yield function
        if depth < DEPTH_MAX:
            waiting += [(value, depth + 1) for value in _referred(function) if _function(value) is not None]


def _function(value: Any) -> FunctionType | None:
    """Return the plain function behind a value: methods, partials and `functools.wraps` are looked through."""
    for _ in range(DEPTH_MAX):
        if type(value) is MethodType:
            value = value.__func__
        elif isinstance(value, functools.partial):
            value = value.func
        elif isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        else:
            break
    return value if type(value) is FunctionType else None


def _referred(function: FunctionType) -> Iterator[Any]:
    """Yield the objects that a function's names may stand for."""
    names: set[str] = set()
    free: set[str] = set()
    for code in _codes(function.__code__):
        names.update(code.co_names)
        free.update(code.co_freevars)
    roots: list[Any] = [function.__globals__[name] for name in sorted(names) if name in function.__globals__]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        if name in free:
            try:
                roots.append(cell.cell_contents)
            except ValueError:
                continue  # a cell not filled yet: a name assigned after the function was made
    roots += function.__defaults__ or ()
    roots += (function.__kwdefaults__ or {}).values()
    wrapped = function.__dict__.get("__wrapped__")
    if wrapped is not None:
        roots.append(wrapped)
    yield from roots
    # `module.table`, `self.table`, `config.tables.totals`: attributes by the names the code has, two levels down.
    level = roots
    for _ in range(2):
        level = [value for root in level for value in _attributes(root, names)]
        yield from level


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and those of the functions, lambdas and comprehensions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _attributes(root: Any, names: set[str]) -> Iterator[Any]:
    """Yield attributes that are simply stored: properties and other descriptors would run code."""
    if isinstance(root, (Table, str, bytes, int, float)) or root is None:
        return
    if type(root) in (list, tuple, set, frozenset, dict):
        yield from (
            value for value in (root.values() if type(root) is dict else root) if isinstance(value, Table)
        )
        return
    for name in sorted(names):
        try:
            value = inspect.getattr_static(root, name)
        except (AttributeError, TypeError):
            continue
        if (
            isinstance(root, ModuleType)
            or not hasattr(type(value), "__get__")
            or _function(value) is not None
        ):
            yield value
