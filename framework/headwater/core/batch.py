"""Batch: the records of one partition for offsets [base, next), as columns; the unit of flow.

`next` may exceed the last offset + 1 (transaction markers, compacted records). Columns are kept as they came
(Arrow arrays from Parquet, Python lists from a log) and converted to lists at most once, when first asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from headwater.core.lazy import lazy

if TYPE_CHECKING:
    from collections.abc import Sequence

Headers: TypeAlias = "tuple[tuple[str, bytes | None], ...]"
"""A record's headers in order; names may repeat."""


class TopicPartition(NamedTuple):
    """One partition of one topic; sorts by topic, then partition."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"

    @classmethod
    def parse(cls, text: str) -> TopicPartition:
        """Return the partition that `str` wrote as "topic/partition"."""
        topic, _, partition = text.rpartition("/")
        return cls(topic, int(partition))


def as_list(column: Any) -> Sequence[Any]:
    """Return a column as a sequence of Python values, converting an Arrow array."""
    to_pylist = getattr(column, "to_pylist", None)
    return column if to_pylist is None else to_pylist()  # type: ignore[no-any-return]


class Batch:
    """One partition's records for offsets [base, next), in offset order.

    Columns have one entry a record: `offsets` (int), `timestamps` (int64 ms since the epoch, UTC), `keys` and `values`
    (bytes or None), `headers` (tuples of (name, bytes or None), or None for a batch without any header).
    """

    __slots__ = (
        "_headers",
        "_keys",
        "_offsets",
        "_timestamps",
        "_values",
        "base",
        "nbytes",
        "next",
        "partition",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        partition: int,
        base: int,
        next: int,
        offsets: Any,
        timestamps: Any,
        keys: Any,
        values: Any,
        headers: Any = None,
        *,
        nbytes: int = 0,
    ) -> None:
        """Take columns as they are; `nbytes` is their size in memory, for bounded queues."""
        self.topic = topic
        self.partition = partition
        self.base = base
        self.next = next
        self._offsets = offsets
        self._timestamps = timestamps
        self._keys = keys
        self._values = values
        self._headers = headers
        self.nbytes = nbytes

    @classmethod
    def empty(cls, topic: str, partition: int, base: int, next: int | None = None) -> Batch:
        """Return a batch without records that covers [base, next)."""
        return cls(topic, partition, base, base if next is None else next, (), (), (), ())

    def __len__(self) -> int:
        return len(self._offsets)

    def __repr__(self) -> str:
        return f"Batch({self.topic}/{self.partition}@[{self.base}, {self.next}), {len(self)} records)"

    @property
    def offsets(self) -> Sequence[int]:
        """Offsets, strictly rising, within [base, next)."""
        column: Sequence[int] = as_list(self._offsets)
        self._offsets = column
        return column

    @property
    def timestamps(self) -> Sequence[int]:
        """Record timestamps, ms since the epoch, UTC."""
        column: Sequence[int] = as_list(self._timestamps)
        self._timestamps = column
        return column

    @property
    def keys(self) -> Sequence[bytes | None]:
        """Keys; null and empty are told apart."""
        column: Sequence[bytes | None] = as_list(self._keys)
        self._keys = column
        return column

    @property
    def values(self) -> Sequence[bytes | None]:
        """Values; null is a tombstone, empty is not."""
        column: Sequence[bytes | None] = as_list(self._values)
        self._values = column
        return column

    @property
    def columns(self) -> tuple[Any, Any, Any, Any]:
        """Offsets, timestamps, keys and values as they are kept: Arrow arrays (chunked or not) or Python sequences."""
        return self._offsets, self._timestamps, self._keys, self._values

    @property
    def lazy_keys(self) -> Sequence[bytes | None]:
        """Keys, converted only if someone looks."""
        return lazy(self._keys)

    @property
    def lazy_timestamps(self) -> Sequence[int]:
        """Timestamps, converted only if someone looks."""
        return lazy(self._timestamps)

    @property
    def headers(self) -> Sequence[Headers] | None:
        """Headers by record, or None where no record of the batch has any."""
        return self._headers  # type: ignore[no-any-return]

    def headers_at(self, index: int) -> Headers:
        """Return the headers of the record at an index of this batch."""
        return () if self._headers is None else self._headers[index] or ()

    def slice(self, base: int, next: int) -> Batch:
        """Return the part with offsets in [base, next), sharing what can be shared.

        What lies outside this batch is left out: the result covers the common range, empty where there is none.
        """
        if base <= self.base and next >= self.next:
            return self
        base = min(max(base, self.base), self.next)
        next = max(min(next, self.next), base)
        offsets = self.offsets
        low, high = bisect_left(offsets, base), bisect_left(offsets, next)
        size = self.nbytes * (high - low) // max(len(offsets), 1)
        headers = None if self._headers is None else self._headers[low:high]
        return Batch(
            self.topic, self.partition, base, next, offsets[low:high],
            self._timestamps[low:high], self._keys[low:high], self._values[low:high], headers, nbytes=size,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Append:
    """Records to append to one partition: columns of equal length, without offsets (the log gives them)."""

    topic: str
    partition: int
    timestamps: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers] | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values and a fixed cost a record: what limits and bounds count."""
        return (
            sum(map(len, filter(None, self.keys)))
            + sum(map(len, filter(None, self.values)))
            + 24 * len(self.values)
        )
