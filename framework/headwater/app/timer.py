"""EventTimer: a function that is run for each multiple of a span of event time, in each task, as part of its epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater.app.table import Table
from headwater.core.errors import MisuseError
from headwater.core.names import check_part
from headwater.core.times import duration_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta


@dataclass(frozen=True, slots=True)
class EventTimer:
    """A declared event-time timer. `tables` are those it touches, where the declaration says so."""

    name: str
    fun: Callable[[int], Any]
    every_ms: int
    tables: tuple[Table, ...] | None = None


def event_timer(
    fun: Any,
    interval: float | timedelta,
    name: str | None,
    tables: Iterable[Any] | None,
    others: dict[str, Any],
) -> EventTimer:
    """Return a timer as it was declared. Raises MisuseError for what event time has no use for."""
    if not callable(fun):
        raise MisuseError(f"app.timer(…, event_time=True) runs a function of the time (ms); found {fun!r}")
    chosen = check_part(name or str(getattr(fun, "__name__", "")), "a timer")
    for option, value in others.items():
        raise MisuseError(
            f"timer {chosen!r}: {option}={value!r} means nothing in event time: it runs in each task, when its watermark passes"
        )
    every_ms = duration_ms(interval, f"timer {chosen!r}: its interval", zero=False)
    if tables is not None:
        tables = tuple(tables)
        for table in tables:
            if not isinstance(table, Table):
                raise MisuseError(f"timer {chosen!r}: tables=[…] takes tables; found {table!r}")
    return EventTimer(chosen, fun, every_ms, tables)
