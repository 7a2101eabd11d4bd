"""Sealed: an epoch's changes of one part that can't be rolled back any more.

A change costs three Python objects until it is sealed and a few bytes after; what is sealed in time is still in the
processor's caches, and is encoded all at once. Of a part that keeps only the last change of each key the others are dropped then.
"""

from __future__ import annotations

import struct
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from headwater.core.hot import last_indices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_encode_list = msgspec.json.Encoder().encode


class Columns(NamedTuple):
    """Changes in order: keys and values (binary; a null value: deleted), and rows (int32)."""

    keys: pa.Array
    values: pa.Array
    rows: pa.Array


_EMPTY = Columns(pa.array([], pa.binary()), pa.array([], pa.binary()), pa.array([], pa.int32()))


CACHED: Final = object()
"""Stands for a key's last value where that is a number which the part's cache of decoded values holds."""


class Sealed:
    """Changes of the open epoch, in order, as Arrow columns."""

    __slots__ = ("_chunks", "count", "last")

    def __init__(self) -> None:
        """Begin empty."""
        self.count = 0
        self._chunks: list[Columns] = []
        self.last: dict[Any, Any] = {}
        """By key its last value: encoded bytes, None for deleted, a number yet to be encoded, or CACHED."""

    def add(
        self,
        keys: list[Any],
        values: list[Any],
        rows: list[int],
        encode: Callable[[Any], bytes | None] | None = None,
    ) -> None:
        """Take changes: keys as text or bytes. `encode` makes a value's bytes; None: all values are plain numbers.

        Such a number is what the cache holds until the key's next change.
        """
        self.count += len(keys)
        self.last.update(dict.fromkeys(keys, CACHED) if encode is None else zip(keys, values, strict=True))
        self._chunks.append(_columns(keys, values, rows, encode))

    def columns(self) -> Columns:
        """Return all that was taken."""
        if len(self._chunks) > 1:
            self._chunks = [
                Columns(*(pa.concat_arrays(column) for column in zip(*self._chunks, strict=True)))
            ]
        return self._chunks[0] if self._chunks else _EMPTY

    def last_value(self, key: bytes) -> bytes | None:
        """Return the bytes of the last value that a key was given; the key is here and that value is not a deletion."""
        for chunk in reversed(self._chunks):
            found = pc.indices_nonzero(pc.equal(chunk.keys, pa.scalar(key, pa.binary())))
            if len(found):
                data: bytes | None = chunk.values[found[-1].as_py()].as_py()
                return data
        raise KeyError(key)

    def clear(self) -> None:
        """Begin the next epoch."""
        self.count, self._chunks, self.last = 0, [], {}


class SealedLast(Sealed):
    """The last change of each key of the open epoch, in the order of rows. No value is CACHED."""

    __slots__ = ("_encode", "_rows")

    def __init__(self) -> None:
        """Begin empty."""
        super().__init__()
        self._encode: Callable[[Any], bytes | None] | None = None
        self._rows: dict[Any, int] = {}

    def add(
        self,
        keys: list[Any],
        values: list[Any],
        rows: list[int],
        encode: Callable[[Any], bytes | None] | None = None,
    ) -> None:
        """Take changes in order, of which `count` counts all."""
        self.count += len(keys)
        self._encode = self._encode or encode
        kept = last_indices(keys)
        if 2 * len(kept) < len(keys):
            keys, values, rows = (
                [keys[at] for at in kept], [values[at] for at in kept], [rows[at] for at in kept],
            )  # fmt: skip
        self.last.update(zip(keys, values, strict=True))
        self._rows.update(zip(keys, rows, strict=True))

    def columns(self) -> Columns:
        """Return what was kept."""
        ordered = sorted(self._rows.items(), key=itemgetter(1))
        keys = [key for key, _ in ordered]
        return _columns(keys, [self.last[key] for key in keys], [row for _, row in ordered], self._encode)

    def clear(self) -> None:
        """Begin the next epoch."""
        super().clear()
        self._encode, self._rows = None, {}


def _columns(
    keys: list[Any], values: list[Any], rows: list[int], encode: Callable[[Any], bytes | None] | None
) -> Columns:
    encoded = numbers(values) if encode is None else pa.array(list(map(encode, values)), pa.binary())
    # struct packs a list three times as fast as pa.array reads it.
    packed = pa.py_buffer(struct.pack(f"={len(rows)}i", *rows))
    numbered = pa.Array.from_buffers(pa.int32(), len(rows), [None, packed])
    return Columns(pa.array(keys, pa.binary()), encoded, numbered)


def numbers(values: Sequence[float]) -> pa.Array:
    """Return finite numbers as JSON, each as msgspec writes it alone: one call for all, cut apart by Arrow."""
    if not values:
        return _EMPTY.values
    text = _encode_list(values)
    return pc.split_pattern(pa.array([text[1:-1]], pa.binary()), b",").values
