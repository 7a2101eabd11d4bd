"""CountAggregate: aggregates over each n records of a key, in merged order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.core.windowed import split_prefix, window_key, window_prefix
from headwater.stream.closing import Closing
from headwater.stream.operator import END_OF_TIME, Operator
from headwater.stream.running import BESIDE, ENDED, GROUPS

if TYPE_CHECKING:
    from headwater.stream.fold import Fold
    from headwater.stream.operator import Context, State
    from headwater.stream.results import Results
    from headwater.stream.window import Count


class CountAggregate(Operator):
    """One row a key and run of n records; its bounds are record numbers [start, end).

    State `groups`: by encoded key [records so far, greatest event time in the window, accumulator]. A window is closed by
    its last record, whose turn it is in merged order; END-OF-TIME closes those that are not full.
    """

    def __init__(self, window: Count, fold: Fold, results: Results) -> None:
        """Take the size, what is folded, and where results go."""
        self._size = window.size
        self._fold = fold
        self._results = results

    def open(self, context: Context) -> None:
        """Take the states."""
        self._groups: State = context.state(GROUPS)
        self._beside: State | None = context.state(BESIDE) if self._fold.grows else None
        self._closing = Closing(context, self._results)

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Add the record; the n-th closes the window."""
        if value is None:
            return
        key = self._results.group(key)
        fold = self._fold
        inputs = fold.inputs(value)
        place = window_prefix(key)
        there = self._groups.get(place)
        count, latest, acc = (0, timestamp, None) if there is None else there
        acc, latest = (fold.zero(), timestamp) if acc is None else (acc, max(latest, timestamp))
        rows = fold.beside(self._beside, place)
        acc = fold.add(acc, inputs, rows)
        start = count - count % self._size
        window = window_key(key, start, start + self._size)
        count += 1
        if count % self._size:
            self._groups.put(place, [count, latest, acc])
            if self._closing.table is not None:
                self._closing.table.put(window, (fold.result(acc, rows), False))
            return
        self._close(place, window, latest, fold.result(acc, rows))
        self._groups.put(place, [count, latest, None])

    def advance(self, watermark: int) -> None:
        """Close what is not full at the end, in key order."""
        if watermark < END_OF_TIME or self._groups.get(ENDED):
            return
        groups = list(self._groups.scan())
        self._groups.put(ENDED, 1)
        for place, (count, latest, acc) in groups:
            if acc is None:
                continue
            start = count - count % self._size
            window = window_key(split_prefix(place), start, start + self._size)
            self._close(place, window, latest, self._fold.result(acc, self._fold.beside(self._beside, place)))
            self._groups.put(place, [start + self._size, latest, None])

    def _close(self, place: bytes, window: bytes, latest: int, values: dict[str, Any]) -> None:
        self._closing.close(window, 0, values, time=latest)
        if self._beside is not None:
            self._fold.drop(self._beside, place)
