"""Sealed: an epoch's changes of one part that can't be rolled back any more, as Arrow columns.

A change costs three Python objects until it is sealed and a few bytes after; what is sealed in time is still in the
processor's caches, and is encoded all at once.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_encode_list = msgspec.json.Encoder().encode


class Columns(NamedTuple):
    """Changes in order: keys and values (binary; a null value: deleted), and rows (int32)."""

    keys: pa.Array
    values: pa.Array
    rows: pa.Array


_EMPTY = Columns(pa.array([], pa.binary()), pa.array([], pa.binary()), pa.array([], pa.int32()))


class Sealed:
    """Changes of the open epoch, in order."""

    __slots__ = ("_chunks", "count")

    def __init__(self) -> None:
        """Begin empty."""
        self.count = 0
        self._chunks: list[Columns] = []

    def add(
        self,
        keys: list[Any],
        values: list[Any],
        rows: list[int],
        count: int,
        encode: Callable[[Any], bytes | None] | None = None,
    ) -> None:
        """Take changes: keys as text or bytes. `encode` makes a value's bytes; None: all values are plain numbers.

        `count` is how many there were before those were left out that only the last change of their key is wanted of.
        """
        self.count += count
        encoded = numbers(values) if encode is None else pa.array(list(map(encode, values)), pa.binary())
        # struct packs a list three times as fast as pa.array reads it.
        packed = pa.py_buffer(struct.pack(f"={len(rows)}i", *rows))
        numbered = pa.Array.from_buffers(pa.int32(), len(rows), [None, packed])
        self._chunks.append(Columns(pa.array(keys, pa.binary()), encoded, numbered))

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
        self.count, self._chunks = 0, []


def numbers(values: Sequence[float]) -> pa.Array:
    """Return finite numbers as JSON, each as msgspec writes it alone: one call for all, cut apart by Arrow."""
    if not values:
        return _EMPTY.values
    text = _encode_list(values)
    return pc.split_pattern(pa.array([text[1:-1]], pa.binary()), b",").values
