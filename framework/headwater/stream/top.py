"""Top: the best n records of each key, or of each key and window, with their ranks."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any

from headwater.core.keys import encode_key
from headwater.core.windowed import split_prefix, split_window_key, window_key, window_prefix
from headwater.stream.aggregate import orderable, plain
from headwater.stream.operator import END_OF_TIME, Operator
from headwater.stream.plan import getter
from headwater.stream.running import ENDED, GROUPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.stream.operator import Context, State, TableRows
    from headwater.stream.results import Results
    from headwater.stream.window import FixedWindow


class Descending:
    """Wraps what is ordered from the greatest down."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        """Take what is compared."""
        self.value = value

    def __lt__(self, other: Descending) -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Descending) and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash(self.value)


class Ranking:
    """What is best: the greatest (or least) `by`, of equal ones the least `ties`, of those the first in merged order.

    `keep_ties`: those equal by `by` share a rank (the number of better ones plus one), and all that are equal to the last
    are kept. `rank`: the name under which a value holds its rank.
    """

    __slots__ = ("_by_of", "_ties_of", "descending", "keep_ties", "rank", "size")

    def __init__(
        self,
        size: int,
        by: str | Callable[[Any], Any],
        *,
        ties: str | Callable[[Any], Any] | None = None,
        descending: bool = True,
        keep_ties: bool = False,
        rank: str = "rank",
    ) -> None:
        """Take a checked declaration."""
        self.size = size
        self.descending = descending
        self.keep_ties = keep_ties
        self.rank = rank
        self._by_of = getter(by)
        self._ties_of = None if ties is None else getter(ties)

    def row(self, value: Any) -> list[Any]:
        """Return [by, ties, plain value] of a record. Runs the user's functions."""
        ties = None if self._ties_of is None else orderable(self._ties_of(value))
        return [orderable(self._by_of(value)), ties, plain(value)]

    def with_row(self, rows: list[list[Any]], row: list[Any]) -> list[list[Any]]:
        """Return the best of some rows, best first, and one more; the same list where it isn't among them."""
        at = bisect_right(rows, self._order(row), key=self._order)
        if not self.keep_ties:
            return rows if at >= self.size else [*rows[:at], row, *rows[at:]][: self.size]
        found = [*rows[:at], row, *rows[at:]]
        if len(found) <= self.size:
            return found
        worst = self._by(found[self.size - 1])
        end = bisect_right(found, worst, key=self._by)
        return rows if at >= end else found[:end]

    def ranked(self, rows: list[list[Any]], skip: int = 0) -> list[tuple[int, dict[str, Any]]]:
        """Return (place from 1, value with its rank) of the best rows behind the first `skip`."""
        found = []
        for place, row in enumerate(rows[skip:], skip + 1):
            rank = bisect_left(rows, self._by(row), key=self._by) + 1 if self.keep_ties else place
            value = row[2] if isinstance(row[2], dict) else {"value": row[2]}
            found.append((place, {**value, self.rank: rank}))
        return found

    def _by(self, row: list[Any]) -> Any:
        return Descending(row[0]) if self.descending else row[0]

    def _order(self, row: list[Any]) -> Any:
        return self._by(row) if self._ties_of is None else (self._by(row), row[1])

    def changes(self, old: list[list[Any]], new: list[list[Any]]) -> list[tuple[int, dict[str, Any] | None]]:
        """Return (place, value with its rank) of what differs between two lists of best rows; None: no row any more."""
        # Where ranks are places, all is as it was ahead of the first row that differs.
        same = 0
        if not self.keep_ties:
            while same < min(len(old), len(new)) and old[same] is new[same]:
                same += 1
        before = dict(self.ranked(old, same))
        found: list[tuple[int, dict[str, Any] | None]] = [
            (place, value) for place, value in self.ranked(new, same) if before.get(place) != value
        ]
        return found + [(place, None) for place in range(len(new) + 1, len(old) + 1)]


class Top(Operator):
    """The best of each key, as of the last record. Table rows are by [key, place]; they change only where they differ.

    State `groups`: by encoded key [greatest event time, best rows]. Results as a stream: each group's rows, at END-OF-TIME.
    """

    def __init__(self, ranking: Ranking, results: Results) -> None:
        """Take what is best, and where results go."""
        self._ranking = ranking
        self._results = results

    def open(self, context: Context) -> None:
        """Take the state."""
        self._context = context
        self._groups: State = context.state(GROUPS)
        table = self._results.table
        self._table: TableRows | None = None if table is None else context.table(table)

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Rank the record."""
        if value is None:
            return
        key = self._results.group(key)
        ranking = self._ranking
        row = ranking.row(value)
        place = window_prefix(key)
        there = self._groups.get(place)
        latest, rows = (timestamp, []) if there is None else there
        best = ranking.with_row(rows, row)
        if best is rows:
            return
        self._groups.put(place, [max(latest, timestamp), best])
        if self._table is None:
            return
        shown = self._results.key(key)
        for number, ranked in ranking.changes(rows, best):
            if ranked is None:
                self._table.delete(_row_key(shown, number))
            else:
                self._table.put(_row_key(shown, number), ranked)

    def advance(self, watermark: int) -> None:
        """Give each key's rows at the end, in key order."""
        if watermark < END_OF_TIME or self._groups.get(ENDED):
            return
        groups = list(self._groups.scan()) if self._results.is_read() else []
        self._groups.put(ENDED, 1)
        for place, (latest, rows) in groups:
            key = split_prefix(place)
            shown = {"key": self._results.key(key)}
            for _, ranked in self._ranking.ranked(rows):
                self._context.emit(key, {**shown, **ranked}, latest)


class WindowedTop(Operator):
    """The best of each key and window. Table rows are by ([key, place], start, end).

    State `groups`: by window key the best rows of an open window. Results as a stream: the rows of a closed window by rank.
    """

    def __init__(self, window: FixedWindow, ranking: Ranking, results: Results) -> None:
        """Take the windows, what is best, and where results go."""
        self._spans = window.spans
        self._ranking = ranking
        self._results = results

    def open(self, context: Context) -> None:
        """Take the states, and the ends of the open windows from them."""
        self._context = context
        self._groups: State = context.state(GROUPS)
        table = self._results.table
        self._table: TableRows | None = None if table is None else context.table(table)
        self._is_read = self._results.is_read()
        self._open = [(split_window_key(place)[2], place) for place, _ in self._groups.scan()]
        heapq.heapify(self._open)
        self._closed: list[tuple[int, bytes]] = []
        if self._table is not None and self._results.expires_ms is not None:
            self._closed = [
                (split_window_key(place)[2], place) for place, (_, final) in self._table.scan() if final
            ]
            heapq.heapify(self._closed)
        self._set_due()

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Rank the record in its windows; it is late where all of them are closed."""
        if value is None:
            return
        key = self._results.group(key)
        spans = self._spans(timestamp)
        closed_to = max(watermark, self._context.watermark) - self._results.grace_ms
        if spans[-1][1] <= closed_to:
            self._context.late()
            return
        row = self._ranking.row(value)
        for start, end in spans:
            if end <= closed_to:
                continue
            place = window_key(key, start, end)
            rows = self._groups.get(place)
            best = self._ranking.with_row([] if rows is None else rows, row)
            if best is rows:
                continue
            self._groups.put(place, best)
            if rows is None:
                heapq.heappush(self._open, (end, place))
                self._set_due()
            if self._table is not None:
                self._show(place, [] if rows is None else rows, best, final=False)

    def _show(self, place: bytes, old: list[list[Any]], rows: list[list[Any]], *, final: bool) -> None:
        assert self._table is not None
        key, start, end = split_window_key(place)
        shown = self._results.key(key)
        for number, ranked in self._ranking.changes(old, rows):
            row = window_key(_row_key(shown, number), start, end)
            if ranked is None:
                self._table.delete(row)
                continue
            self._table.put(row, (ranked, final))
            if final and self._results.expires_ms is not None:
                heapq.heappush(self._closed, (end, row))

    def advance(self, watermark: int) -> None:
        """Close the windows that are due in the order of end, key, start; then let closed ones leave."""
        grace = self._results.grace_ms
        while self._open and (watermark == END_OF_TIME or self._open[0][0] + grace <= watermark):
            _, place = self._open[0]
            rows = self._groups.get(place)
            if rows is not None:
                self._close(place, rows)
            heapq.heappop(self._open)
        if watermark != END_OF_TIME:
            while self._closed and self._expiry(self._closed[0][0]) <= watermark:
                assert self._table is not None
                self._table.delete(heapq.heappop(self._closed)[1])
        self._set_due()

    def _close(self, place: bytes, rows: list[list[Any]]) -> None:
        if self._table is not None:
            self._show(place, [], rows, final=True)
        if self._is_read:
            key, start, end = split_window_key(place)
            shown = {"key": self._results.key(key), "start": start, "end": end}
            for _, ranked in self._ranking.ranked(rows):
                self._context.emit(key, {**shown, **ranked}, end - 1)
        self._groups.delete(place)

    def _expiry(self, end: int) -> int:
        return end + self._results.grace_ms + (self._results.expires_ms or 0)

    def _set_due(self) -> None:
        self.due = self._open[0][0] + self._results.grace_ms if self._open else END_OF_TIME
        if self._closed:
            self.due = min(self.due, self._expiry(self._closed[0][0]))


def _row_key(key: Any, place: int) -> bytes:
    data = encode_key([key, place])
    assert data is not None
    return data
