"""IntervalJoin: pairs the records of two streams whose keys are equal and whose event times are near each other.

Protocol
1. A record is paired with those of the other side that are there, in the order of their event time, then of arrival; then
   it is kept itself. So each pair comes once, whichever side came first.
2. A record is kept until the watermark says that no partner can come that isn't late. A left one (for how="left" and
   "outer") or a right one ("outer") that never had a partner comes then, alone.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater.core.errors import KeyRefusedError, ValueRefusedError
from headwater.core.windowed import split_prefix, window_prefix
from headwater.stream.aggregate import orderable
from headwater.stream.operator import END_OF_TIME, NEVER, Operator

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.stream.kept import Kept
    from headwater.stream.operator import Context, State

ROWS = "rows"
LEFT, RIGHT = b"L", b"R"
_NEXT = b"N"
_OFFSET = 1 << 63
_BEFORE_ALL, _AFTER_ALL = NEVER, END_OF_TIME


@dataclass(frozen=True, slots=True)
class Range:
    """Which right event times a left record pairs with: [t - before, t + after], or what `of` gives for its value.

    `bounded`: False pairs all. `reach_ms`: how long before the left record's event time what `of` gives may begin.
    """

    bounded: bool = False
    before_ms: int = 0
    after_ms: int = 0
    of: Callable[[Any], Any] | None = None
    reach_ms: int = 0

    def around(self, time: int, value: Any) -> tuple[int, int]:
        """Return the first and the last right event time for a left record. Raises ValueRefusedError for what is none."""
        if not self.bounded:
            return _BEFORE_ALL, _AFTER_ALL
        if self.of is None:
            return time - self.before_ms, time + self.after_ms
        found = self.of(value)
        try:
            start, end = map(orderable, found)
        except (TypeError, ValueError):
            start = end = None
        if type(start) is not int or type(end) is not int:
            raise ValueRefusedError(
                f"within=… of a join gives the first and the last time (ms or datetimes) for a left value; found {found!r}"
            )
        if start < time - self.reach_ms:
            raise ValueRefusedError(
                f"within=… of a join begins {time - start} ms before the left record's event time, and right records are "
                f"kept for {self.reach_ms} ms; give the join reach=… as long as that"
            )
        return start, end

    def lefts(self, time: int) -> tuple[int, int]:
        """Return the first and the last event time of left records that may pair with a right one."""
        if not self.bounded:
            return _BEFORE_ALL, _AFTER_ALL
        return _BEFORE_ALL if self.of is not None else time - self.after_ms, time + self.back_ms

    @property
    def back_ms(self) -> int:
        """How much later than a right record a left one may come that pairs with it."""
        return self.reach_ms if self.of is not None else self.before_ms


@dataclass(frozen=True, slots=True)
class JoinRule:
    """A declared join: its range, sides that come alone, how a pair becomes a result, and a further condition."""

    name: str
    range: Range
    left_alone: bool
    right_alone: bool
    select: Callable[[Any, Any], Any]
    where: Callable[[Any, Any], Any] | None = None
    grace_ms: int = 0


class IntervalJoin(Operator):
    """Joins inlet 0, the left side, with inlet 1.

    State `rows`: by side, encoded key, event time (8 bytes) and number [value, had a partner], and of a left record the
    first and last time of its range; and the next number.
    """

    def __init__(self, rule: JoinRule, left: Kept, right: Kept) -> None:
        """Take the declaration, and how each side's values are kept."""
        self._rule = rule
        self._kept = (left, right)
        # Records leave when they can't be paired any more; where nothing bounds them, those that come alone do at the end.
        self._bounded = rule.range.bounded

    def open(self, context: Context) -> None:
        """Take the state, and when its rows leave."""
        self._context = context
        self._rows: State = context.state(ROWS)
        self._leaving: list[tuple[int, bytes]] = []
        if self._bounded:
            self._leaving = [
                (self._last_time(place, row), place)
                for side in (LEFT, RIGHT)
                for place, row in self._rows.scan(side)
            ]
            heapq.heapify(self._leaving)
        self._set_due()

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Pair the record, and keep it."""
        if value is None:
            return
        rule = self._rule
        if key is None:
            raise KeyRefusedError(
                f"join {rule.name!r} compares keys, and this record has none; say on=…, or filter it out"
            )
        if self._bounded and timestamp + rule.grace_ms < max(watermark, self._context.watermark):
            self._context.late()
            return
        kept = self._kept[inlet].keep(value)
        value = self._kept[inlet].back(kept)
        prefix = window_prefix(key)
        if inlet == 0:
            first, last = rule.range.around(timestamp, value)
            own, other = LEFT, RIGHT
            row = [kept, False, first, last]
        else:
            first, last = rule.range.lefts(timestamp)
            own, other = RIGHT, LEFT
            row = [kept, False]
        partners = self._partners(inlet, other + prefix, first, timestamp, last)
        results = []
        for place, there in partners:
            partner = self._kept[1 - inlet].back(there[0])
            left, right = (value, partner) if inlet == 0 else (partner, value)
            if rule.where is not None and not rule.where(left, right):
                continue
            time = int.from_bytes(place[-16:-8], "big") - _OFFSET
            results.append((place, there, rule.select(left, right), max(timestamp, time)))
        row[1] = bool(results)
        self._keep(own + prefix, timestamp, row)
        for place, there, result, time in results:
            if not there[1]:
                self._rows.put(place, [there[0], True, *there[2:]])
            self._context.emit(key, result, time)

    def _partners(
        self, inlet: int, prefix: bytes, first: int, time: int, last: int
    ) -> list[tuple[bytes, Any]]:
        """Return the rows of the other side that pair: for a left record by its range, for a right one by each row's."""
        found = []
        for place, row in self._rows.scan(prefix, prefix + _time_bytes(first)):
            if int.from_bytes(place[-16:-8], "big") - _OFFSET > last:
                break
            if inlet == 0 or row[2] <= time <= row[3]:
                found.append((place, row))
        return found

    def _keep(self, prefix: bytes, timestamp: int, row: list[Any]) -> None:
        number = self._rows.get(_NEXT) or 0
        self._rows.put(_NEXT, number + 1)
        place = prefix + (timestamp + _OFFSET).to_bytes(8, "big") + number.to_bytes(8, "big")
        self._rows.put(place, row)
        if self._bounded:
            heapq.heappush(self._leaving, (self._last_time(place, row), place))
            self._set_due()

    def _last_time(self, place: bytes, row: list[Any]) -> int:
        """Return the greatest event time of a partner."""
        if place[:1] == LEFT:
            return int(row[3])
        return int.from_bytes(place[-16:-8], "big") - _OFFSET + self._rule.range.back_ms

    def advance(self, watermark: int) -> None:
        """Let records leave that no partner can come for; those without give a result alone."""
        grace = self._rule.grace_ms
        while self._leaving and (watermark == END_OF_TIME or self._leaving[0][0] + grace < watermark):
            _, place = self._leaving[0]
            row = self._rows.get(place)
            if row is not None:
                self._alone(place, row)
                self._rows.delete(place)
            heapq.heappop(self._leaving)
        if watermark == END_OF_TIME and not self._bounded:
            self._end()
        self._set_due()

    def _end(self) -> None:
        """Give what is alone where nothing is bounded, left before right, and have it count as paired from then on."""
        for side, wanted in ((LEFT, self._rule.left_alone), (RIGHT, self._rule.right_alone)):
            if wanted:
                for place, row in list(self._rows.scan(side)):
                    self._alone(place, row)
                    self._rows.put(place, [row[0], True, *row[2:]])

    def _alone(self, place: bytes, row: list[Any]) -> None:
        if row[1]:
            return
        rule = self._rule
        if place[:1] == LEFT and rule.left_alone:
            result = rule.select(self._kept[0].back(row[0]), None)
        elif place[:1] == RIGHT and rule.right_alone:
            result = rule.select(None, self._kept[1].back(row[0]))
        else:
            return
        time = int.from_bytes(place[-16:-8], "big") - _OFFSET
        if rule.range.of is not None and place[:1] == LEFT:
            # How long a range may be is not known ahead: dated at its end, a result is never far behind the watermark.
            time = max(time, row[3])
        self._context.emit(split_prefix(place[1:-16]), result, time)

    def _set_due(self) -> None:
        grace = self._rule.grace_ms
        self.due = min(END_OF_TIME, self._leaving[0][0] + grace + 1) if self._leaving else END_OF_TIME


def _time_bytes(time: int) -> bytes:
    return (min(max(time, NEVER), END_OF_TIME) + _OFFSET).to_bytes(8, "big")
