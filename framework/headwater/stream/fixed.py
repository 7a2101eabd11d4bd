"""FixedAggregate: aggregates by key in windows whose bounds are known ahead: tumbling, hopping, calendar."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from headwater.core.windowed import split_window_key, window_key
from headwater.stream.closing import Closing
from headwater.stream.operator import END_OF_TIME, Operator
from headwater.stream.results import SHOWN_MAX
from headwater.stream.running import BESIDE, GROUPS

if TYPE_CHECKING:
    from headwater.stream.fold import Fold
    from headwater.stream.operator import Context, State
    from headwater.stream.results import Results
    from headwater.stream.window import FixedWindow

Opened = tuple[int, bytes, int, bytes]
"""A window: its end, its place in the state, its start, its key. Places are in the order of key and start."""


class FixedAggregate(Operator):
    """One row a key and window.

    State `groups`: by window key the accumulator of an open window. A window is closed once the task's watermark reaches
    its end plus the grace: then its row is final, its result goes out, and its state goes.
    """

    def __init__(self, window: FixedWindow, fold: Fold, results: Results) -> None:
        """Take the windows, what is folded, and where results go."""
        self._window = window
        self._fold = fold
        self._results = results
        # By key times that are in the same windows as its last record, and these windows: the next one is nearly always there.
        self._last: dict[bytes | None, tuple[int, int, tuple[Opened, ...]]] = {}

    def open(self, context: Context) -> None:
        """Take the states, and the ends of the open windows from them."""
        self._context = context
        self._groups: State = context.state(GROUPS)
        self._beside: State | None = context.state(BESIDE) if self._fold.grows else None
        self._closing = Closing(context, self._results)
        self._open: list[Opened] = []
        for place, _ in self._groups.scan():
            key, start, end = split_window_key(place)
            self._open.append((end, place, start, key))
        heapq.heapify(self._open)
        self._set_due()

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Add the record to its windows; it is late where all of them are closed."""
        if value is None:
            return
        # What the task has closed is closed, even for the first record of an input.
        if watermark < self._context.watermark:
            watermark = self._context.watermark
        closed_to = watermark - self._results.grace_ms
        last = self._last.get(key)
        if last is None or not last[0] <= timestamp < last[1]:
            last = self._find(key, timestamp)
        windows = last[2]
        if windows[-1][0] <= closed_to:
            self._context.late()
        elif len(windows) > 1 or self._beside is not None:
            inputs = self._fold.inputs(value)
            for window in windows:
                if window[0] > closed_to:
                    self._add(window, value, inputs)
        elif self._closing.table is not None:
            self._add(windows[0], value, None)
        else:
            # As `_add`, written out: a third less a record.
            groups, place = self._groups, windows[0][1]
            there = groups.get(place)
            if there is not None:
                groups.put(place, self._fold.step(there, value))
            else:
                groups.put(place, self._fold.step(self._fold.zero(), value))
                self._begin(windows[0])

    def _find(self, key: bytes | None, timestamp: int) -> tuple[int, int, tuple[Opened, ...]]:
        data = self._results.group(key)
        spans = self._window.spans(timestamp)
        windows = tuple([(end, window_key(data, start, end), start, data) for start, end in spans])
        if len(self._last) >= SHOWN_MAX:
            self._last.clear()
        found = self._last[key] = (*self._window.alike(timestamp, spans), windows)
        return found

    def _add(self, window: Opened, value: Any, inputs: list[Any] | None) -> None:
        """Add a record to one window; `inputs` are what the aggregates take of it, where they are known."""
        fold, beside, place = self._fold, self._beside, window[1]
        there = self._groups.get(place)
        acc = fold.zero() if there is None else there
        rows = None if beside is None else fold.beside(beside, place)
        acc = fold.step(acc, value) if inputs is None else fold.add(acc, inputs, rows)
        self._groups.put(place, acc)
        if there is None:
            self._begin(window)
        if self._closing.table is not None:
            self._closing.table.put(place, (fold.result(acc, rows), False))

    def _begin(self, window: Opened) -> None:
        heapq.heappush(self._open, window)
        if window[0] + self._results.grace_ms < self.due:
            self._set_due()

    def advance(self, watermark: int) -> None:
        """Close the windows that are due in the order of end, key, start; then let closed ones leave."""
        grace, fold, groups, beside = self._results.grace_ms, self._fold, self._groups, self._beside
        closing, waiting = self._closing, self._open
        bare = closing.table is None
        while waiting and (watermark == END_OF_TIME or waiting[0][0] + grace <= watermark):
            end, place, start, key = waiting[0]
            acc = groups.get(place)
            # A window whose only record failed was undone in the state, but not here.
            if acc is not None:
                values = fold.result(acc, None if beside is None else fold.beside(beside, place))
                if not bare:
                    closing.close(place, end, values)
                elif closing.is_read:
                    shown = {"key": self._results.key(key), "start": start, "end": end}
                    self._context.emit(key, shown | values, end - 1)
                groups.delete(place)
                if beside is not None:
                    fold.drop(beside, place)
            heapq.heappop(waiting)
        self._closing.advance(watermark)
        self._set_due()

    def _set_due(self) -> None:
        due = self._open[0][0] + self._results.grace_ms if self._open else END_OF_TIME
        self.due = min(due, self._closing.due)
