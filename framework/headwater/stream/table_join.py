"""Joins with tables: Lookup takes a stream's records to the row as it stands, TableJoin keeps a table joined with another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater.core.errors import KeyRefusedError
from headwater.core.keys import encode_key
from headwater.core.windowed import window_prefix
from headwater.stream.operator import Operator

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.stream.kept import Kept
    from headwater.stream.operator import Context, State, TableRows

SIDES = "sides"
LEFT, RIGHT = b"L", b"R"


class Lookup(Operator):
    """Joins each record of a stream, inlet 0, with one row of a table, as that stands in merged order.

    The result has the record's key and event time, and is as late.
    """

    def __init__(
        self,
        table: str,
        select: Callable[[Any, Any], Any],
        *,
        left_alone: bool,
        key: Callable[[Any], Any] | None = None,
    ) -> None:
        """Take the declaration. `key`: which row is meant; None: the record's own key."""
        self._name = table
        self._select = select
        self._alone = left_alone
        self._key = key

    def open(self, context: Context) -> None:
        """Take the table's rows."""
        self._context = context
        self._table: TableRows = context.table(self._name)

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Look the row up."""
        if value is None:
            return
        place = key if self._key is None else encode_key(self._key(value))
        row = None if place is None else self._row(place)
        if row is not None or self._alone:
            self._context.emit(key, self._select(value, row), timestamp, watermark)

    def _row(self, place: bytes) -> Any:
        return self._table.get(place)


class GlobalLookup(Lookup):
    """A Lookup in a table that every task has whole: inlet 1 upserts it.

    State `sides`: the table's rows by key.
    """

    def __init__(
        self,
        table: str,
        select: Callable[[Any, Any], Any],
        kept: Kept,
        *,
        left_alone: bool,
        key: Callable[[Any], Any] | None = None,
    ) -> None:
        """Take the declaration, and how rows are kept."""
        super().__init__(table, select, left_alone=left_alone, key=key)
        self._kept = kept

    def open(self, context: Context) -> None:
        """Take the state."""
        self._context = context
        self._sides: State = context.state(SIDES)

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Set a row, or look one up."""
        if inlet == 0:
            super().process(inlet, key, value, timestamp, watermark)
            return
        if key is None:
            raise KeyRefusedError(f"global table {self._name!r} has rows by key, and this record has none")
        if value is None:
            self._sides.delete(key)
        else:
            self._sides.put(key, self._kept.keep(value))

    def _row(self, place: bytes) -> Any:
        kept = self._sides.get(place)
        return None if kept is None else self._kept.back(kept)


@dataclass(frozen=True, slots=True)
class TableJoinRule:
    """A declared join of two tables by key: its name, the table it fills, and rows of which side stand alone."""

    name: str
    table: str
    left_alone: bool
    right_alone: bool
    select: Callable[[Any, Any], Any]

    def joined(self, left: Any, right: Any) -> Any:
        """Return the result's row of what the sides have under a key, or None where it has none."""
        if left is None and (right is None or not self.right_alone):
            return None
        if right is None and not self.left_alone:
            return None
        return self.select(left, right)


class TableJoin(Operator):
    """Joins the changes of two tables by key: inlet 0 is the left one's, inlet 1 the right one's.

    State `sides`: the rows of both, by side and key. Changes are {"key", "old", "new"}.
    """

    def __init__(
        self, rule: TableJoinRule, revive: tuple[Callable[[Any], Any], Callable[[Any], Any]]
    ) -> None:
        """Take the declaration, and for each side what makes a row of plain data."""
        self._rule = rule
        self._revive = revive

    def open(self, context: Context) -> None:
        """Take the state and the table."""
        self._sides: State = context.state(SIDES)
        self._table: TableRows = context.table(self._rule.table)

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Take a change of one side over to the result."""
        if value is None:
            return
        if key is None:
            raise KeyRefusedError(f"join {self._rule.name!r} was handed a change without a key")
        new = value["new"]
        other = self._sides.get((RIGHT if inlet == 0 else LEFT) + key)
        sides = (new, other) if inlet == 0 else (other, new)
        left, right = (
            None if row is None else revive(row) for row, revive in zip(sides, self._revive, strict=True)
        )
        result = self._rule.joined(left, right)
        own = (LEFT if inlet == 0 else RIGHT) + key
        if new is None:
            self._sides.delete(own)
        else:
            self._sides.put(own, new)
        if result is None:
            self._table.delete(key)
        else:
            self._table.put(key, result)


class ForeignSplit(Operator):
    """First of three for a join by foreign key: numbers each left row's changes, and sends them to their foreign key's home.

    State `sides`: by left key [number, encoded foreign key, or None where there is no row]. Emits, under the foreign key,
    [left key, number, row or None, whether it only moved away].
    """

    def __init__(self, foreign_key: Callable[[Any], Any], revive: Callable[[Any], Any]) -> None:
        """Take the function of a left row, and what makes a row of plain data."""
        self._foreign_key = foreign_key
        self._revive = revive

    def open(self, context: Context) -> None:
        """Take the state."""
        self._context = context
        self._sides: State = context.state(SIDES)

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Send a change to where its old and its new foreign key are at home."""
        assert key is not None
        row = value["new"]
        place = None if row is None else encode_key(self._foreign_key(self._revive(row))) or _NOWHERE
        number, was = self._sides.get(key) or (0, None)
        number += 1
        # The number stays when the row is gone: what is under way of it must not pass for what comes later.
        self._sides.put(key, [number, place])
        if was is not None and was != place:
            self._context.emit(was, [key.hex(), number, None, row is not None], timestamp)
        if place is not None:
            self._context.emit(place, [key.hex(), number, row, False], timestamp)


_NOWHERE = b""
"""Where left rows lie that have no foreign key: no right row has the empty key."""


class ForeignMatch(Operator):
    """Second of three: joins left rows with the right row of their foreign key. Inlet 0 is what ForeignSplit gives.

    State `sides`: right rows by key; left rows by encoded foreign key and left key, as [number, row]. Emits, under the left
    key, [number, result or None].
    """

    def __init__(
        self, rule: TableJoinRule, revive: tuple[Callable[[Any], Any], Callable[[Any], Any]]
    ) -> None:
        """Take the declaration, and for each side what makes a row of plain data."""
        self._rule = rule
        self._revive = revive

    def open(self, context: Context) -> None:
        """Take the state."""
        self._context = context
        self._sides: State = context.state(SIDES)

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Give the results that a change of one side makes."""
        assert key is not None
        if inlet == 0:
            shown, number, row, moved = value
            left_key = bytes.fromhex(shown)
            result = self._result(row, self._sides.get(RIGHT + key))
            place = LEFT + window_prefix(key) + left_key
            if row is None:
                self._sides.delete(place)
            else:
                self._sides.put(place, [number, row])
            # Of a row that moved its new place gives the result.
            if not moved:
                self._context.emit(left_key, [number, result], timestamp)
            return
        new = value["new"]
        prefix = LEFT + window_prefix(key)
        results = [
            (place[len(prefix) :], number, self._result(row, new))
            for place, (number, row) in self._sides.scan(prefix)
        ]
        if new is None:
            self._sides.delete(RIGHT + key)
        else:
            self._sides.put(RIGHT + key, new)
        for left_key, number, result in results:
            self._context.emit(left_key, [number, result], timestamp)

    def _result(self, left: Any, right: Any) -> Any:
        if left is None:
            return None
        sides = (left, right)
        left, right = (
            None if row is None else revive(row) for row, revive in zip(sides, self._revive, strict=True)
        )
        return self._rule.joined(left, right)


class ForeignCollect(Operator):
    """Last of three: fills the result's table with what is newest of each left row.

    A row that changed its foreign key has results under way from two places in any order: the number says which stands.
    State `sides`: by left key the number.
    """

    def __init__(self, table: str) -> None:
        """Take the table's name."""
        self._name = table

    def open(self, context: Context) -> None:
        """Take the state and the table."""
        self._sides: State = context.state(SIDES)
        self._table: TableRows = context.table(self._name)

    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Take a result over unless a newer one is there."""
        assert key is not None
        number, result = value
        if number < (self._sides.get(key) or 0):
            return
        self._sides.put(key, number)
        if result is None:
            self._table.delete(key)
        else:
            self._table.put(key, result)
