"""What `hot.fold_windows` is given: a declaration of tumbling windows, their state in one task, records, and lists for results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class TumblingFold(NamedTuple):
    """Windows of `size_ms` from `offset_ms` on, and what is folded in them.

    `takes`, by aggregate: None counts every value, a name sums the field of that name, a function gives the accumulator for
    an accumulator and a value. `result(accumulators)` gives the aggregates by name; None: the accumulators are the results.
    `shown` has keys as they are shown, `show(key)` gives those it hasn't. `is_read`: results are wanted.
    """

    size_ms: int
    offset_ms: int
    grace_ms: int
    takes: tuple[str | Callable[[Any, Any], Any] | None, ...]
    zeros: tuple[Any, ...]
    names: tuple[str, ...]
    result: Callable[[Any], dict[str, Any]] | None
    shown: dict[bytes, Any]
    show: Callable[[bytes], Any]
    is_read: bool


class Held(NamedTuple):
    """A state's rows and open changes (`table.state.StatePart`), all of them in memory; and by end the windows that wait for it.

    `ends` is a heap of the keys of `waiting`.
    """

    groups: dict[bytes, Any]
    dirty: dict[bytes, int]
    fresh: set[bytes]
    waiting: dict[int, list[bytes]]
    ends: list[int]


class WorkColumns(NamedTuple):
    """Records by row number, as lists of one length; `owns` and `tasks` are the watermarks of `stream.frame.Work`."""

    rows: list[int]
    keys: list[bytes | None]
    values: list[Any]
    timestamps: list[int]
    owns: list[int]
    tasks: list[int]


class Made(NamedTuple):
    """Results: the rows that brought them about, keys, values, event times. Grown together."""

    rows: list[int]
    keys: list[bytes]
    values: list[Any]
    times: list[int]
