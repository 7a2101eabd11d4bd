"""Tables of windows as agents use them, in faust's way: `table[key] += 1` goes to all windows of the record in hand."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from headwater.app.derived_table import ResultStreams, WindowedRows
from headwater.app.facts import Facts
from headwater.app.table import Table
from headwater.core.errors import AgentStoppedError, MisuseError
from headwater.core.keys import encode_key
from headwater.core.times import duration_ms
from headwater.core.values import codec_for
from headwater.core.windowed import Windowed, WindowedCodec, window_key
from headwater.stream.frame import CURRENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.app.owner import AppLike
    from headwater.stream.window import FixedWindow


class WindowedTable(WindowedRows, Table):
    """A table whose rows are by key and window, written by agents.

    A write goes to each window that holds the event time of the record in hand and isn't closed. Where all are closed the
    record is late: nothing changes, and it goes to `late()`.
    """

    windowed = True

    def __init__(
        self,
        app: AppLike,
        *,
        window: FixedWindow,
        grace_ms: int,
        expires_ms: int | None,
        **options: Any,
    ) -> None:
        """Take a checked declaration."""
        super().__init__(app, **options)
        self.kept_window = window
        self.grace_ms = grace_ms
        self.expires_ms = expires_ms
        self.codec = WindowedCodec(codec_for(self.value_type, null=True))  # type: ignore[assignment]
        self._streams = ResultStreams(app, self.name, Facts(None, self.key_type, "key"))

    def __getitem__(self, key: Any) -> WindowSet:
        """Return the windows of a key."""
        return WindowSet(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set a key's value in each window of the record in hand."""
        if not isinstance(value, WindowSet):
            self.change(key, lambda _: value)

    def __delitem__(self, key: Any) -> None:
        """Remove a key from each open window of the record in hand. Raises KeyError where it is in none."""
        frame, part, places = self._places(key)
        if not [place for place, _ in places if part.delete(place, frame)]:
            raise KeyError(key)

    def change(self, key: Any, change: Callable[[Any], Any]) -> None:
        """Set a key's value in each window of the record in hand to what the function gives for the old one."""
        frame, part, places = self._places(key)
        keeper = part.keeper
        for place, end in places:
            row = part.find(place)
            if row is None and self.default is None:
                old = None
            else:
                old = self.default() if row is None else row[0]
            part.put(place, Windowed(change(old), False), frame)
            if row is None:
                keeper.opened(place, end)

    def _places(self, key: Any) -> tuple[Any, Any, list[tuple[bytes, int]]]:
        """Return the frame, the part, and (window key, end) of each open window of the record in hand."""
        frame = CURRENT.get()
        if frame is None:
            self._refuse_write()
        part = self._writable(frame)
        data = encode_key(key)
        if data is None:
            raise MisuseError(f"table {self.name!r}: None can't be a key")
        keeper = part.keeper
        rows, row = frame.rows, frame.row
        before = rows.task_watermarks[row - 1] if row else keeper.context.watermark
        closed_to = max(rows.watermarks[row], before) - self.grace_ms
        spans = [span for span in self.kept_window.spans(rows.timestamps[row]) if span[1] > closed_to]
        if not spans:
            keeper.context.late()
        return frame, part, [(window_key(data, *span), span[1]) for span in spans]


class WindowSet:
    """The windows of one key. Which one is meant is said by a time: the record's, the task's, or so much before."""

    __slots__ = ("key", "table")

    def __init__(self, table: Any, key: Any) -> None:
        """Take the table and the key."""
        self.table = table
        self.key = key

    def current(self) -> Any:
        """Return the value in the latest window that holds the event time of the record in hand."""
        frame = self._frame("current")
        return self.at(frame.rows.timestamps[frame.row])

    value = current

    def now(self) -> Any:
        """Return the value in the latest window that holds the task's event time: what faust asks the wall clock for."""
        frame = self._frame("now")
        return self.at(frame.rows.task_times[frame.row])

    def delta(self, d: Any) -> Any:
        """Return the value in the latest window that holds the time so long (seconds or timedelta) before the record's."""
        frame = self._frame("delta")
        return self.at(frame.rows.timestamps[frame.row] - duration_ms(d, "delta(d)"))

    def at(self, time_ms: int) -> Any:
        """Return the value in the latest window that holds a time (ms); the table's default where it has none."""
        kept = self.table.kept_window
        if kept is not None:
            start, end = kept.spans(time_ms)[-1]
            found = self.table.row_of(self.key, start, end)
        else:
            held = [row for begin, end, *row in self.windows() if begin <= time_ms < end]
            found = held[-1] if held else None
        if found is not None:
            return found[0]
        if self.table.default is None:
            raise KeyError(self.key)
        return self.table.default()

    def windows(self) -> list[tuple[int, int, Any, bool]]:
        """Return (start, end, value, whether it is closed) of each window, in the order of start."""
        return self.table.windows_of(self.key)  # type: ignore[no-any-return]

    def _frame(self, what: str) -> Any:
        frame = CURRENT.get()
        if frame is None or frame.row < 0:
            raise AgentStoppedError(
                f"{self.table.name}[key].{what}() is about the record in hand, and there is none; outside agents take "
                ".windows() or .at(time_ms)"
            )
        return frame

    def apply(self, op: Callable[[Any, Any], Any], value: Any) -> WindowSet:
        """Change the value in each window of the record in hand to `op(old, value)`."""
        self.table.change(self.key, lambda old: op(old, value))
        return self

    def __iadd__(self, other: Any) -> WindowSet:
        return self.apply(operator.add, other)

    def __isub__(self, other: Any) -> WindowSet:
        return self.apply(operator.sub, other)

    def __imul__(self, other: Any) -> WindowSet:
        return self.apply(operator.mul, other)

    def __itruediv__(self, other: Any) -> WindowSet:
        return self.apply(operator.truediv, other)

    def __ifloordiv__(self, other: Any) -> WindowSet:
        return self.apply(operator.floordiv, other)

    def __imod__(self, other: Any) -> WindowSet:
        return self.apply(operator.mod, other)

    def __ipow__(self, other: Any) -> WindowSet:
        return self.apply(operator.pow, other)

    def __iand__(self, other: Any) -> WindowSet:
        return self.apply(operator.and_, other)

    def __ior__(self, other: Any) -> WindowSet:
        return self.apply(operator.or_, other)

    def __ixor__(self, other: Any) -> WindowSet:
        return self.apply(operator.xor, other)

    def __repr__(self) -> str:
        return f"<WindowSet: {self.table.name}[{self.key!r}]>"
