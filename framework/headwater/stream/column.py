"""Column: an append-only column of an epoch's rows, made of the chunks it was given; flat only where someone looks."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from headwater.core.lazy import LazyColumn

if TYPE_CHECKING:
    from collections.abc import Sequence


CHUNK_ROWS_MIN = 16
"""Of fewer rows a chunk, an array each costs more than a list of all: records that come one by one are chunks of one."""


class Column:
    """Values by row. A table agent's commit needs them as Arrow arrays, and then no Python value is ever made."""

    __slots__ = ("_chunks", "_count", "_flat", "_flattened")

    def __init__(self) -> None:
        """Begin empty."""
        self._chunks: list[Any] = []
        self._count = 0
        self._flat: list[Any] = []
        self._flattened = 0

    def extend(self, values: Sequence[Any]) -> None:
        """Append a chunk; it is kept as it is and must not change."""
        self._chunks.append(values)
        self._count += len(values)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> Any:
        return self._flat[row] if row < len(self._flat) else self.flat()[row]

    def flat(self) -> list[Any]:
        """Return all values as one list: the column's own, to be read."""
        for chunk in self._chunks[self._flattened :]:
            self._flat.extend(chunk)
        self._flattened = len(self._chunks)
        return self._flat

    def arrow(self, kind: pa.DataType) -> pa.Array:
        """Return the whole column as one Arrow array."""
        if self._count < CHUNK_ROWS_MIN * len(self._chunks):
            return pa.array(list(chain.from_iterable(self._chunks)), kind)
        arrays = [array for chunk in self._chunks for array in _arrows(chunk, kind)]
        if len(arrays) == 1:
            return arrays[0]
        return pa.concat_arrays(arrays) if arrays else pa.array([], kind)


def _arrows(chunk: Any, kind: pa.DataType) -> list[pa.Array]:
    if isinstance(chunk, LazyColumn):
        array = chunk.array if chunk.array.type == kind else chunk.array.cast(kind)
        return array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    if isinstance(chunk, range) and len(chunk) and chunk.step == 1:
        # Counting in Arrow costs a tenth of reading a range number by number.
        ones = pa.repeat(pa.scalar(1, kind), len(chunk))
        return [pc.cumulative_sum(ones, start=pa.scalar(chunk.start - 1, kind))]
    return [pa.array(chunk, kind)]
