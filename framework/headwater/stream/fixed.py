"""FixedAggregate: aggregates by key in windows whose bounds are known ahead: tumbling, hopping, calendar."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from headwater.core.windowed import split_window_key, window_key
from headwater.stream.closing import Closing
from headwater.stream.operator import END_OF_TIME, Operator
from headwater.stream.running import BESIDE, GROUPS

if TYPE_CHECKING:
    from headwater.stream.fold import Fold
    from headwater.stream.operator import Context, State
    from headwater.stream.results import Results
    from headwater.stream.window import FixedWindow


class FixedAggregate(Operator):
    """One row a key and window.

    State `groups`: by window key the accumulator of an open window. A window is closed once the task's watermark reaches
    its end plus the grace: then its row is final, its result goes out, and its state goes.
    """

    def __init__(self, window: FixedWindow, fold: Fold, results: Results) -> None:
        """Take the windows, what is folded, and where results go."""
        self._spans = window.spans
        self._fold = fold
        self._results = results

    def open(self, context: Context) -> None:
        """Take the states, and the ends of the open windows from them."""
        self._context = context
        self._groups: State = context.state(GROUPS)
        self._beside: State | None = context.state(BESIDE) if self._fold.grows else None
        self._closing = Closing(context, self._results)
        self._open = [(split_window_key(place)[2], place) for place, _ in self._groups.scan()]
        heapq.heapify(self._open)
        self._set_due()

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Add the record to its windows; it is late where all of them are closed."""
        if value is None:
            return
        key = self._results.group(key)
        spans = self._spans(timestamp)
        closed_to = max(watermark, self._context.watermark) - self._results.grace_ms
        if spans[-1][1] <= closed_to:
            self._context.late()
            return
        fold, groups, table, beside = self._fold, self._groups, self._closing.table, self._beside
        inputs = fold.inputs(value)
        for start, end in spans:
            if end <= closed_to:
                continue
            place = window_key(key, start, end)
            there = groups.get(place)
            rows = None if beside is None else fold.beside(beside, place)
            acc = fold.add(fold.zero() if there is None else there, inputs, rows)
            groups.put(place, acc)
            if there is None:
                heapq.heappush(self._open, (end, place))
                self._set_due()
            if table is not None:
                table.put(place, (fold.result(acc, rows), False))

    def advance(self, watermark: int) -> None:
        """Close the windows that are due in the order of end, key, start; then let closed ones leave."""
        grace = self._results.grace_ms
        while self._open and (watermark == END_OF_TIME or self._open[0][0] + grace <= watermark):
            end, place = self._open[0]
            acc = self._groups.get(place)
            # A window whose only record failed was undone in the state, but not here.
            if acc is not None:
                values = self._fold.result(acc, self._fold.beside(self._beside, place))
                self._closing.close(place, end, values)
                self._groups.delete(place)
                if self._beside is not None:
                    self._fold.drop(self._beside, place)
            heapq.heappop(self._open)
        self._closing.advance(watermark)
        self._set_due()

    def _set_due(self) -> None:
        due = self._open[0][0] + self._results.grace_ms if self._open else END_OF_TIME
        self.due = min(due, self._closing.due)
