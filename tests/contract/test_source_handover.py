"""Handed over at any offset, with archiver, retention and producer running, nothing is missing or doubled (I12)."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.archive import open_archive
from headwater.archive.archive import Archive
from headwater.archive.writer import Archiver
from headwater.core.batch import Batch
from headwater.core.errors import HandoverGapError, OffsetTrimmedError
from headwater.log import open_log
from headwater.log.interface import READ_BYTES_MAX, Log, Tail
from headwater.source.bounds import check_gaps, gaps, start_of
from headwater.source.handover import HandoverSource
from headwater.source.live import LiveSource
from headwater.source.replay import ReplaySource
from tests.contract.test_source_contract import drain
from tests.unit.archive.rows import Row, append_numbered, log_rows, rows_of

_numbers = itertools.count()


@pytest.fixture
def log() -> Iterator[Log]:
    made = open_log(f"memory://handover-{next(_numbers)}")
    made.create_topic("orders", 1)
    yield made
    made.close()


@pytest.fixture
def archive(tmp_path: Path, log: Log) -> Iterator[Archive]:
    made = open_archive(f"file://{tmp_path}", log.log_id)
    yield made
    made.close()


def test_handed_over_at_any_offset_with_the_log_trimmed_there(log: Log, archive: Archive) -> None:
    archiver = Archiver(log, archive, ["orders"], roll_rows=5)
    expected: list[Row] = []
    for start in range(0, 40, 4):
        append_numbered(log, 4, start=start)
        expected = [*expected, *log_rows(log)[-4:]]
        for position in (0, start // 2, start, start + 3):
            assert rows_of(drain(HandoverSource(archive, log, "orders", 0, position))) == expected[position:]
        archiver.until_idle()
        log.trim("orders", 0, archive.end("orders", 0) or 0)
        for position in (0, start // 2, start, start + 3, start + 4):
            assert rows_of(drain(HandoverSource(archive, log, "orders", 0, position))) == expected[position:]


@settings(max_examples=40)
@given(data=st.data())
def test_nothing_is_missing_or_doubled_while_all_others_run(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    log = open_log(f"memory://handover-{next(_numbers)}")
    log.create_topic("orders", 1)
    archive = open_archive(f"file://{tmp_path_factory.mktemp('archive')}", log.log_id)
    other = open_archive(archive.store.url, log.log_id)
    archiver = Archiver(log, other, ["orders"], roll_rows=4)
    position = data.draw(st.integers(0, 6), label="position")
    append_numbered(log, 6)
    appended = 6
    source = HandoverSource(archive, log, "orders", 0, position)
    batches = []
    for _ in range(data.draw(st.integers(1, 25), label="steps")):
        match data.draw(st.sampled_from(["append", "archive", "trim", "fetch", "fetch"])):
            case "append":
                count = data.draw(st.integers(1, 9))
                append_numbered(log, count, start=appended)
                appended += count
            case "archive":
                archiver.until_idle()
            case "trim":
                end = other.end("orders", 0) or 0
                log.trim("orders", 0, max(log.start_offset("orders", 0), end - data.draw(st.integers(0, 3))))
            case "fetch":
                batches.append(source.fetch(bytes_max=data.draw(st.sampled_from([1, 100, 4 << 20]))))
    batches += drain(source)
    assert [row.offset for row in rows_of(batches)] == list(range(position, appended))
    assert [row.value for row in rows_of(batches)] == [b'{"n":%d}' % n for n in range(position, appended)]
    archive.close()
    log.close()


def test_where_the_log_is_trimmed_at_the_switch_the_grown_archive_is_read(
    log: Log, archive: Archive, tmp_path: Path
) -> None:
    """The archiver copies and the log is trimmed just after the source has seen the archive's end."""
    append_numbered(log, 10)
    archiver = Archiver(log, open_archive(f"file://{tmp_path}", log.log_id), ["orders"])
    archiver.until_idle()
    append_numbered(log, 10, start=10)
    tiers: list[str] = []

    class Trimming:
        """The log, but between the source's look at the archive and its first read the others do all they can."""

        def __getattr__(self, name: str) -> object:
            return getattr(log, name)

        def tail(self, topic: str, partition: int, position: int) -> Tail:
            return Tail(self, topic, partition, position)  # type: ignore[arg-type]

        def read(
            self,
            topic: str,
            partition: int,
            offset: int,
            *,
            end: int | None = None,
            bytes_max: int = READ_BYTES_MAX,
        ) -> Batch:
            if not tiers:
                archiver.until_idle()
                log.trim(topic, partition, 17)
            tiers.append("log")
            return log.read(topic, partition, offset, end=end, bytes_max=bytes_max)

    source = HandoverSource(archive, Trimming(), "orders", 0, 0)  # type: ignore[arg-type]  # the rest by __getattr__
    assert [row.offset for row in rows_of(drain(source))] == list(range(20))
    assert len(tiers) == 2  # refused once, then only asked whether there is more


def test_offsets_in_neither_tier_are_a_gap_that_is_named(log: Log, archive: Archive) -> None:
    append_numbered(log, 10)
    Archiver(log, archive, ["orders"]).until_idle()
    append_numbered(log, 10, start=10)
    log.trim("orders", 0, 15)
    source = HandoverSource(archive, log, "orders", 0, 0)
    got = [source.fetch()]
    for _ in range(2):
        with pytest.raises(
            HandoverGapError, match=r"orders/0 has no offsets 10\.\.14.*begins at 15.*offset 15.*--allow-gaps"
        ) as gap:
            source.fetch()
        assert (gap.value.base, gap.value.end, source.position) == (10, 15, 10)
    assert [row.offset for row in rows_of(got)] == list(range(10))
    source.seek(gap.value.end)
    assert [row.offset for row in rows_of(drain(source))] == [15, 16, 17, 18, 19]
    # Once an archiver has been by, the gap stands in the archive, and is the same.
    Archiver(log, archive, ["orders"]).until_idle()
    source.seek(3)
    assert source.fetch().next == 10
    with pytest.raises(HandoverGapError) as recorded:
        source.fetch()
    assert (recorded.value.base, recorded.value.end) == (10, 15)


@pytest.mark.parametrize("recorded", [False, True])
def test_an_allowed_gap_is_passed_as_an_empty_batch_that_covers_it(
    log: Log, archive: Archive, recorded: bool
) -> None:
    append_numbered(log, 10)
    Archiver(log, archive, ["orders"]).until_idle()
    append_numbered(log, 10, start=10)
    log.trim("orders", 0, 15)
    if recorded:
        Archiver(log, archive, ["orders"]).until_idle()
    source = HandoverSource(archive, log, "orders", 0, 12, allow_gaps=True)
    first = source.fetch()
    assert (len(first), first.base, first.next) == (0, 12, 15)
    assert [row.offset for row in rows_of(drain(source))] == [15, 16, 17, 18, 19]


def test_a_log_trimmed_before_anything_was_archived_is_a_gap(log: Log, archive: Archive) -> None:
    append_numbered(log, 10)
    log.trim("orders", 0, 4)
    with pytest.raises(HandoverGapError, match=r"orders/0 has no offsets 1\.\.3"):
        HandoverSource(archive, log, "orders", 0, 1).fetch()
    with pytest.raises(OffsetTrimmedError):
        LiveSource(log, "orders", 0, 1).fetch()


def test_a_replay_ends_where_it_is_told_or_where_the_archive_ends(log: Log, archive: Archive) -> None:
    append_numbered(log, 20)
    Archiver(log, archive, ["orders"], roll_rows=6).until_idle()
    append_numbered(log, 5, start=20)
    for end, expected in ((0, 3), (3, 3), (7, 7), (20, 20), (24, 20), (None, 20)):
        source = ReplaySource(archive, "orders", 0, 3, end=end)
        assert [row.offset for row in rows_of(drain(source))] == list(range(3, expected))
        assert source.end_offset() == expected


def test_the_start_is_the_earliest_record_of_both(log: Log, archive: Archive) -> None:
    append_numbered(log, 10)
    assert start_of(archive, log, "orders", 0) == start_of(None, log, "orders", 0) == 0
    log.trim("orders", 0, 4)
    assert start_of(archive, log, "orders", 0) == 4
    Archiver(log, archive, ["orders"]).until_idle()
    log.trim("orders", 0, 10)
    assert start_of(archive, log, "orders", 0) == 4
    assert start_of(None, log, "orders", 0) == 10


def test_gaps_are_what_neither_tier_has(log: Log, archive: Archive) -> None:
    append_numbered(log, 10)
    log.trim("orders", 0, 2)
    assert gaps(None, log, "orders", 0, 0, 10) == gaps(archive, log, "orders", 0, 0, 10) == [(0, 2)]
    Archiver(log, archive, ["orders"]).until_idle()
    append_numbered(log, 10, start=10)
    log.trim("orders", 0, 15)
    for _ in ("unrecorded", "recorded"):
        assert gaps(archive, log, "orders", 0, 0, 20) == [(0, 2), (10, 15)]
        assert gaps(archive, log, "orders", 0, 1, 12) == [(1, 2), (10, 12)]
        assert gaps(archive, log, "orders", 0, 3, 9) == gaps(archive, log, "orders", 0, 15, 20) == []
        check_gaps(archive, log, "orders", 0, 2, 10)
        with pytest.raises(HandoverGapError, match=r"orders/0 has no offsets 10\.\.14") as gap:
            check_gaps(archive, log, "orders", 0, 5, 20)
        assert (gap.value.base, gap.value.end) == (10, 15)
        Archiver(log, archive, ["orders"]).until_idle()


def test_a_distant_archive_is_read_in_a_thread_while_the_loop_goes_on(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More partitions at once than threads, a seek in between: nothing waits for ever, nothing is lost or doubled."""
    log.create_topic("many", 20)
    for partition in range(20):
        append_numbered(log, 30, topic="many", partition=partition)
    archive = open_archive(f"file://{tmp_path}", log.log_id)
    Archiver(log, archive, ["many"], roll_rows=4).until_idle()
    slow, here = threading.Event(), threading.get_ident()
    get_range, readers = archive.store.get_range, set()

    def distant(name: str, start: int, end: int) -> bytes:
        readers.add(threading.get_ident())
        slow.wait(0.001)
        return get_range(name, start, end)

    fresh = open_archive(f"file://{tmp_path}", log.log_id)
    monkeypatch.setattr(fresh.store, "get_range", distant)
    monkeypatch.setattr(fresh.store, "remote", True)
    sources = [HandoverSource(fresh, log, "many", partition, 0) for partition in range(20)]
    expected = log_rows(log, "many", 0)
    rows: list[list[Row]] = [[] for _ in sources]
    for source in sources:
        source.ahead()
    sources[3].seek(0)
    while any(source.position < 30 for source in sources):
        waits = [begun for source in sources if (begun := source.ahead(bytes_max=100)) is not None]
        assert not futures.wait(waits, timeout=30).not_done
        for source, got in zip(sources, rows, strict=True):
            if source.position < 30:
                got += rows_of([source.fetch(bytes_max=100)])
    assert rows == [expected] * 20
    assert here not in readers
    for source in sources:
        source.ahead()
        source.close()
    for each in (archive, fresh):
        each.close()
