"""Read one segment: footer, row groups as batches, times; every byte is tested before any of it is handed on.

A row group is one range read, tested against its CRC-32C, decoded by Arrow, and handed on as a Batch of Arrow columns:
no work a record is done here. It knows nothing of the chain that segments form.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, overload

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headwater.archive.checksum import crc32c, data_span
from headwater.archive.segment import TAIL_BYTES, Footer, RowGroup, open_footer, pages_end_in
from headwater.core.batch import Batch, Headers
from headwater.core.errors import SegmentCorruptError

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.archive.storage import Store

FOOTERS_BYTES_MAX = 32 << 20
"""Footers are kept up to this much (8 to 40 KB each)."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a footer says that looking things up needs: small, so it is kept of every segment of a chain."""

    next: int
    count: int
    min_time: int | None
    max_time: int | None
    gap: str | None


class Footers:
    """Checked footers by path, the least recently used dropped; segments never change, so neither do they.

    Facts are kept of all. For several threads.
    """

    def __init__(self, store: Store, *, bytes_max: int = FOOTERS_BYTES_MAX) -> None:
        """Start empty."""
        self._store = store
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: OrderedDict[str, Footer] = OrderedDict()
        self._facts: dict[str, Facts] = {}
        self._lock = Lock()

    def get(self, path: str) -> Footer:
        """Return a segment's footer; raises SegmentCorruptError where it is damaged or gone."""
        with self._lock:
            footer = self._kept.get(path)
            if footer is not None:
                self._kept.move_to_end(path)
                return footer
        footer = read_footer(self._store, path)
        with self._lock:
            self._facts[path] = Facts(footer.next, footer.count, footer.min_time, footer.max_time, footer.gap)
            if path not in self._kept:
                self._kept[path] = footer
                self._bytes += _cost(footer)
            while self._bytes > self._bytes_max and len(self._kept) > 1:
                self._bytes -= _cost(self._kept.popitem(last=False)[1])
        return footer

    def known(self, path: str) -> Facts | None:
        """Return what is known of a segment without asking the storage."""
        return self._facts.get(path)

    def forget(self) -> None:
        """Drop all."""
        with self._lock:
            self._kept.clear()
            self._facts.clear()
            self._bytes = 0


def _cost(footer: Footer) -> int:
    # The parsed form is several times the bytes it was parsed from.
    return 4 * len(footer.tail) + 2048


def read_footer(store: Store, path: str) -> Footer:
    """Read and check a segment's footer; a second time where it is damaged, which it may be on its way only."""
    try:
        return _read_footer(store, path)
    except SegmentCorruptError:
        return _read_footer(store, path)


def _read_footer(store: Store, path: str) -> Footer:
    size = store.head(path)
    if size is None:
        raise _damaged(path, "the file is gone")
    try:
        tail = store.get_range(path, max(0, size - TAIL_BYTES), size)
        pages_end = pages_end_in(tail)
        if pages_end is None or not 4 <= pages_end <= size:
            # A footer longer than one read: its key-value part lies near the end, so this is a damaged one.
            raise _damaged(path, f"no footer found in the last {len(tail)} of its {size} bytes")
        if pages_end >= size - len(tail):
            tail = tail[pages_end - (size - len(tail)) :]
        else:
            tail = store.get_range(path, pages_end, size)
    except FileNotFoundError:
        raise _damaged(path, "the file is gone") from None
    return open_footer(path, size, tail)


class _Window(io.RawIOBase):
    """A file of which only the footer and one row group are in memory; Parquet reads nothing else."""

    def __init__(self, path: str, size: int) -> None:
        self._path = path
        self._size = size
        self._at = 0
        self._start = 0
        self._data: bytes = b""

    def load(self, start: int, data: bytes) -> None:
        """Have the bytes of [start, start + len(data))."""
        self._start, self._data = start, data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        low = self._at - self._start
        high = len(self._data) if size < 0 else low + size
        if low < 0 or high > len(self._data):
            raise _damaged(
                self._path, f"a page lies outside its row group (at byte {self._at}, {size} bytes)"
            )
        self._at += high - low
        return self._data[low:high]


class SegmentReader:
    """Reads row groups of one segment; for one thread at a time."""

    def __init__(self, store: Store, path: str, footer: Footer) -> None:
        """Take a checked footer; nothing is read before it is asked for."""
        self._store = store
        self._path = path
        self.footer = footer
        self._window = _Window(path, footer.size)
        self._parquet: Any = None

    def again(self) -> SegmentReader:
        """Return another reader of the same segment, for another thread."""
        return SegmentReader(self._store, self._path, self.footer)

    def columns(self, group: RowGroup, names: Sequence[str]) -> pa.RecordBatch:
        """Return columns of a row group, tested; raises SegmentCorruptError, never returns damaged rows."""
        return self._decode(group, self._read(group), names)

    def _read(self, group: RowGroup) -> bytes:
        """Return a row group's bytes, once their checksum is right."""
        # Read a second time where they are wrong: bytes may be damaged on their way, and then aren't where they are kept.
        for _ in range(2):
            try:
                data = self._store.get_range(self._path, group.start, group.end)
            except FileNotFoundError:
                raise self._corrupt(group, "the file is gone") from None
            found = crc32c(data)
            if found == group.crc and len(data) == group.end - group.start:
                return data
        raise self._corrupt(
            group,
            f"{len(data)} bytes with checksum {found:08x}, expected {group.end - group.start} with {group.crc:08x}",
        )

    def _decode(self, group: RowGroup, data: bytes, names: Sequence[str]) -> pa.RecordBatch:
        self._window.load(group.start, data)
        try:
            if self._parquet is None:
                self._parquet = pq.ParquetFile(
                    pa.PythonFile(self._window, mode="r"),
                    metadata=self.footer.parquet,
                    page_checksum_verification=True,
                )
            table = self._parquet.read_row_group(group.index, columns=list(names), use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise self._corrupt(group, f"a page can't be read: {error}") from error
        if table.num_rows != group.count:
            raise self._corrupt(group, f"{table.num_rows} rows, expected {group.count}")
        batches = table.combine_chunks().to_batches()
        if len(batches) != 1:
            raise self._corrupt(group, f"its rows came in {len(batches)} pieces")
        return batches[0]

    def covers(self, index: int) -> tuple[int, int]:
        """Return the offsets [base, next) that a row group answers for; together they tile the segment."""
        groups = self.footer.row_groups
        base = self.footer.base if index == 0 else groups[index].offset_min
        return base, self.footer.next if index + 1 == len(groups) else groups[index + 1].offset_min

    def batch(self, group: RowGroup) -> Batch:
        """Return a row group as a Batch of lazy columns."""
        dense = group.offset_max - group.offset_min + 1 == group.count
        names = ["timestamp", "key", "value"]
        if not dense:
            names.append("offset")
        if self.footer.headers:
            names.append("headers")
        rows = self.columns(group, names)
        base, end = self.covers(group.index)
        place = self.footer.place
        return Batch(
            place.topic, place.partition, base, end,
            range(group.offset_min, group.offset_max + 1) if dense else rows.column("offset"),
            rows.column("timestamp"), rows.column("key"), rows.column("value"),
            lazy_headers(rows.column("headers")) if self.footer.headers else None,
            nbytes=group_bytes(rows),
        )  # fmt: skip

    def first_at_or_after(self, time_ms: int) -> int | None:
        """Return the earliest offset whose timestamp is >= `time_ms`."""
        return self._seek(
            self.footer.row_groups, lambda g: g.time_max >= time_ms, lambda t: pc.greater_equal(t, time_ms), 0
        )

    def last_before(self, time_ms: int) -> int | None:
        """Return the last offset whose timestamp is < `time_ms`."""
        return self._seek(
            self.footer.row_groups[::-1], lambda g: g.time_min < time_ms, lambda t: pc.less(t, time_ms), -1
        )

    def _seek(
        self,
        groups: Sequence[RowGroup],
        may_hold: Callable[[RowGroup], bool],
        matches: Callable[[pa.Array], pa.Array],
        which: int,
    ) -> int | None:
        for group in groups:
            if may_hold(group):
                rows = self.columns(group, ("offset", "timestamp"))
                found = pc.indices_nonzero(matches(rows.column("timestamp")))
                if len(found):
                    offset: int = rows.column("offset")[found[which].as_py()].as_py()
                    return offset
        return None

    def _corrupt(self, group: RowGroup, what: str) -> SegmentCorruptError:
        return _damaged(
            self._path,
            f"{self.footer.place}@[{group.offset_min}, {group.offset_max}] (row group {group.index}, "
            f"bytes {group.start} to {group.end}): {what}",
        )


def _damaged(path: str, what: str) -> SegmentCorruptError:
    return SegmentCorruptError(
        f"segment {path} is damaged: {what}; run `headwater archive verify`, restore the file from a copy"
    )


def group_bytes(rows: pa.RecordBatch) -> int:
    """Return what the log's reads count too: bytes of keys and values and 24 a record."""
    total: int = 24 * rows.num_rows
    for name in ("key", "value"):
        low, high = data_span(rows.column(name))
        total += high - low
    return total


class LazyHeaders(Sequence[Headers]):
    """Headers of a row group, made into tuples when one is first looked at."""

    __slots__ = ("_array", "_list")

    def __init__(self, array: pa.Array) -> None:
        """Take the Arrow column."""
        self._array = array
        self._list: list[Headers] | None = None

    def _tuples(self) -> list[Headers]:
        if self._list is None:
            name, value = self._array.flatten().flatten()
            pairs = list(zip(name.to_pylist(), value.to_pylist(), strict=True))
            made: list[Headers] = []
            at = 0
            for count in pc.fill_null(pc.list_value_length(self._array), 0).to_pylist():
                made.append(tuple(pairs[at : at + count]))
                at += count
            self._list = made
        return self._list

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, index: int) -> Headers: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Headers]: ...
    def __getitem__(self, index: int | slice) -> Headers | Sequence[Headers]:
        return self._tuples()[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list's


def lazy_headers(array: pa.Array) -> LazyHeaders | None:
    """Return a row group's headers, or None where no record of it has any."""
    return LazyHeaders(array) if len(array.flatten()) else None
