"""No damage to the archive goes unreported, and none is read as data (I15)."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from headwater.archive import open_archive
from headwater.archive.archive import Archive
from headwater.archive.layout import segment_name
from headwater.archive.writer import Archiver
from headwater.core.batch import Append
from headwater.core.errors import HandoverGapError, SegmentCorruptError
from headwater.log.interface import Log
from tests.unit.archive.rows import Row, append_numbered, append_rows, read_into, rows_of

SEED = 20131001
FLIPS = 300


def _again(archive: Archive) -> Archive:
    """Open the same archive without anything remembered."""
    return open_archive(archive.store.url, archive.log_id)


def _path(archive: Archive, index: int = 0) -> Path:
    return Path(archive.store.url.removeprefix("file://")) / archive.segments("orders", 0)[index].path


def test_each_of_300_flipped_bits_is_found_and_none_is_read(log: Log, archive: Archive) -> None:
    chance = random.Random(SEED)
    rows = [
        (
            chance.randrange(10**12),
            b"k%d" % (n % 50),
            chance.randbytes(chance.randrange(60)),
            (("h", b"%d" % n),) * (n % 3),
        )
        for n in range(3_000)
    ]
    append_rows(log, rows)
    Archiver(log, archive, ["orders"]).until_idle()
    expected = rows_of(archive.read("orders", 0, 0))
    path = _path(archive)
    good = path.read_bytes()
    pages_end = archive.footer(archive.place("orders", 0), 0).pages_end  # type: ignore[arg-type]  # it is there
    # Half of them after the pages, where Parquet has no checksum of its own.
    places = [chance.randrange(pages_end) for _ in range(FLIPS // 2)]
    places += [chance.randrange(pages_end, len(good)) for _ in range(FLIPS // 2)]
    for at in places:
        bit = chance.randrange(8)
        bad = bytearray(good)
        bad[at] ^= 1 << bit
        path.write_bytes(bad)
        damaged = _again(archive)
        findings = [finding for finding in damaged.verify() if finding.error]
        assert findings, f"seed {SEED}: bit {bit} of byte {at} of {len(good)} not found"
        assert all(
            finding.path.endswith(segment_name(0)) and 0 <= finding.base <= finding.next <= 3_000
            for finding in findings
        )
        got: list[Row] = []
        with pytest.raises(SegmentCorruptError, match=segment_name(0)):
            read_into(got, damaged.read("orders", 0, 0))
        assert got == expected[: len(got)]
        damaged.close()
    path.write_bytes(good)
    assert list(_again(archive).verify()) == []


def test_damage_in_a_later_row_group_leaves_the_earlier_ones_readable(log: Log, archive: Archive) -> None:
    value = b"v" * 1_000
    for low in range(0, 9_000, 3_000):
        log.append([Append("orders", 0, list(range(low, low + 3_000)), [None] * 3_000, [value] * 3_000)])
    Archiver(log, archive, ["orders"]).until_idle()
    footer = archive.footer(archive.place("orders", 0), 0)  # type: ignore[arg-type]  # it is there
    assert len(footer.row_groups) >= 3
    second = footer.row_groups[1]
    path = _path(archive)
    data = bytearray(path.read_bytes())
    data[(second.start + second.end) // 2] ^= 4
    path.write_bytes(data)
    damaged = _again(archive)
    (finding,) = damaged.verify()
    assert (finding.kind, finding.base, finding.next) == ("bytes", second.offset_min, second.offset_max + 1)
    assert [row.offset for row in rows_of(damaged.read("orders", 0, 0, end=second.offset_min))] == list(
        range(second.offset_min)
    )
    got: list[Row] = []
    with pytest.raises(SegmentCorruptError, match=rf"orders/0@\[{second.offset_min}, {second.offset_max}\]"):
        read_into(got, damaged.read("orders", 0, 0))
    assert len(got) == second.offset_min
    after = footer.row_groups[2].offset_min
    assert rows_of(damaged.read("orders", 0, after))[0].offset == after
    damaged.close()


def _delete_middle(folder: Path) -> None:
    (folder / segment_name(10)).unlink()


def _delete_head(folder: Path) -> None:
    (folder / segment_name(0)).unlink()


def _swap(folder: Path) -> None:
    a, b = folder / segment_name(10), folder / segment_name(20)
    data = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(data)


def _rename(folder: Path) -> None:
    (folder / segment_name(10)).rename(folder / segment_name(11))


def _duplicate(folder: Path) -> None:
    shutil.copy(folder / segment_name(10), folder / segment_name(15))


def _truncate(folder: Path) -> None:
    path = folder / segment_name(10)
    path.write_bytes(path.read_bytes()[:-1])


def _empty(folder: Path) -> None:
    (folder / segment_name(20)).write_bytes(b"")


def _lengthen(folder: Path) -> None:
    path = folder / segment_name(10)
    path.write_bytes(path.read_bytes() + b"PAR1")


@pytest.mark.parametrize(
    "damage, kinds",
    [
        (_delete_middle, {"missing"}),
        (_delete_head, {"missing"}),
        (_swap, {"place"}),
        (_rename, {"missing", "place"}),
        (_duplicate, {"overlap", "place"}),
        (_truncate, {"footer"}),
        (_empty, {"footer"}),
        (_lengthen, {"footer"}),
    ],
)
def test_files_that_are_missing_moved_or_cut_are_reported(
    log: Log, archive: Archive, damage: Callable[[Path], None], kinds: set[str]
) -> None:
    append_numbered(log, 35)
    Archiver(log, archive, ["orders"], roll_rows=10).until_idle()
    expected = rows_of(archive.read("orders", 0, 0))
    damage(_path(archive).parent)
    damaged = _again(archive)
    findings = list(damaged.verify())
    assert kinds <= {finding.kind for finding in findings}
    assert all(finding.error and "orders" in finding.message for finding in findings)
    got: list[Row] = []
    with pytest.raises(SegmentCorruptError, match=r"orders"):
        read_into(got, damaged.read("orders", 0, 0))
    assert got == expected[: len(got)]
    damaged.close()


def test_a_missing_segment_is_named_by_its_offsets(log: Log, archive: Archive) -> None:
    append_numbered(log, 35)
    Archiver(log, archive, ["orders"], roll_rows=10).until_idle()
    _delete_middle(_path(archive).parent)
    (finding,) = _again(archive).verify()
    assert (finding.kind, finding.topic, finding.partition, finding.base, finding.next) == (
        "missing",
        "orders",
        0,
        10,
        20,
    )
    with pytest.raises(SegmentCorruptError, match=r"offsets 10\.\.19"):
        list(_again(archive).read("orders", 0, 12))


def test_a_segment_of_another_partition_is_refused(log: Log, archive: Archive) -> None:
    log.create_topic("pairs", 2)
    append_numbered(log, 5, topic="pairs", partition=0)
    append_numbered(log, 5, topic="pairs", partition=1)
    Archiver(log, archive, ["pairs"]).until_idle()
    root = Path(archive.store.url.removeprefix("file://"))
    zero, one = (root / archive.segments("pairs", n)[0].path for n in (0, 1))
    shutil.copy(zero, one)
    damaged = _again(archive)
    assert [finding.kind for finding in damaged.verify()] == ["place"]
    with pytest.raises(SegmentCorruptError, match=r"it was moved or renamed"):
        list(damaged.read("pairs", 1, 0))


def test_orphans_are_neither_read_nor_reported(log: Log, archive: Archive) -> None:
    append_numbered(log, 5)
    Archiver(log, archive, ["orders"]).until_idle()
    folder = _path(archive).parent
    for name in ("notes.txt", "1.parquet", ".tmp-dead~x.parquet", segment_name(3) + ".bak"):
        (folder / name).write_bytes(b"junk")
    (folder / "_index").mkdir()
    assert list(_again(archive).verify()) == []
    assert len(rows_of(_again(archive).read("orders", 0, 0))) == 5


def test_a_damaged_meta_file_is_reported(log: Log, archive: Archive) -> None:
    append_numbered(log, 5)
    Archiver(log, archive, ["orders"]).until_idle()
    meta = _path(archive).parent.parent / "_meta.json"
    meta.write_bytes(meta.read_bytes().replace(b'"orders"', b'"orderz"'))
    assert [finding.kind for finding in _again(archive).verify()] == ["meta"]


def test_a_recorded_gap_is_no_error_but_stops_a_reader(log: Log, archive: Archive) -> None:
    """I16: what retention took before it was archived is said, for good."""
    append_numbered(log, 10)
    archiver = Archiver(log, archive, ["orders"])
    archiver.until_idle()
    append_numbered(log, 10, start=10)
    log.trim("orders", 0, 15)
    archiver.until_idle()
    (finding,) = _again(archive).verify()
    assert (finding.kind, finding.base, finding.next, finding.error) == ("gap", 10, 15, False)
    assert archiver.counts.gaps == 1
    got: list[Row] = []
    with pytest.raises(HandoverGapError, match=r"no offsets 10\.\.14.*offset 15") as gap:
        read_into(got, archive.read("orders", 0, 8))
    assert [row.offset for row in got] == [8, 9]
    assert (gap.value.base, gap.value.end) == (10, 15)
    batches = list(archive.read("orders", 0, 8, allow_gaps=True))
    assert [row.offset for row in rows_of(batches)] == [8, 9, 15, 16, 17, 18, 19]
    with pytest.raises(HandoverGapError, match=r"no offsets 12\.\.14"):
        list(archive.read("orders", 0, 12))
