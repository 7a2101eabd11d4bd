"""A task in small: feeds records to one operator as the engine does, with state in dictionaries, and starts it anew at will."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from headwater.core.tumbling import Made, WorkColumns
from headwater.core.windowed import split_window_key
from headwater.stream.operator import END_OF_TIME, NEVER, Operator
from headwater.table.state import decode, encode


@dataclass(frozen=True)
class Row:
    """A record of an inlet. Each channel has its own watermark clock."""

    key: str
    value: Any
    time: int
    inlet: int = 0
    channel: int = 0


@dataclass(frozen=True)
class Seen:
    """A record with its own watermark before it, and the task's before and after it."""

    row: Row
    own: int
    task: int
    after: int


class DictState:
    """A state in a dictionary; values must be plain data, as msgpack has them."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Any] = {}

    def get(self, key: bytes) -> Any:
        return self.rows.get(key)  # None for one that is gone

    def put(self, key: bytes, value: Any) -> None:
        assert value is not None
        self.rows[key] = value

    def delete(self, key: bytes) -> None:
        self.rows.pop(key, None)

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, Any]]:
        for key in sorted(self.rows):
            value = self.rows.get(key)
            if value is not None and key.startswith(prefix) and key >= start:
                yield key, value

    def scan_back(self, prefix: bytes, end: bytes) -> Iterator[tuple[bytes, Any]]:
        yield from reversed([row for row in self.scan(prefix) if row[0] < end])

    def in_hand(self) -> tuple[dict[bytes, Any], dict[bytes, int], set[bytes]]:
        return self.rows, {}, set()

    def reload(self) -> None:
        """Do what a restart does: values come back from their bytes."""
        self.rows = {key: decode(encode(value)) for key, value in self.scan()}


@dataclass
class Bench:
    """One operator in one task."""

    make: Callable[[], Operator]
    lateness: int = 0
    watermark: int = NEVER
    partition: int = 0
    partitions: int = 1
    emitted: list[tuple[bytes | None, Any, int]] = field(default_factory=list)
    lates: list[Row] = field(default_factory=list)
    states: dict[str, DictState] = field(default_factory=dict)
    tables: dict[str, DictState] = field(default_factory=dict)
    clocks: dict[tuple[int, int], int] = field(default_factory=dict)
    taken: int = 0
    _hand: Row | None = None
    _operator: Operator | None = None

    # What an operator has of its task

    def state(self, name: str) -> DictState:
        return self.states.setdefault(name, DictState())

    def table(self, name: str) -> DictState:
        return self.tables.setdefault(name, DictState())

    def emit(self, key: bytes | None, value: Any, timestamp: int, watermark: int = NEVER) -> None:
        self.emitted.append((key, msgspec.json.decode(msgspec.json.encode(value)), timestamp))

    def emit_all(self, made: Made) -> None:
        for _, key, value, timestamp in zip(*made, strict=True):
            self.emit(key, value, timestamp)

    def late(self) -> None:
        assert self._hand is not None
        self.lates.append(self._hand)

    # What a task does

    def run(self, rows: Sequence[Row], restarts: Collection[int] = (), *, drain: bool = True) -> list[Seen]:
        """Feed records; before those whose numbers are in `restarts` the operator is made anew."""
        seen = []
        for number, row in enumerate(rows):
            if number in restarts:
                self.restart()
            seen.append(self.feed(row))
        if len(rows) in restarts:
            self.restart()
        if drain:
            self.advance(END_OF_TIME)
        return seen

    def feed(self, row: Row) -> Seen:
        """Feed one record."""
        found = Seen(row, *self._watermarks(row))
        self._process(found)
        return found

    def feed_many(self, rows: Sequence[Row]) -> list[Seen]:
        """Feed records of one inlet together: the operator takes what it can by itself, the others come one by one."""
        seen: list[Seen] = []
        for row in rows:
            before = seen[-1].after if seen else self.watermark
            own, _, after = self._watermarks(row)
            seen.append(Seen(row, own, before, max(before, after)))
        columns = WorkColumns(
            list(range(len(rows))), [row.key.encode() for row in rows], [row.value for row in rows],
            [row.time for row in rows], [one.own for one in seen], [one.after for one in seen],
        )  # fmt: skip
        at = 0
        while at < len(rows):
            taken = self._open().take(columns, at)
            self.taken += taken - at
            if taken:
                self.watermark = seen[taken - 1].after
            if taken < len(rows):
                self._process(seen[taken])
            at = taken + 1
        return seen

    def _watermarks(self, row: Row) -> tuple[int, int, int]:
        """Return a record's own watermark, the task's before and after it; its channel's clock has moved then."""
        channel = (row.inlet, row.channel)
        clock = self.clocks.get(channel, NEVER)
        own = NEVER if clock == NEVER else clock - self.lateness
        self.clocks[channel] = max(clock, row.time)
        return own, self.watermark, max(self.watermark, min(self.clocks.values()) - self.lateness)

    def _process(self, seen: Seen) -> None:
        row = self._hand = seen.row
        self._open().process(row.inlet, row.key.encode(), row.value, row.time, seen.own)
        self._hand = None
        self.advance(seen.after)

    def advance(self, watermark: int) -> None:
        """Take the task's watermark on."""
        operator = self._open()
        self.watermark = watermark
        if operator.due <= watermark:
            operator.advance(watermark)
        assert operator.due > watermark or watermark == END_OF_TIME

    def restart(self) -> None:
        """Make the operator anew from its state."""
        for state in self.states.values():
            state.reload()
        self._operator = None

    def _open(self) -> Operator:
        if self._operator is None:
            self._operator = self.make()
            # What the task's watermark was is not known when an operator is opened.
            known, self.watermark = self.watermark, NEVER
            self._operator.open(self)
            self.watermark = known
        return self._operator

    # What tests look at

    def values(self) -> list[Any]:
        """Return what was emitted, without keys and times."""
        return [value for _, value, _ in self.emitted]

    def windows(self, table: str = "t") -> dict[tuple[str, int, int], tuple[Any, bool]]:
        """Return a windowed table's rows by (key, start, end)."""
        found = {}
        for place, (value, final) in self.table(table).scan():
            key, start, end = split_window_key(place)
            found[key.decode(), start, end] = (value, final)
        return found
