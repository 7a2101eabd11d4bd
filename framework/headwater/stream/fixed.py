"""FixedAggregate: aggregates by key in windows whose bounds are known ahead: tumbling, hopping, calendar."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from headwater.core import hot
from headwater.core.tumbling import Held, Made
from headwater.core.windowed import split_window_key, window_key
from headwater.stream.closing import Closing
from headwater.stream.operator import END_OF_TIME, Operator
from headwater.stream.results import SHOWN_MAX
from headwater.stream.running import BESIDE, GROUPS
from headwater.stream.window import Tumbling

if TYPE_CHECKING:
    from headwater.core.tumbling import WorkColumns
    from headwater.stream.fold import Fold
    from headwater.stream.operator import Context, State
    from headwater.stream.results import Results
    from headwater.stream.window import FixedWindow

Opened = tuple[int, bytes]
"""A window: its end, and its place in the state. Places of one end are in the order of key and start."""


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
        # By end the windows that wait for it, and a heap of these ends.
        self._waiting: dict[int, list[bytes]] = {}
        self._ends: list[int] = []
        for place, _ in self._groups.scan():
            self._waiting.setdefault(split_window_key(place).end, []).append(place)
        self._ends = sorted(self._waiting)
        self._set_due()
        self._tumbling = None
        if hot.is_compiled and type(self._window) is Tumbling and self._closing.table is None:
            self._tumbling = self._fold.tumbling(self._window, self._results, is_read=self._closing.is_read)
        self.takes_many = self._tumbling is not None

    def take(self, columns: WorkColumns, at: int) -> int:
        """Take records that are not late and don't fail, where the state is in memory and results go to no table."""
        in_hand = self._groups.in_hand()
        if self._tumbling is None or in_hand is None:
            return at
        held = Held(*in_hand, self._waiting, self._ends)
        made = Made([], [], [], [])
        at = hot.fold_windows(self._tumbling, held, columns, at, self._context.watermark, made)
        if made.rows:
            self._context.emit_all(made)
        self._set_due()
        return at

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
        windows = tuple([(end, window_key(data, start, end)) for start, end in spans])
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
        end, place = window
        places = self._waiting.get(end)
        if places is not None:
            places.append(place)
            return
        self._waiting[end] = [place]
        heapq.heappush(self._ends, end)
        if end + self._results.grace_ms < self.due:
            self._set_due()

    def advance(self, watermark: int) -> None:
        """Close the windows that are due in the order of end, key, start; then let closed ones leave."""
        grace, fold, groups, beside = self._results.grace_ms, self._fold, self._groups, self._beside
        ends = self._ends
        while ends and (watermark == END_OF_TIME or ends[0] + grace <= watermark):
            end = heapq.heappop(ends)
            for place in sorted(self._waiting.pop(end)):
                acc = groups.get(place)
                # A window whose only record failed was undone in the state, but not here.
                if acc is not None:
                    rows = None if beside is None else fold.beside(beside, place)
                    self._closing.close(place, end, fold.result(acc, rows))
                    groups.delete(place)
                    if beside is not None:
                        fold.drop(beside, place)
        self._closing.advance(watermark)
        self._set_due()

    def _set_due(self) -> None:
        due = self._ends[0] + self._results.grace_ms if self._ends else END_OF_TIME
        self.due = min(due, self._closing.due)
