"""Closing: how windows end: their row becomes final, their result goes out; later the row leaves, where rows expire."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from headwater.core.windowed import split_window_key
from headwater.stream.aggregate import plain
from headwater.stream.operator import END_OF_TIME

if TYPE_CHECKING:
    from headwater.stream.operator import Context, TableRows
    from headwater.stream.results import Results


class Closing:
    """What windows of all kinds do at their end.

    Invariant: `due` is the least watermark at which a closed row expires.
    """

    def __init__(self, context: Context, results: Results) -> None:
        """Take the table's rows; those that are closed and will expire are found in it."""
        self._context = context
        self._results = results
        self.is_read = results.is_read()
        self.table: TableRows | None = None if results.table is None else context.table(results.table)
        self._closed: list[tuple[int, bytes]] = []
        if self.table is not None and results.expires_ms is not None:
            self._closed = [
                (split_window_key(place)[2], place) for place, (_, final) in self.table.scan() if final
            ]
            heapq.heapify(self._closed)

    def close(self, place: bytes, end: int, value: Any, *, time: int | None = None) -> None:
        """Close a window: `place` is its window key, `time` its result's event time (end - 1).

        A value that is a dict goes out with key, start and end beside its own fields, any other as the field "value".
        """
        if self.table is not None:
            self.table.put(place, (value, True))
            if self._results.expires_ms is not None:
                heapq.heappush(self._closed, (end, place))
        if self.is_read:
            key, start, end = split_window_key(place)
            fields = value if isinstance(value, dict) else {"value": plain(value)}
            result = {"key": self._results.key(key), "start": start, "end": end, **fields}
            self._context.emit(key, result, end - 1 if time is None else time)

    @property
    def due(self) -> int:
        """The least watermark at which a row expires."""
        if not self._closed:
            return END_OF_TIME
        return min(END_OF_TIME, self._expiry(self._closed[0][0]))

    def _expiry(self, end: int) -> int:
        return end + self._results.grace_ms + (self._results.expires_ms or 0)

    def advance(self, watermark: int) -> None:
        """Let rows leave that expire at a watermark. END-OF-TIME closes windows, but removes no row."""
        if watermark == END_OF_TIME:
            return
        while self._closed and self._expiry(self._closed[0][0]) <= watermark:
            _, place = heapq.heappop(self._closed)
            assert self.table is not None
            self.table.delete(place)
