"""SlidingAggregate: for each record's time t, aggregates over the records of its key in [t - size, t]."""

from __future__ import annotations

import heapq
from struct import Struct
from typing import TYPE_CHECKING, Any

from headwater.core.windowed import split_prefix, window_key, window_prefix
from headwater.stream.closing import Closing
from headwater.stream.operator import END_OF_TIME, Operator
from headwater.stream.running import GROUPS

if TYPE_CHECKING:
    from headwater.stream.fold import Fold
    from headwater.stream.kept import Kept
    from headwater.stream.operator import Context, State
    from headwater.stream.results import Results
    from headwater.stream.window import Sliding

_PLACE = Struct(">QQ")
_OFFSET = 1 << 63

_CLOSED_TO = b""
"""The row of `groups` that has the end of the last window that was closed; no record has an empty place."""


class SlidingAggregate(Operator):
    """One row a key and event time t, over [t - size, t]: the span [t - size, t + 1).

    State `groups`: by encoded key, time and number what the aggregates take of each record, kept until no window can hold
    it any more (or the whole value, for a user's own aggregates). Each window is folded anew from its records in the order
    of event time, so that what has left it leaves nothing behind.
    """

    def __init__(self, window: Sliding, fold: Fold, results: Results, kept: Kept) -> None:
        """Take the size, what is folded, where results go, and how values are kept."""
        self._kept_as = kept
        self._size = window.size_ms
        self._fold = fold
        self._results = results

    def open(self, context: Context) -> None:
        """Take the state, and the open windows and kept records from it."""
        self._context = context
        self._groups: State = context.state(GROUPS)
        self._closing = Closing(context, self._results)
        # Windows by their end, and records by when they go. Windows are closed in the order of their ends.
        self._open: list[tuple[int, bytes]] = []
        self._kept: list[tuple[int, bytes]] = []
        closed_to = self._groups.get(_CLOSED_TO)
        for place, _ in self._groups.scan():
            if place == _CLOSED_TO:
                continue
            time = _PLACE.unpack(place[-16:])[0] - _OFFSET
            self._kept.append((time + self._size, place))
            if closed_to is None or time + 1 > closed_to:
                self._open.append((time + 1, place[:-8]))
        self._open = sorted(set(self._open))
        heapq.heapify(self._kept)
        self._set_due()

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Keep the record, begin its window, and fold the windows anew that hold it."""
        if value is None:
            return
        key = self._results.group(key)
        if timestamp + 1 + self._results.grace_ms <= max(watermark, self._context.watermark):
            self._context.late()
            return
        row = self._kept_as.keep(value) if self._fold.takes_values else self._fold.inputs(value)
        prefix = window_prefix(key)
        instant = prefix + (timestamp + _OFFSET).to_bytes(8, "big")
        # The number after the last of the same time: rows of one time stay in the order they came in.
        number = 0
        for place, _ in self._groups.scan(instant):
            number = _PLACE.unpack(place[-16:])[1] + 1
        place = instant + number.to_bytes(8, "big")
        self._groups.put(place, row)
        heapq.heappush(self._kept, (timestamp + self._size, place))
        if number == 0:
            heapq.heappush(self._open, (timestamp + 1, instant))
        self._set_due()
        if self._closing.table is not None:
            self._show(key, prefix, timestamp)

    def _show(self, key: bytes, prefix: bytes, timestamp: int) -> None:
        """Put the open windows that hold a record of this time into the table."""
        seen = None
        for place, _ in list(self._groups.scan(prefix, prefix + (timestamp + _OFFSET).to_bytes(8, "big"))):
            time = _PLACE.unpack(place[-16:])[0] - _OFFSET
            if time > timestamp + self._size:
                break
            if time != seen:
                seen = time
                assert self._closing.table is not None
                window = window_key(key, time - self._size, time + 1)
                self._closing.table.put(window, (self._folded(prefix, time), False))

    def _folded(self, prefix: bytes, time: int) -> dict[str, Any]:
        """Return the aggregates over [time - size, time]."""
        rows = []
        first = max(time - self._size, -_OFFSET)
        for place, row in self._groups.scan(prefix, prefix + (first + _OFFSET).to_bytes(8, "big")):
            if _PLACE.unpack(place[-16:])[0] - _OFFSET > time:
                break
            rows.append(self._fold.inputs(self._kept_as.back(row)) if self._fold.takes_values else row)
        return self._fold.fold(rows)

    def advance(self, watermark: int) -> None:
        """Close windows in the order of end, key; then let records go that no window can hold."""
        grace = self._results.grace_ms
        while self._open and (watermark == END_OF_TIME or self._open[0][0] + grace <= watermark):
            end, instant = self._open[0]
            time, prefix = end - 1, instant[:-8]
            if self._groups.get(instant + bytes(8)) is not None:
                window = window_key(split_prefix(prefix), time - self._size, end)
                self._closing.close(window, end, self._folded(prefix, time))
                self._groups.put(_CLOSED_TO, end)
            heapq.heappop(self._open)
        # A record that isn't late has a time from watermark - grace on, and looks back by the size.
        while self._kept and (watermark == END_OF_TIME or self._kept[0][0] + grace < watermark):
            _, place = heapq.heappop(self._kept)
            self._groups.delete(place)
        self._closing.advance(watermark)
        self._set_due()

    def _set_due(self) -> None:
        grace = self._results.grace_ms
        due = self._open[0][0] + grace if self._open else END_OF_TIME
        if self._kept:
            due = min(due, self._kept[0][0] + grace + 1)
        self.due = min(due, self._closing.due)
