"""Operators without windows: Relay passes records on, Upsert makes a table of them, Dedupe passes on the first of each key."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from headwater.core.errors import KeyRefusedError
from headwater.stream.operator import END_OF_TIME, Operator

if TYPE_CHECKING:
    from headwater.stream.operator import Context, State, TableRows

SEEN = "seen"


class Relay(Operator):
    """Passes each record on as it is: what ends in a topic, or is grouped a second time."""

    def open(self, context: Context) -> None:
        """Take where results go."""
        self._context = context

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Pass the record on; it stays as late as it was."""
        self._context.emit(key, value, timestamp, watermark)


class Upsert(Operator):
    """Sets the table's row of the record's key; a tombstone deletes it."""

    def __init__(self, table: str) -> None:
        """Take the table's name."""
        self._name = table

    def open(self, context: Context) -> None:
        """Take the table's rows."""
        self._table: TableRows = context.table(self._name)

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Set the row or delete it."""
        if key is None:
            raise KeyRefusedError(
                f"table {self._name!r} takes its key from the record's, and this one has none; send records with a key, or "
                "group the stream by a field first"
            )
        if value is None:
            self._table.delete(key)
        else:
            self._table.put(key, value)


class Dedupe(Operator):
    """Passes on the first record of each key; with `within`, also one that is further from the last one kept.

    State `seen`: by key the event time of the last record that was kept. It leaves once no record can come that is within
    reach, as the watermark says. A late record is judged as if whatever is out of its own watermark's reach had left.
    """

    def __init__(self, name: str, within_ms: int | None) -> None:
        """Take the operator's name, and how long a repeat counts; None: for ever."""
        self._name = name
        self._within = within_ms

    def open(self, context: Context) -> None:
        """Take the state, and when its rows leave."""
        self._context = context
        self._seen: State = context.state(SEEN)
        self._leaving: list[tuple[int, bytes]] = []
        if self._within is not None:
            self._leaving = [(time + self._within, key) for key, time in self._seen.scan()]
            heapq.heapify(self._leaving)
        self._set_due()

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Pass the record on unless it repeats."""
        if key is None:
            raise KeyRefusedError(
                f"{self._name!r} tells repeats by the record's key, and this one has none; say by what, as in "
                ".dedupe('field'), or filter such records out"
            )
        last = self._seen.get(key)
        if self._within is None:
            if last is None:
                self._seen.put(key, timestamp)
                self._context.emit(key, value, timestamp, watermark)
            return
        if last is not None and last + self._within >= watermark:
            if abs(timestamp - last) <= self._within:
                return
            timestamp_kept = max(last, timestamp)
        else:
            timestamp_kept = timestamp
        self._seen.put(key, timestamp_kept)
        if last is None:
            heapq.heappush(self._leaving, (timestamp_kept + self._within, key))
            self._set_due()
        self._context.emit(key, value, timestamp, watermark)

    def advance(self, watermark: int) -> None:
        """Let rows leave that no record in time can repeat."""
        if watermark == END_OF_TIME:
            # What comes after the end is judged by what is known.
            return
        assert self._within is not None
        while self._leaving and self._leaving[0][0] < watermark:
            time, key = heapq.heappop(self._leaving)
            last = self._seen.get(key)
            if last is None:
                continue
            if last + self._within > time:
                heapq.heappush(self._leaving, (last + self._within, key))
            else:
                self._seen.delete(key)
        self._set_due()

    def _set_due(self) -> None:
        self.due = self._leaving[0][0] + 1 if self._leaving else END_OF_TIME
