"""RunningAggregate: aggregates by key without a window: one row a key, as of the last record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.core.windowed import split_prefix, window_prefix
from headwater.stream.operator import END_OF_TIME, Operator

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.stream.fold import Fold
    from headwater.stream.operator import Context, State, TableRows
    from headwater.stream.results import Results

GROUPS, BESIDE = "groups", "beside"

ENDED = b""
"""The row of `groups` that says that results have been given at END-OF-TIME; no group has an empty place."""


class RunningAggregate(Operator):
    """One row a key.

    State `groups`: by encoded key [records, greatest event time, accumulator]. With `retracts` values are pairs [old, new] of
    a table's rows: the old is taken away, the new added (either may be None), and a group that no row is left of leaves.
    Results as a stream: each group once, at END-OF-TIME.
    """

    def __init__(
        self,
        fold: Fold,
        results: Results,
        *,
        retracts: bool = False,
        revive: Callable[[Any], Any] | None = None,
    ) -> None:
        """Take what is folded, and where results go. `revive` makes a table's row of plain data."""
        self._revive = revive
        self._fold = fold
        self._results = results
        self._retracts = retracts

    def open(self, context: Context) -> None:
        """Take the states."""
        self._context = context
        self._groups: State = context.state(GROUPS)
        self._beside: State | None = context.state(BESIDE) if self._fold.grows else None
        table = self._results.table
        self._table: TableRows | None = None if table is None else context.table(table)

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Add the record to its group, or take it away."""
        if value is None:
            return
        key = self._results.group(key)
        fold = self._fold
        if not self._retracts and self._beside is None:
            place = window_prefix(key)
            there = self._groups.get(place)
            if there is None:
                count, latest, acc = 0, timestamp, fold.zero()
            else:
                count, latest, acc = there
            acc = fold.step(acc, value)
            self._groups.put(place, [count + 1, latest if latest > timestamp else timestamp, acc])
            if self._table is not None:
                self._table.put(key, fold.result(acc))
            return
        old, new = value if self._retracts else (None, value)
        if self._revive is not None:
            old, new = (None if row is None else self._revive(row) for row in (old, new))
        less = None if old is None else fold.inputs(old)
        more = None if new is None else fold.inputs(new)
        place = window_prefix(key)
        group = self._groups.get(place)
        count, latest, acc = (0, timestamp, fold.zero()) if group is None else group
        beside = None if self._beside is None else fold.beside(self._beside, place)
        if less is not None:
            acc, count = fold.subtract(acc, less, beside or fold.beside(None, place)), count - 1
        if more is not None:
            acc, count = fold.add(acc, more, beside), count + 1
        if count == 0:
            self._leave(key, place)
            return
        self._groups.put(place, [count, max(latest, timestamp), acc])
        if self._table is not None:
            self._table.put(key, fold.result(acc, beside))

    def _leave(self, key: bytes, place: bytes) -> None:
        self._groups.delete(place)
        if self._beside is not None:
            self._fold.drop(self._beside, place)
        if self._table is not None:
            self._table.delete(key)

    def advance(self, watermark: int) -> None:
        """Give each group at the end, in key order."""
        if watermark < END_OF_TIME or self._groups.get(ENDED):
            return
        groups = list(self._groups.scan()) if self._results.is_read() else []
        self._groups.put(ENDED, 1)
        for place, (_, latest, acc) in groups:
            key = split_prefix(place)
            values = self._fold.result(acc, self._fold.beside(self._beside, place))
            self._context.emit(key, {"key": self._results.key(key), **values}, latest)
