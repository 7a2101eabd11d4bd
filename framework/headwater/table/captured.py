"""Captured part: a table's part that also keeps what each change replaced, where somebody reads the table's changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from headwater.table.part import TablePart, canonical

if TYPE_CHECKING:
    from headwater.table.part import FrameLike
    from headwater.table.sealed import Columns

_UNKNOWN: Any = object()


class Captured(NamedTuple):
    """One change in order: key bytes, the row's bytes before and after (None: no row), and the row that caused it."""

    key: bytes
    old: bytes | None
    new: bytes | None
    row: int


class CapturedPart(TablePart):
    """A part whose changes are read. Each write is encoded at once, so that what it replaces is known as bytes."""

    __slots__ = ("_before", "_captured")

    def __init__(self, *args: Any, **options: Any) -> None:
        """Do as TablePart."""
        super().__init__(*args, **options)
        self.deferred = frozenset[type]()
        self._captured: list[Captured] = []
        # By key the bytes of what the open epoch wrote last; what it didn't write is in the store.
        self._before: dict[bytes, bytes | None] = {}

    def put(self, key: Any, value: Any, frame: FrameLike) -> None:
        """Set a row."""
        super().put(key, value, frame)
        self._capture(_key_bytes(key), self.encode(value), frame.row)

    def delete(self, key: Any, frame: FrameLike) -> bool:
        """Remove a row; a row that isn't there leaves no change. Return whether one was there."""
        there = super().delete(key, frame)
        if there:
            self._capture(_key_bytes(key), None, frame.row)
        return there

    def _capture(self, key: bytes, new: bytes | None, row: int) -> None:
        old = self._before.get(key, _UNKNOWN)
        if old is _UNKNOWN:
            old = self.store.get(key)
        self._captured.append(Captured(key, old, new, row))
        self._before[key] = new

    def rollback(self, row: int, floor: int) -> None:
        """Drop the changes from number `floor` on that were made for rows >= `row`."""
        super().rollback(row, floor)
        captured = self._captured
        while len(captured) > self.count:
            change = captured.pop()
            self._before[change.key] = change.old

    def captured(self) -> list[Captured]:
        """Return the open epoch's changes in order, without those that changed nothing."""
        return [change for change in self._captured if not self._is_same(change)]

    def _is_same(self, change: Captured) -> bool:
        if change.old is None or change.new is None:
            return change.old is change.new
        # That a window closes is no change of its value.
        return change.old[1:] == change.new[1:] if self.windowed else change.old == change.new

    def cut(self) -> Columns:
        """End the open epoch."""
        self._captured, self._before = [], {}
        return super().cut()


def _key_bytes(key: Any) -> bytes:
    name = canonical(key)
    return name.encode() if isinstance(name, str) else name
