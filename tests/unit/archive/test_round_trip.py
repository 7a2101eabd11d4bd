"""What goes into the archive comes out of it, record by record, byte by byte."""

from __future__ import annotations

import itertools
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.archive import open_archive
from headwater.archive.archive import Archive
from headwater.archive.checksum import RecordDigest, crc32c
from headwater.archive.segment import SCHEMA, Place, encode_segment
from headwater.archive.writer import Archiver
from headwater.core.batch import Append, Headers
from headwater.core.errors import SegmentCorruptError
from headwater.log import open_log
from headwater.log.interface import Log
from tests.unit.archive.rows import append_numbered, append_rows, log_rows, rows_of

_numbers = itertools.count()

times = st.one_of(st.sampled_from([0, -1, 2**63 - 1, -(2**63)]), st.integers(-(2**63), 2**63 - 1))
data = st.one_of(st.none(), st.just(b""), st.just(b"\0"), st.binary(max_size=40))
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
headers = st.lists(st.tuples(names, data), max_size=4).map(tuple)
records = st.lists(st.tuples(times, data, data, headers), min_size=1, max_size=40)


@settings(max_examples=60)
@given(batches=st.lists(records, min_size=1, max_size=3), roll_rows=st.integers(1, 50))
def test_records_survive_the_archive_byte_for_byte(
    batches: list[list[tuple[int, bytes | None, bytes | None, Headers]]], roll_rows: int
) -> None:
    """I14, I21: null and empty told apart, headers repeated and null, all of int64's timestamps."""
    log = open_log(f"memory://round-trip-{next(_numbers)}")
    log.create_topic("orders", 1)
    for rows in batches:
        append_rows(log, rows)
    with tempfile.TemporaryDirectory() as folder:
        archive = open_archive(f"file://{folder}", log.log_id)
        assert Archiver(log, archive, ["orders"], roll_rows=roll_rows).until_idle() == sum(map(len, batches))
        assert rows_of(archive.read("orders", 0, 0)) == log_rows(log)
        assert list(archive.verify()) == []
        archive.close()


@pytest.mark.parametrize(
    "row",
    [
        (0, b"big", b"\xff" * (1 << 20), ()),
        (-1, None, None, tuple((f"h{n % 10}", None if n % 3 else b"%d" % n) for n in range(1_000))),
        (2**63 - 1, b"", b"", (("a", b""), ("a", None), ("", b"\0"))),
    ],
    ids=["1 MiB value", "1,000 headers", "empty and repeated"],
)
def test_extreme_records_survive_the_archive(
    log: Log, archive: Archive, row: tuple[int, bytes | None, bytes | None, Headers]
) -> None:
    append_rows(log, [(5, b"before", b"x", ()), row, (6, b"after", b"y", ())])
    Archiver(log, archive, ["orders"]).until_idle()
    rows = rows_of(archive.read("orders", 0, 0))
    assert rows == log_rows(log)
    assert rows[1][1:] == row
    assert list(archive.verify()) == []


def test_row_groups_of_large_records_are_small(log: Log, archive: Archive) -> None:
    value = b"v" * (1 << 20)
    for _ in range(3):
        log.append([Append("orders", 0, [1] * 5, [None] * 5, [value] * 5)])
    Archiver(log, archive, ["orders"]).until_idle()
    batches = list(archive.read("orders", 0, 0))
    assert sum(map(len, batches)) == 15
    assert max(batch.nbytes for batch in batches) <= 5 << 20


def test_a_read_starts_and_ends_at_any_offset(log: Log, archive: Archive) -> None:
    append_numbered(log, 100)
    Archiver(log, archive, ["orders"], roll_rows=13).until_idle()
    everything = log_rows(log)
    for start, end in itertools.product(range(0, 103, 6), range(0, 103, 7)):
        for rows_max in (1, 5, 1_000):
            batches = list(archive.read("orders", 0, start, end=end, rows_max=rows_max))
            assert rows_of(batches) == everything[start:end]
            assert all(len(batch) <= rows_max for batch in batches)
            if batches:
                assert (batches[0].base, batches[-1].next) == (start, min(end, 100))


def test_the_record_checksum_hangs_on_records_and_not_on_their_batches() -> None:
    def batch(low: int, high: int) -> pa.RecordBatch:
        rows = [
            {
                "offset": n, "timestamp": n * 3 - 50, "timestamp_type": 0, "key": None if n % 3 == 0 else b"k%d" % n,
                "value": b"" if n % 5 == 0 else b"v" * n, "headers": [{"key": "h", "value": None}] * (n % 4),
                "topic_partition": 0,
            }
            for n in range(low, high)
        ]  # fmt: skip
        return pa.RecordBatch.from_pylist(rows, SCHEMA)

    def digest(*batches: pa.RecordBatch) -> int:
        made = RecordDigest()
        for each in batches:
            made.update(each)
        return made.value()

    whole = batch(0, 60)
    expected = digest(whole)
    for cut in (0, 1, 7, 33, 59):
        assert digest(batch(0, cut), batch(cut, 60)) == expected
        assert digest(whole.slice(0, cut), whole.slice(cut)) == expected
    assert digest(batch(1, 60)) != expected
    assert digest(batch(30, 60), batch(0, 30)) != expected
    for column in ("timestamp", "key", "value", "headers"):
        swapped = whole.column(column).take(pa.array([1, 0, *range(2, 60)]))
        columns = [swapped if name == column else whole.column(name) for name in SCHEMA.names]
        assert digest(pa.RecordBatch.from_arrays(columns, schema=SCHEMA)) != expected, column


@pytest.mark.parametrize("column", ["key", "value"])
def test_the_record_checksum_tells_null_and_empty_and_boundaries_apart(column: str) -> None:
    def digest(*data: bytes | None) -> int:
        rows = [
            {
                "offset": n,
                "timestamp": 0,
                "timestamp_type": 0,
                "key": b"",
                "value": b"",
                "topic_partition": 0,
                column: each,
            }
            for n, each in enumerate(data)
        ]
        made = RecordDigest()
        made.update(pa.RecordBatch.from_pylist(rows, SCHEMA))
        return made.value()

    different = [
        (None, None),
        (b"", b""),
        (None, b""),
        (b"", None),
        (b"ab", b"c"),
        (b"a", b"bc"),
        (b"", b"abc"),
        (b"",),
    ]
    assert len({digest(*each) for each in different}) == len(different)


def test_the_checksum_is_crc_32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_a_segment_is_read_by_any_parquet_reader(log: Log, archive: Archive, tmp_path: object) -> None:
    append_numbered(log, 10)
    Archiver(log, archive, ["orders"]).until_idle()
    table = pq.read_table(f"{tmp_path}/archive/{archive.segments('orders', 0)[0].path}", partitioning=None)
    assert table.column_names == SCHEMA.names
    assert table.column("value").to_pylist() == [b'{"n":%d}' % n for n in range(10)]
    assert table.column("topic_partition").to_pylist() == [0] * 10


@pytest.mark.parametrize(
    "offsets, base, next",
    [([1, 1], 0, 5), ([2, 1], 0, 5), ([1, 2], 2, 5), ([1, 5], 0, 5), ([], 5, 5), ([], -1, 5)],
)
def test_offsets_outside_the_segment_or_out_of_order_are_refused(
    offsets: list[int], base: int, next: int
) -> None:
    n = len(offsets)
    rows = pa.RecordBatch.from_pylist(
        [{"offset": o, "timestamp": 0, "timestamp_type": 0, "topic_partition": 0} for o in offsets], SCHEMA
    )
    with pytest.raises(SegmentCorruptError, match=r"t/0"):
        encode_segment(Place("l", "t", "i", 0), base, next, [rows] if n else [], writer_id="w", created_ms=0)
