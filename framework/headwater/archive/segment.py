"""A segment's bytes: Parquet with raw records and a footer that vouches for all of it. Made here, opened here, not stored here.

A segment holds one partition's records for offsets [base, next). Layout of the bytes:
[magic and pages of row group 0][pages of row group 1]…[page index, footer, footer length, magic].
`hw.row_group_crc32c` has a CRC-32C for each of the first pieces; `hw.footer_crc32c` one for the last, taken with its
own eight letters as zeros. So every byte of the file is under a checksum that is tested before the byte is believed:
Parquet's own page checksums (written and tested too) leave out page headers, statistics and schema.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headwater.archive.checksum import RecordDigest, crc32c, of_parts
from headwater.core.errors import SegmentCorruptError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMAT = 1
ROW_GROUP_ROWS = 32_768
ROW_GROUP_BYTES_MAX = 4 << 20
"""Row groups are what a reader holds: of large records a row group has fewer rows."""
TAIL_BYTES = 64 << 10
"""One read of this much gets the whole footer of all but huge segments."""

_MAGIC = b"PAR1"
_ZERO = b"00000000"

SCHEMA = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False, metadata={"PARQUET:field_id": "1"}),
        pa.field("timestamp", pa.int64(), nullable=False, metadata={"PARQUET:field_id": "2"}),
        pa.field("timestamp_type", pa.int32(), nullable=False, metadata={"PARQUET:field_id": "3"}),
        pa.field("key", pa.binary(), metadata={"PARQUET:field_id": "4"}),
        pa.field("value", pa.binary(), metadata={"PARQUET:field_id": "5"}),
        pa.field(
            "headers",
            pa.list_(
                pa.struct([pa.field("key", pa.string(), nullable=False), pa.field("value", pa.binary())])
            ),
            metadata={"PARQUET:field_id": "6"},
        ),
        pa.field("topic_partition", pa.int32(), nullable=False, metadata={"PARQUET:field_id": "7"}),
    ]
)


@dataclass(frozen=True, slots=True)
class Place:
    """Which partition of which topic of which log a segment belongs to."""

    log_id: str
    topic: str
    topic_id: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One row group: its rows' least and greatest offset and timestamp, and its bytes [start, end) in the file."""

    index: int
    count: int
    offset_min: int
    offset_max: int
    time_min: int
    time_max: int
    start: int
    end: int
    crc: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Footer:
    """What a segment's footer says, after its checksum was found right."""

    place: Place
    base: int
    next: int
    count: int
    min_time: int | None
    max_time: int | None
    headers: int
    gap: str | None
    writer_id: str
    record_crc: int
    pages_end: int
    size: int
    row_groups: tuple[RowGroup, ...]
    piece_crcs: tuple[int, ...]
    tail: bytes
    parquet: Any


def row_group_ends(table: pa.Table) -> list[int]:
    """Return the row numbers at which row groups end: few enough rows, and few enough bytes whatever the records' size."""
    if not table.num_rows:
        return []
    headers = table.column("headers")
    counts = pc.fill_null(pc.list_value_length(headers), 0)
    entries = pc.sum(counts).as_py()
    entry_bytes = (
        headers.nbytes // entries if entries else 0
    )  # on average: header sizes needn't be exact here
    sizes = pc.add(pc.fill_null(pc.binary_length(table.column("key")), 0), 24)
    sizes = pc.add(sizes, pc.fill_null(pc.binary_length(table.column("value")), 0))
    sizes = pc.add(pc.cast(sizes, pa.int64()), pc.multiply(pc.cast(counts, pa.int64()), entry_bytes))
    sums = pc.cumulative_sum(sizes).combine_chunks()
    reached = memoryview(sums.buffers()[1]).cast("B").cast("q")[sums.offset : sums.offset + table.num_rows]
    ends, at, done = [], 0, 0
    while at < table.num_rows:
        last = min(at + ROW_GROUP_ROWS, table.num_rows)
        end = max(at + 1, bisect_right(reached, done + ROW_GROUP_BYTES_MAX, at, last))
        ends.append(end)
        at, done = end, reached[end - 1]
    return ends


def encode_segment(
    place: Place,
    base: int,
    next: int,
    batches: Sequence[pa.RecordBatch],
    *,
    writer_id: str,
    created_ms: int,
    gap: str | None = None,
) -> bytes:
    """Return the bytes of a segment that covers [base, next) with the records of `batches` (of SCHEMA)."""
    table = pa.Table.from_batches(batches, SCHEMA)
    _check_offsets(place, base, next, table)
    digest = RecordDigest()
    for batch in batches:
        digest.update(batch)
    rows = table.num_rows
    ends = row_group_ends(table)
    times = table.column("timestamp")
    bounds = pc.min_max(times).as_py() if rows else {"min": None, "max": None}
    headers = sum(len(batch.column("headers").flatten()) for batch in batches)
    metadata = {
        "hw.format": str(FORMAT),
        "hw.log_id": place.log_id,
        "hw.topic": place.topic,
        "hw.topic_id": place.topic_id,
        "hw.partition": str(place.partition),
        "hw.base_offset": str(base),
        "hw.next_offset": str(next),
        "hw.count": str(rows),
        "hw.min_ts": _text(bounds["min"]),
        "hw.max_ts": _text(bounds["max"]),
        "hw.first_offset": _text(table.column("offset")[0].as_py() if rows else None),
        "hw.last_offset": _text(table.column("offset")[-1].as_py() if rows else None),
        "hw.headers": str(headers),
        "hw.gap": json.dumps(gap),
        "hw.record_crc32c": f"{digest.value():08x}",
        "hw.writer_id": writer_id,
        "hw.created_at": str(created_ms),
        # Known only when all is written, so of fixed width and put in afterwards.
        "hw.row_group_crc32c": "0" * 8 * max(len(ends), 1),
        "hw.pages_end": "0" * 20,
        "hw.footer_crc32c": "0" * 8,
    }
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        SCHEMA,
        compression="zstd",
        # 3 takes 1.6 times as long to write for files that are as large (docs/decisions/0006).
        compression_level=1,
        # Dictionaries for keys and values make files larger and slower where values differ; these two hold constants.
        use_dictionary=["timestamp_type", "topic_partition", "headers.list.element.key"],
        column_encoding={"offset": "DELTA_BINARY_PACKED", "timestamp": "DELTA_BINARY_PACKED"},
        write_statistics=["offset", "timestamp"],
        write_page_index=True,
        write_page_checksum=True,
        store_schema=False,
    ) as writer:
        writer.add_key_value_metadata(metadata)
        for start, end in pairwise([0, *ends]):
            writer.write_table(table.slice(start, end - start), row_group_size=end - start)
    return _sealed(sink.getvalue(), len(ends))


def _sealed(buffer: pa.Buffer, groups: int) -> bytes:
    """Put the checksums in."""
    parquet = pq.read_metadata(pa.BufferReader(buffer))
    assert parquet.num_row_groups == groups, (parquet.num_row_groups, groups)
    pages_end, starts = len(_MAGIC), []
    for index in range(groups):
        start, end = _span(parquet.row_group(index))
        starts.append(start)
        pages_end = max(pages_end, end)
    data = bytearray(buffer)
    edges = [0, *starts[1:], pages_end]
    crcs = "".join(f"{crc32c(buffer.slice(low, high - low)):08x}" for low, high in pairwise(edges))
    _put(data, pages_end, "hw.row_group_crc32c", crcs)
    _put(data, pages_end, "hw.pages_end", f"{pages_end:020d}")
    _put(data, pages_end, "hw.footer_crc32c", f"{crc32c(bytes(data[pages_end:])):08x}")
    return bytes(data)


def _span(row_group: Any) -> tuple[int, int]:
    low, high = 1 << 62, 0
    for index in range(row_group.num_columns):
        column = row_group.column(index)
        start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
        low, high = min(low, start), max(high, start + column.total_compressed_size)
    return low, high


def _mark(key: str, width: int) -> bytes:
    """Return the bytes before a value in the footer: the key, then Thrift's field header and the value's length."""
    length = bytes([width & 0x7F | 0x80, width >> 7]) if width > 0x7F else bytes([width])
    if width > 0x3FFF:
        length = bytes([width & 0x7F | 0x80, width >> 7 & 0x7F | 0x80, width >> 14])
    return key.encode() + b"\x18" + length


def _put(data: bytearray, start: int, key: str, value: str) -> None:
    mark = _mark(key, len(value))
    at = data.rfind(mark, start)
    assert at >= 0, key
    data[at + len(mark) : at + len(mark) + len(value)] = value.encode()


def _check_offsets(place: Place, base: int, next: int, table: pa.Table) -> None:
    """Refuse records that don't lie in [base, next) in strictly rising order."""
    if not 0 <= base < next:
        raise SegmentCorruptError(
            f"a segment of {place} can't cover [{base}, {next}); this is a bug of the archiver"
        )
    if not table.num_rows:
        return
    offsets = table.column("offset").combine_chunks()
    first, last = offsets[0].as_py(), offsets[-1].as_py()
    rising = len(offsets) == 1 or pc.all(pc.greater(offsets[1:], offsets[:-1])).as_py()
    if not rising or first < base or last >= next:
        raise SegmentCorruptError(
            f"the log's records of {place} for [{base}, {next}) run from {first} to {last}"
            f"{'' if rising else ' and not in rising order'}; nothing was archived; check the log"
        )


def _text(number: int | None) -> str:
    return "" if number is None else str(number)


def _number(text: str) -> int | None:
    return int(text) if text else None


def pages_end_in(tail: bytes) -> int | None:
    """Return where a footer says that the pages end, or None where it doesn't say; not yet checked."""
    mark = _mark("hw.pages_end", 20)
    at = tail.rfind(mark)
    digits = tail[at + len(mark) : at + len(mark) + 20]
    return int(digits) if at >= 0 and len(digits) == 20 and digits.isdigit() else None


def open_footer(path: str, size: int, tail: bytes) -> Footer:
    """Return the footer from a file's last bytes, which begin where the pages end.

    Raises SegmentCorruptError where any of these bytes isn't as it was written.
    """
    mark = _mark("hw.footer_crc32c", 8)
    at = tail.rfind(mark)
    where = at + len(mark)
    if len(tail) < 12 or tail[-4:] != _MAGIC or at < 0:
        raise _corrupt(path, "its end isn't a segment's footer (cut off, or another file)")
    found = of_parts(tail[:where], _ZERO, tail[where + 8 :])
    if f"{found:08x}".encode() != tail[where : where + 8]:
        raise _corrupt(path, f"its footer has checksum {found:08x}, expected {tail[where : where + 8]!r}")
    try:
        parquet = pq.read_metadata(pa.BufferReader(tail))
        return _footer(parquet, {k.decode(): v.decode() for k, v in parquet.metadata.items()}, size, tail)
    except (KeyError, ValueError, OSError, pa.ArrowException) as error:
        raise _corrupt(
            path, f"its footer can't be read ({error}); was it written by a newer version?"
        ) from error


def _footer(parquet: Any, fields: Mapping[str, str], size: int, tail: bytes) -> Footer:
    if fields["hw.format"] != str(FORMAT):
        raise ValueError(f"format {fields['hw.format']}, this version knows {FORMAT}")
    place = Place(fields["hw.log_id"], fields["hw.topic"], fields["hw.topic_id"], int(fields["hw.partition"]))
    crcs = fields["hw.row_group_crc32c"]
    pieces = tuple(int(crcs[at : at + 8], 16) for at in range(0, len(crcs), 8))
    pages_end = int(fields["hw.pages_end"])
    if pages_end + len(tail) != size or len(pieces) != max(parquet.num_row_groups, 1):
        raise ValueError(
            f"{size} bytes, pages to {pages_end}, footer of {len(tail)}, {len(pieces)} checksums"
        )
    groups: list[RowGroup] = []
    starts = [0, *(_span(parquet.row_group(i))[0] for i in range(1, parquet.num_row_groups)), pages_end]
    for index in range(parquet.num_row_groups):
        group = parquet.row_group(index)
        offset, time = group.column(0).statistics, group.column(1).statistics
        groups.append(
            RowGroup(
                index, group.num_rows, offset.min, offset.max, time.min, time.max,
                starts[index], starts[index + 1], pieces[index], group.total_byte_size,
            )
        )  # fmt: skip
    return Footer(
        place=place,
        base=int(fields["hw.base_offset"]),
        next=int(fields["hw.next_offset"]),
        count=int(fields["hw.count"]),
        min_time=_number(fields["hw.min_ts"]),
        max_time=_number(fields["hw.max_ts"]),
        headers=int(fields["hw.headers"]),
        gap=json.loads(fields["hw.gap"]),
        writer_id=fields["hw.writer_id"],
        record_crc=int(fields["hw.record_crc32c"], 16),
        pages_end=pages_end,
        size=size,
        row_groups=tuple(groups),
        piece_crcs=pieces,
        tail=tail,
        parquet=parquet,
    )


def _corrupt(path: str, what: str) -> SegmentCorruptError:
    return SegmentCorruptError(
        f"segment {path} is damaged: {what}; run `headwater archive verify`, restore the file from a copy"
    )
