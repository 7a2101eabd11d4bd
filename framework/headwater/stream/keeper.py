"""WindowKeeper: closes the windows of a table that agents write, and has closed ones leave. Reads no records."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from headwater.core.windowed import split_window_key
from headwater.stream.closing import Closing
from headwater.stream.operator import END_OF_TIME, NEVER, Operator

if TYPE_CHECKING:
    from headwater.stream.operator import Context, TableRows
    from headwater.stream.results import Results
    from headwater.stream.window import FixedWindow


class WindowKeeper(Operator):
    """Keeps one table of windows. Whoever writes the table says which windows it opened."""

    def __init__(self, window: FixedWindow, results: Results) -> None:
        """Take the windows, and where results go."""
        self.window = window
        self.grace_ms = results.grace_ms
        self._results = results

    def open(self, context: Context) -> None:
        """Take the table, and the ends of its open windows from it."""
        assert self._results.table is not None
        self.context = context
        self._closing = Closing(context, self._results)
        self._table: TableRows = context.table(self._results.table)
        self._open = [
            (split_window_key(place)[2], place) for place, (_, final) in self._table.scan() if not final
        ]
        heapq.heapify(self._open)
        self._set_due()

    def opened(self, place: bytes, end: int) -> None:
        """Note a window that has its first value."""
        heapq.heappush(self._open, (end, place))
        self._set_due()

    def crosses(self, before: int, after: int) -> bool:
        """Whether windows may close where the task's watermark goes from one to the other: agents stop there."""
        if NEVER in (before, after) or after == END_OF_TIME:
            return before != after
        return self.window.spans(before - self.grace_ms)[0][1] <= after - self.grace_ms

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Take no records: there are no inlets."""
        raise AssertionError("a keeper has no inlets")

    def advance(self, watermark: int) -> None:
        """Close the windows that are due in the order of end, key, start; then let closed ones leave."""
        while self._open and (watermark == END_OF_TIME or self._open[0][0] + self.grace_ms <= watermark):
            end, place = heapq.heappop(self._open)
            row = self._table.get(place)
            # A window whose only record failed was undone in the table, but not here; one that was deleted is gone.
            if row is not None and not row[1]:
                self._closing.close(place, end, row[0])
        self._closing.advance(watermark)
        self._set_due()

    def _set_due(self) -> None:
        due = self._open[0][0] + self.grace_ms if self._open else END_OF_TIME
        self.due = min(due, self._closing.due)
