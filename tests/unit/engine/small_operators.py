"""Small operators for tests: each keeps what is easy to say in a plain loop."""

from __future__ import annotations

import heapq
from typing import Any

from headwater.app.table import Table
from headwater.core.values import codec_for
from headwater.core.windowed import Windowed, WindowedCodec, split_window_key, window_key
from headwater.stream.operator import END_OF_TIME, Context, Operator, OperatorSpec, Outlet, State, TableRows
from headwater.stream.plan import GroupBy, StreamPlan


class Count(Operator):
    """Counts the records of each key, and gives on the count."""

    counts: State

    def open(self, context: Context) -> None:
        self.context = context
        self.counts = context.state("counts")

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        count = (self.counts.get(key or b"") or 0) + 1
        self.counts.put(key or b"", count)
        if isinstance(value, dict) and value.get("kind") == "fail":
            raise RuntimeError("told to fail")
        self.context.emit(key, {"n": count, "value": value}, timestamp)


class Dedupe(Operator):
    """Lets the first record of each key through."""

    def open(self, context: Context) -> None:
        self.context = context
        self.seen = context.state("seen")

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        if self.seen.get(key or b"") is None:
            self.seen.put(key or b"", True)
            self.context.emit(key, value, timestamp)


class Buffer(Operator):
    """Holds records until the watermark has passed them by `wait` ms, and gives them on in order; late ones are late."""

    def __init__(self, wait: int = 0) -> None:
        self.wait = wait

    def open(self, context: Context) -> None:
        self.context = context
        self.rows = context.state("rows")
        self.waiting = [key for key, _ in self.rows.scan() if key]
        self.due = self._due()

    def _due(self) -> int:
        return _time(self.waiting[0]) + self.wait if self.waiting else END_OF_TIME

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        if timestamp + self.wait < watermark:
            self.context.late()
            return
        number = (self.rows.get(b"") or 0) + 1
        name = (timestamp + (1 << 63)).to_bytes(8) + (inlet * (1 << 48) + number).to_bytes(8)
        self.rows.put(b"", number)
        self.rows.put(name, [key, value])
        if isinstance(value, dict) and value.get("kind") == "fail":
            raise RuntimeError("told to fail")
        heapq.heappush(self.waiting, name)
        self.due = self._due()

    def advance(self, watermark: int) -> None:
        while self.waiting and _time(self.waiting[0]) + self.wait <= watermark:
            name = heapq.heappop(self.waiting)
            key, value = self.rows.get(name)
            self.rows.delete(name)
            self.context.emit(key, value, _time(name))
        self.due = self._due()


def _time(name: bytes) -> int:
    return int.from_bytes(name[:8]) - (1 << 63) if name else -(1 << 63)


class Fill(Operator):
    """Writes each value into a table, by key; tombstones delete."""

    def __init__(self, table: str) -> None:
        self.table = table

    def open(self, context: Context) -> None:
        self.rows: TableRows = context.table(self.table)

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        if value is None:
            self.rows.delete(key or b"")
        else:
            self.rows.put(key or b"", value)


def spec(
    name: str,
    make: Any,
    *topics: str,
    by: GroupBy | None = None,
    states: tuple[str, ...] = (),
    sinks: tuple[str, ...] = (),
    tables: tuple[str, ...] = (),
) -> OperatorSpec:
    """Return the spec of an operator with one inlet for each topic."""
    inlets = tuple(StreamPlan((topic,), group_by=by) for topic in topics)
    outlets = tuple(map(Outlet, sinks))
    return OperatorSpec(name, inlets, make, states=states, sinks=outlets, tables=tables)


class Windows(Operator):
    """Counts the records of each key and 100 ms of event time in a table of windows; closes them; late ones are late."""

    def __init__(self, table: str) -> None:
        self.table = table

    def open(self, context: Context) -> None:
        self.context = context
        self.rows: TableRows = context.table(self.table)
        self.waiting = sorted((_end(key), key) for key, row in self.rows.scan() if not row.final)
        self.due = self.waiting[0][0] if self.waiting else END_OF_TIME

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        start = timestamp // 100 * 100
        if start + 100 <= max(watermark, self.context.watermark):
            self.context.late()
            return
        name = window_key(key or b"", start, start + 100)
        row = self.rows.get(name)
        self.rows.put(name, Windowed(1 if row is None else row.value + 1, False))
        if row is None:
            heapq.heappush(self.waiting, (start + 100, name))
            self.due = self.waiting[0][0]

    def advance(self, watermark: int) -> None:
        while self.waiting and self.waiting[0][0] <= watermark:
            end, name = heapq.heappop(self.waiting)
            row = self.rows.get(name)
            self.rows.put(name, Windowed(row.value, True))
            self.context.emit(split_window_key(name).key, {"end": end, "n": row.value}, end - 1)
        self.due = self.waiting[0][0] if self.waiting else END_OF_TIME


def _end(name: bytes) -> int:
    return split_window_key(name).end


class Keeper(Operator):
    """Closes the windows that agents write: it is told of new ones by whoever writes."""

    waiting: list[tuple[int, bytes]]

    def __init__(self, table: str) -> None:
        self.table = table

    def open(self, context: Context) -> None:
        self.context = context
        self.rows: TableRows = context.table(self.table)
        self.waiting = sorted((_end(key), key) for key, row in self.rows.scan() if not row.final)

    @property
    def due(self) -> int:  # type: ignore[override]
        return self.waiting[0][0] if self.waiting else END_OF_TIME

    def crosses(self, before: int, after: int) -> bool:
        return after // 100 > before // 100

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        raise AssertionError("a keeper has no inlets")

    def advance(self, watermark: int) -> None:
        while self.waiting and self.waiting[0][0] <= watermark:
            end, name = heapq.heappop(self.waiting)
            row = self.rows.get(name)
            if row is not None:
                self.rows.put(name, Windowed(row.value, True))
                self.context.emit(split_window_key(name).key, {"end": end, "n": row.value}, end - 1)


class WindowTable(Table):
    """A table of windows, as aggregates declare them."""

    windowed = True

    def __init__(self, app: Any, name: str) -> None:
        super().__init__(app, name=name, number=len(app.declared.tables))
        self.codec = WindowedCodec(codec_for(None))  # type: ignore[assignment]
        app.declared.add_table(self)


class Lookup(Operator):
    """Inlet 0 is looked up in what inlet 1, which each task reads whole, has said last of its value."""

    def open(self, context: Context) -> None:
        self.context = context
        self.known = context.state("known")

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        if inlet == 1:
            self.known.put(key or b"", value)
        else:
            self.context.emit(key, [value, self.known.get(str(value).encode())], timestamp)
