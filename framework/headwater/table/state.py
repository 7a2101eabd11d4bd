"""An operator's rows in one task: decoded values over a store, written as msgpack, the last change of each key an epoch.

Values are plain data and are replaced, never changed in place, so they are kept as the operator gave them and encoded
once, when the epoch is collected. (After a reload a tuple is a list.) As long as all rows fit in memory none is read
from the store, also not to learn that it isn't there; beyond that the store is asked for what is not in hand.

Invariants
- Cache over store reads as the fold of all changes; `dirty` has the keys changed in the open epoch, all in the cache.
- With the entries of the undo list put back, the last one first, the state reads as it did when the list was empty.
- Nothing reaches the store before `flush`, which the engine calls after the log has committed (I7).
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from headwater.core.errors import HeadwaterError, MisuseError
from headwater.table.sorted_keys import SortedKeys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.table.behind import WriteBehind

CACHE_ENTRIES_MAX = 300_000
CACHE_BYTES_MAX = 64 << 20
"""Bounds of what is kept in memory, by encoded size; it is dropped whole where it grows beyond."""

_BIG = 1
"""Code of an integer beyond 64 bits, as decimal text."""

_UNKNOWN: Any = object()


class HasRow(Protocol):
    """Whoever says which row is in hand (`stream.frame.Frame`)."""

    row: int


class _NoRow:
    row = -1


NO_ROW = _NoRow()

Undo: TypeAlias = "list[tuple[StatePart, bytes, Any, int | None]]"
"""What an operator has changed for the record in hand: state, key, the value before, and the row of the change before."""


class StatePart:
    """One state of an operator, in one partition."""

    __slots__ = (
        "_bytes",
        "_complete",
        "_fresh",
        "_keys",
        "_place",
        "_typical",
        "_undo",
        "dirty",
        "name",
        "rows",
        "store",
    )

    def __init__(self, name: str, store: WriteBehind) -> None:
        """Begin with what the store has, where it isn't too much."""
        self.name = name
        self.store = store
        self.rows: dict[bytes, Any] = {}
        """By key what is known: None for a row that isn't there."""
        self.dirty: dict[bytes, int] = {}
        """Keys changed in the open epoch, with the row of the last change."""
        self._place: HasRow = NO_ROW
        self._undo: Undo = []
        # Keys of the open epoch that weren't there before: where they are gone at its end, nobody need ever know.
        self._fresh: set[bytes] = set()
        self._bytes = 0
        self._typical = 0
        """How long a row is, of those that were written last."""
        self._complete = False
        self._keys: SortedKeys | None = None
        self.load()

    def load(self) -> None:
        """Take what the store has into memory, as far as it fits; only valid while nothing is changed."""
        rows: dict[bytes, Any] = {}
        size = 0
        for key, data in self.store.items():
            size += 100 + len(key) + len(data)
            if len(rows) >= CACHE_ENTRIES_MAX or size > CACHE_BYTES_MAX:
                self.forget()
                return
            rows[key] = decode(data)
        self.rows, self._bytes, self._complete, self._keys = rows, size, True, None
        if rows:
            self._typical = size // len(rows) - 100

    # Reading and writing

    def get(self, key: bytes) -> Any:
        """Return a row's value, or None where there is none."""
        value = self.rows.get(key, _UNKNOWN)
        return self._read(key) if value is _UNKNOWN else value

    def put(self, key: bytes, value: Any) -> None:
        """Set a row; None is no value."""
        rows, dirty = self.rows, self.dirty
        old = rows.get(key, _UNKNOWN)
        self._undo.append((self, key, old, dirty.get(key)))
        if old is _UNKNOWN or old is None:
            if old is _UNKNOWN and self._complete:
                self._fresh.add(key)
            if self._keys is not None and value is not None:
                self._keys.add(key)
        rows[key] = value
        dirty[key] = self._place.row

    def delete(self, key: bytes) -> None:
        """Remove a row; nothing happens where there is none."""
        if self.get(key) is not None:
            self._undo.append((self, key, self.rows[key], self.dirty.get(key)))
            self.rows[key] = None
            self.dirty[key] = self._place.row

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, Any]]:
        """Yield rows whose key begins with `prefix`, from key `start` on, in key order, with the open epoch's writes.

        What is changed while it runs may be seen or not.
        """
        if self._keys is None:
            if self._complete and not prefix and not start:
                # All of it, as at a start: no order need be kept for that.
                yield from sorted((row for row in self.rows.items() if row[1] is not None), key=_first)
                return
            self._keys = SortedKeys(self.rows if self._complete else self.dirty)
        found = self._keys.with_prefix(prefix, start)
        rows = self.rows
        if self._complete:
            for key in found:
                value = rows.get(key)
                if value is not None:
                    yield key, value
            return
        here = list(found)
        overlay = set(here)
        there = ((key, data) for key, data in self.store.scan(prefix, start) if key not in overlay)
        for key, data in heapq.merge(((key, None) for key in here), there, key=_first):
            value = self.get(key) if data is None else self._known(key, data)
            if value is not None:
                yield key, value

    def scan_back(self, prefix: bytes, end: bytes) -> Iterator[tuple[bytes, Any]]:
        """Yield rows whose key begins with `prefix` and comes before `end`, the last one first."""
        if not self._complete:
            yield from reversed([row for row in self.scan(prefix) if row[0] < end])
            return
        if self._keys is None:
            self._keys = SortedKeys(self.rows)
        for key in self._keys.back_from(prefix, end):
            value = self.rows.get(key)
            if value is not None:
                yield key, value

    def in_hand(self) -> tuple[dict[bytes, Any], dict[bytes, int], set[bytes]] | None:
        """Return rows, open changes and what the open epoch made, to be changed in place; None where that isn't all there is.

        Changes made there can't be undone.
        """
        return (self.rows, self.dirty, self._fresh) if self._complete and self._keys is None else None

    def _read(self, key: bytes) -> Any:
        if self._complete:
            return None
        data = self.store.get(key)
        value = None if data is None else decode(data)
        self.rows[key] = value
        self._bytes += 100 + len(key) + (0 if data is None else len(data))
        return value

    def _known(self, key: bytes, data: bytes) -> Any:
        value = self.rows.get(key, _UNKNOWN)
        return decode(data) if value is _UNKNOWN else value

    # Savepoints

    def attach(self, place: HasRow, undo: Undo) -> None:
        """Take where the row in hand is said, and the list that says how to put back what is changed from here on."""
        self._place, self._undo = place, undo

    def restore(self, key: bytes, value: Any, row: int | None) -> None:
        """Put back what an entry of the undo list holds; the last entry first."""
        if value is _UNKNOWN or (value is None and row is None and self._complete):
            # Not dirty before, so the store says what was there.
            self.rows.pop(key, None)
            self._fresh.discard(key)
        else:
            self.rows[key] = value
        if row is None:
            self.dirty.pop(key, None)
        else:
            self.dirty[key] = row

    # Epochs

    @property
    def count(self) -> int:
        """How many changes the open epoch holds."""
        return len(self.dirty)

    def sample(self, mark: int, size: int) -> list[Any]:
        """Return values as long as this state's are, about."""
        del mark, size
        return [bytes(self._typical)]

    def settle(self) -> None:
        """Nothing is made of changes before the epoch is collected."""

    def cut(self) -> tuple[list[bytes], list[bytes | None], list[int]]:
        """End the open epoch: return its changes as columns, and stage them in the store.

        Keys, encoded values (None: deleted) and rows, in order of first change.
        """
        rows, fresh, dirty, keys = self.rows, self._fresh, self.dirty, self._keys
        changes = {
            key: _encoded(self.name, key, value)
            for key in dirty
            if (value := rows[key]) is not None or key not in fresh
        }
        if changes:
            self.store.stage(changes)
            sizes = [len(key) + len(data) for key, data in changes.items() if data is not None]
            self._bytes += 100 * len(sizes) + sum(sizes)
            if sizes:
                self._typical = sum(sizes) // len(sizes)
        if self._complete:
            # What isn't in memory isn't there.
            for key in dirty:
                if rows[key] is None:
                    del rows[key]
                    if keys is not None:
                        keys.discard(key)
        else:
            self._keys = None
        self.dirty, self._fresh = {}, set()
        self._undo.clear()
        if len(self.rows) > CACHE_ENTRIES_MAX or self._bytes > CACHE_BYTES_MAX:
            self._shrink()
        return list(changes), list(changes.values()), [dirty[key] for key in changes]

    def _shrink(self) -> None:
        """Bytes are only ever counted up, so what is there is counted anew before it is dropped."""
        if self._complete and len(self.rows) <= CACHE_ENTRIES_MAX:
            size = sum(100 + len(key) + len(encode(value)) for key, value in self.rows.items())
            if size <= CACHE_BYTES_MAX // 2:
                self._bytes = size
                return
        self.forget()

    def forget(self) -> None:
        """Drop all that is in memory; only valid while nothing is changed."""
        self.rows, self._bytes, self._complete, self._keys = {}, 0, False, None


def _first(entry: tuple[bytes, Any]) -> bytes:
    return entry[0]


def _encoded(name: str, key: bytes, value: Any) -> bytes | None:
    if value is None:
        return None
    try:
        return encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise HeadwaterError(
            f"state {name!r}: the value under {key!r} can't be written ({error}); it must be plain data: numbers, text, "
            "bytes, lists and dicts of such"
        ) from error


_ENCODER = msgspec.msgpack.Encoder()


def encode(value: Any) -> bytes:
    """Return a state value's bytes. Integers of any size are exact."""
    try:
        return _ENCODER.encode(value)
    except OverflowError:
        return _ENCODER.encode(_without_big(value))


def decode(data: bytes) -> Any:
    """Return the value of these bytes."""
    return _DECODER.decode(data)


def _without_big(value: Any) -> Any:
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return msgspec.msgpack.Ext(_BIG, str(value).encode())
    if isinstance(value, dict):
        return {_without_big(key): _without_big(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_big(item) for item in value]
    return value


def _extension(code: int, data: memoryview) -> int:
    if code != _BIG:
        raise MisuseError(f"a state value has a part of kind {code}, which this version doesn't know")
    return int(bytes(data))


_DECODER = msgspec.msgpack.Decoder(ext_hook=_extension)
