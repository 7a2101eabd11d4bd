"""Aggregates to give to `aggregate(name=…, …)`: `headwater.agg.count()`, `headwater.agg.sum("price")`…

`f` is a field's name or a function of the value; `where` a function of the value: only what it says yes to counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.core.errors import MisuseError, TopologyError
from headwater.core.place import users_line
from headwater.stream.aggregate import Aggregate
from headwater.stream.plan import key_selector

if TYPE_CHECKING:
    from collections.abc import Callable


def count(f: Any = None, *, where: Callable[[Any], Any] | None = None) -> Aggregate:
    """How many records; with `f`: of how many it is not None."""
    return Aggregate("count", _taken("count", f, needed=False), _condition("count", where))


def sum(f: Any, *, where: Callable[[Any], Any] | None = None) -> Aggregate:
    """The sum; whole numbers are exact at any size. None of nothing."""
    return Aggregate("sum", _taken("sum", f), _condition("sum", where))


def min(f: Any, *, where: Callable[[Any], Any] | None = None) -> Aggregate:
    """The least number or text. None of nothing."""
    return Aggregate("min", _taken("min", f), _condition("min", where))


def max(f: Any, *, where: Callable[[Any], Any] | None = None) -> Aggregate:
    """The greatest number or text. None of nothing."""
    return Aggregate("max", _taken("max", f), _condition("max", where))


def mean(f: Any, *, where: Callable[[Any], Any] | None = None) -> Aggregate:
    """Sum / count, as a float. None of nothing."""
    return Aggregate("mean", _taken("mean", f), _condition("mean", where))


def distinct(f: Any, *, where: Callable[[Any], Any] | None = None) -> Aggregate:
    """How many different values, exactly."""
    return Aggregate("distinct", _taken("distinct", f), _condition("distinct", where))


def first(f: Any = None, *, by: Any = None, where: Callable[[Any], Any] | None = None) -> Aggregate:
    """The first by merged order; with `by` (field, function, tuple) the one with the least. Without `f` the whole value."""
    taken = _taken("first", f, needed=False)
    return Aggregate("first", taken, _condition("first", where), by=_order("first", by))


def last(f: Any = None, *, by: Any = None, where: Callable[[Any], Any] | None = None) -> Aggregate:
    """The last by merged order; with `by` (field, function, tuple) the one with the greatest. Without `f` the whole value."""
    taken = _taken("last", f, needed=False)
    return Aggregate("last", taken, _condition("last", where), by=_order("last", by))


def collect(f: Any = None, *, where: Callable[[Any], Any] | None = None) -> Aggregate:
    """A list of all, in merged order. Without `f` of whole values."""
    return Aggregate("collect", _taken("collect", f, needed=False), _condition("collect", where))


def aggregate(
    zero: Any,
    add: Callable[[Any, Any], Any],
    *,
    merge: Callable[[Any, Any], Any] | None = None,
    result: Callable[[Any], Any] | None = None,
    subtract: Callable[[Any, Any], Any] | None = None,
    where: Callable[[Any], Any] | None = None,
) -> Aggregate:
    """Your own: `zero` (a value, or a function that makes one), `add(accumulator, value)` gives the next accumulator.

    Accumulators are plain data. `merge(earlier, later)` is needed for session windows, `subtract(accumulator, value)` for
    aggregates over tables; `result(accumulator)` gives what is shown, by default the accumulator.
    """
    for name, function in (("add", add), ("merge", merge), ("result", result), ("subtract", subtract)):
        if not callable(function) and not (function is None and name != "add"):
            raise MisuseError(f"agg.aggregate({name}=…) at {users_line()} is a function; found {function!r}")
    return Aggregate(
        "own",
        where=_condition("aggregate", where),
        zero=zero,
        add=add,
        merge=merge,
        result=result,
        subtract=subtract,
    )


def _taken(name: str, f: Any, *, needed: bool = True) -> Any:
    if f is None:
        if needed:
            raise MisuseError(
                f"agg.{name}(f) at {users_line()} needs a field's name or a function of the value"
            )
        return None
    try:
        return key_selector(f)
    except TopologyError:
        raise MisuseError(
            f"agg.{name}(f) at {users_line()} takes a field's name or a function of the value; found {f!r}"
        ) from None


def _order(name: str, by: Any) -> Any:
    return None if by is None else _taken(f"{name}(by=…)", by)


def _condition(name: str, where: Any) -> Any:
    if where is not None and not callable(where):
        raise MisuseError(
            f"agg.{name}(where=…) at {users_line()} is a function of the value; found {where!r}"
        )
    return where
