"""SessionAggregate: aggregates over a key's records that are not further apart than a gap, in whatever order they come."""

from __future__ import annotations

import heapq
from struct import Struct
from typing import TYPE_CHECKING, Any

from headwater.core.windowed import split_prefix, window_key, window_prefix
from headwater.stream.closing import Closing
from headwater.stream.operator import END_OF_TIME, Operator
from headwater.stream.running import BESIDE, GROUPS

if TYPE_CHECKING:
    from headwater.stream.fold import Fold
    from headwater.stream.operator import Context, State
    from headwater.stream.results import Results
    from headwater.stream.window import Session

_NUMBER = Struct(">Q")


class SessionAggregate(Operator):
    """One row a key and session, [first, last + gap).

    State `groups`: by encoded key [next number, open sessions], each session [first, last, number, accumulator], in order
    of time. The number names the session's rows in `beside`, whatever it is merged with. A session is closed once the
    watermark is above its end plus the grace: a record at exactly the gap still belongs to it.
    """

    def __init__(self, window: Session, fold: Fold, results: Results) -> None:
        """Take the gap, what is folded, and where results go."""
        self._gap = window.gap_ms
        self._reach = window.reach_ms
        self._fold = fold
        self._results = results

    def open(self, context: Context) -> None:
        """Take the states, and the ends of the open sessions from them."""
        self._context = context
        self._groups: State = context.state(GROUPS)
        self._beside: State | None = context.state(BESIDE) if self._fold.grows else None
        self._closing = Closing(context, self._results)
        self._open = [
            (self._end(last), place, first)
            for place, (_, sessions) in self._groups.scan()
            for first, last, _, _ in sessions
        ]
        heapq.heapify(self._open)
        self._set_due()

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Add the record to its session, or begin one; sessions that it connects become one."""
        if value is None:
            return
        key = self._results.group(key)
        if timestamp + self._results.grace_ms < max(watermark, self._context.watermark):
            self._context.late()
            return
        fold, table = self._fold, self._closing.table
        inputs = fold.inputs(value)
        place = window_prefix(key)
        there = self._groups.get(place)
        number, sessions = (0, []) if there is None else there
        low = 0
        while low < len(sessions) and sessions[low][1] + self._reach < timestamp:
            low += 1
        high = low
        while high < len(sessions) and sessions[high][0] - self._reach <= timestamp:
            high += 1
        touched = sessions[low:high]
        if touched:
            first, last, own, acc = touched[0]
            rows = self._rows(place, own)
            for _, later, other, more in touched[1:]:
                others = self._rows(place, other)
                acc = fold.merge(acc, more, rows, others)
                self._drop(place, other)
                last = later
            first, last = min(first, timestamp), max(last, timestamp)
        else:
            first = last = timestamp
            own, number, acc = number, number + 1, fold.zero()
            rows = self._rows(place, own)
        acc = fold.add(acc, inputs, rows)
        session = [first, last, own, acc]
        self._groups.put(place, [number, [*sessions[:low], session, *sessions[high:]]])
        if table is not None:
            for was_first, was_last, _, _ in touched:
                if (was_first, was_last) != (first, last):
                    table.delete(window_key(key, was_first, self._end(was_last)))
            table.put(window_key(key, first, self._end(last)), (fold.result(acc, rows), False))
        if not (len(touched) == 1 and touched[0][0] == first and touched[0][1] == last):
            heapq.heappush(self._open, (self._end(last), place, first))
            self._set_due()

    def advance(self, watermark: int) -> None:
        """Close the sessions that are due in the order of end, key, start."""
        grace = self._results.grace_ms
        while self._open and (watermark == END_OF_TIME or self._open[0][0] + grace < watermark):
            end, place, first = self._open[0]
            self._close(end, place, first)
            heapq.heappop(self._open)
        self._closing.advance(watermark)
        self._set_due()

    def _close(self, end: int, place: bytes, first: int) -> None:
        there = self._groups.get(place)
        number, sessions = (0, []) if there is None else there
        for at, (begin, last, own, acc) in enumerate(sessions):
            # Where it has grown since, or was merged, another entry says when it ends.
            if begin == first and self._end(last) == end:
                values = self._fold.result(acc, self._rows(place, own))
                self._closing.close(window_key(split_prefix(place), first, end), end, values)
                self._drop(place, own)
                left = [*sessions[:at], *sessions[at + 1 :]]
                if left:
                    self._groups.put(place, [number, left])
                else:
                    self._groups.delete(place)
                return

    def _end(self, last: int) -> int:
        return last + self._gap

    def _rows(self, place: bytes, number: int) -> list[Any]:
        return self._fold.beside(self._beside, place + _NUMBER.pack(number))

    def _drop(self, place: bytes, number: int) -> None:
        if self._beside is not None:
            self._fold.drop(self._beside, place + _NUMBER.pack(number))

    def _set_due(self) -> None:
        due = self._open[0][0] + self._results.grace_ms + 1 if self._open else END_OF_TIME
        self.due = min(due, self._closing.due)
