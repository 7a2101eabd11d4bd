"""AsOfJoin: takes a stream's records to the latest row of a table that is not younger than they are, by event time.

Protocol
1. A record waits until the watermark has passed its event time: then all rows that may be meant are there.
2. A row that comes late, by its own source's watermark, counts from that watermark on: whatever was answered before it stays.
3. Of a key's rows that no waiting or coming record can mean, none is kept.
"""

from __future__ import annotations

import heapq
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from headwater.core.errors import KeyRefusedError
from headwater.core.windowed import split_prefix, window_prefix
from headwater.stream.operator import END_OF_TIME, Operator

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.stream.kept import Kept
    from headwater.stream.operator import Context, State

ROWS = "rows"
_WAITING, _VERSION, _NEXT = b"W", b"V", b"N"
_OFFSET = 1 << 63
_LAST = b"\xff" * 8
"""Behind all numbers."""


class AsOfJoin(Operator):
    """Joins inlet 0, a stream, with inlet 1: the records that make a table, or its changes.

    State `rows`: records that wait, by encoded key, event time and number; versions by encoded key, the time from which they count
    and number: [row or None (deleted), its event time]; and the next number.
    """

    def __init__(
        self,
        name: str,
        select: Callable[[Any, Any], Any],
        kept: tuple[Kept, Kept],
        *,
        left_alone: bool,
        tolerance_ms: int | None = None,
        changes: bool = False,
    ) -> None:
        """Take the declaration, and how each side's values are kept. `changes`: inlet 1 has {"key", "old", "new"}."""
        self._name = name
        self._select = select
        self._kept = kept
        self._alone = left_alone
        self._tolerance = tolerance_ms
        self._changes = changes

    def open(self, context: Context) -> None:
        """Take the state, and what waits in it."""
        self._context = context
        self._rows: State = context.state(ROWS)
        self._waiting = [(_time(place), place) for place, _ in self._rows.scan(_WAITING)]
        heapq.heapify(self._waiting)
        self._set_due()

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Have a record wait; note a row."""
        if key is None:
            raise KeyRefusedError(
                f"join {self._name!r} compares keys, and this record has none; say on=…, or filter it out"
            )
        if inlet == 1:
            self._note(key, value, timestamp, watermark)
            return
        if value is None:
            return
        if timestamp < max(watermark, self._context.watermark):
            self._context.late()
            return
        place = self._place(_WAITING, key, timestamp)
        self._rows.put(place, self._kept[0].keep(value))
        heapq.heappush(self._waiting, (timestamp, place))
        self._set_due()

    def _note(self, key: bytes, value: Any, timestamp: int, watermark: int) -> None:
        row = value["new"] if self._changes and value is not None else value
        kept = None if row is None else self._kept[1].keep(row)
        prefix = _VERSION + window_prefix(key)
        counts_from = max(timestamp, watermark, self._context.watermark)
        # Of the rows that the watermark has passed only the latest can still be meant.
        reached = self._context.watermark
        passed = [
            (found[1], place)
            for place, found in takewhile(lambda row: _time(row[0]) <= reached, self._rows.scan(prefix))
        ]
        for found in sorted(passed, key=_first)[:-1]:
            self._rows.delete(found[1])
        if counts_from > timestamp:
            self._context.late()
        self._rows.put(self._place(_VERSION, key, counts_from), [kept, timestamp])

    def advance(self, watermark: int) -> None:
        """Answer the records whose event time the watermark has passed, in the order of event time, key, arrival."""
        while self._waiting and (watermark == END_OF_TIME or self._waiting[0][0] < watermark):
            time, place = self._waiting[0]
            kept = self._rows.get(place)
            if kept is not None:
                self._answer(place, kept, time)
                self._rows.delete(place)
            heapq.heappop(self._waiting)
        self._set_due()

    def _answer(self, place: bytes, kept: Any, time: int) -> None:
        value = self._kept[0].back(kept)
        prefix = _VERSION + place[1:-16]
        found = None
        for version, row in self._rows.scan_back(prefix, prefix + _stamp(time) + _LAST):
            if found is None or row[1] > found[1]:
                found = row
            # No row counts before its own event time: those further back are older than this one.
            if _time(version) <= found[1]:
                break
        right = None
        if found is not None and found[0] is not None:
            in_reach = self._tolerance is None or time - found[1] <= self._tolerance
            right = self._kept[1].back(found[0]) if in_reach else None
        if right is not None or self._alone:
            self._context.emit(split_prefix(place[1:-16]), self._select(value, right), time)

    def _place(self, kind: bytes, key: bytes, time: int) -> bytes:
        number = self._rows.get(_NEXT) or 0
        self._rows.put(_NEXT, number + 1)
        return kind + window_prefix(key) + _stamp(time) + number.to_bytes(8, "big")

    def _set_due(self) -> None:
        self.due = min(END_OF_TIME, self._waiting[0][0] + 1) if self._waiting else END_OF_TIME


def _stamp(time: int) -> bytes:
    return (time + _OFFSET).to_bytes(8, "big")


def _time(place: bytes) -> int:
    return int.from_bytes(place[-16:-8], "big") - _OFFSET


def _first(pair: tuple[int, bytes]) -> int:
    return pair[0]
