"""The archiver drops from the log what is archived and no longer hot, and nothing else."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from headwater.archive import open_archive
from headwater.archive.archive import Archive
from headwater.archive.writer import TRIM_EVERY_S, Archiver
from headwater.core.batch import Append
from headwater.core.clock import ManualClock
from headwater.core.errors import SegmentCorruptError
from headwater.log.interface import Log
from headwater.source.handover import HandoverSource
from tests.unit.archive.rows import append_numbered, log_rows, rows_of


def _append_times(log: Log, *times: int) -> None:
    log.append([Append("orders", 0, list(times), [None] * len(times), [b"%d" % t for t in times])])


def test_what_is_archived_and_older_than_hot_goes(log: Log, archive: Archive) -> None:
    clock = ManualClock(10_000)
    _append_times(log, 1_000, 2_000, 3_000, 4_000)
    archiver = Archiver(log, archive, ["orders"], hot_ms={"orders": 7_500}, clock=clock)
    archiver.until_idle()
    assert (log.start_offset("orders", 0), archiver.counts.trimmed) == (2, 2)
    clock.advance(3_600)
    archiver.until_idle()
    assert (log.start_offset("orders", 0), log.end_offset("orders", 0)) == (4, 4)
    assert archiver.counts.gaps == 0


def test_without_hot_nothing_goes(log: Log, archive: Archive) -> None:
    _append_times(log, 1, 2, 3)
    Archiver(log, archive, ["orders"], hot_ms={"other": 0}, clock=ManualClock(10_000)).until_idle()
    assert log.start_offset("orders", 0) == 0


def test_what_is_not_archived_stays_however_old(log: Log, archive: Archive) -> None:
    clock = ManualClock(10_000)
    _append_times(log, 1, 2, 3)
    archiver = Archiver(log, archive, ["orders"], roll_rows=3, hot_ms={"orders": 0}, clock=clock)
    archiver.step()
    _append_times(log, 4, 5)
    clock.advance(TRIM_EVERY_S + 1)
    archiver.step()
    assert (log.start_offset("orders", 0), log.end_offset("orders", 0)) == (3, 5)


def test_a_record_that_is_old_but_stands_after_a_hot_one_stays(log: Log, archive: Archive) -> None:
    _append_times(log, 1_000, 9_900, 1_001, 1_002)
    Archiver(log, archive, ["orders"], hot_ms={"orders": 500}, clock=ManualClock(10_000)).until_idle()
    assert log.start_offset("orders", 0) == 1


def test_nothing_goes_that_the_archive_does_not_really_have(
    log: Log, archive: Archive, tmp_path: Path
) -> None:
    """Not what the archiver remembers counts, but what is listed and whose footer is whole."""
    append_numbered(log, 12)
    first = Archiver(log, archive, ["orders"], roll_rows=4, clock=ManualClock(10**7))
    first.until_idle()
    segments = sorted((tmp_path / "archive").rglob("*.parquet"))
    os.unlink(segments[1])
    again = open_archive(archive.store.url, log.log_id)
    Archiver(log, again, ["orders"], hot_ms={"orders": 0}, clock=ManualClock(10**7)).until_idle()
    assert log.start_offset("orders", 0) == 4
    segments[2].write_bytes(segments[2].read_bytes()[:-9])
    damaged = open_archive(archive.store.url, log.log_id)
    with pytest.raises(SegmentCorruptError):
        Archiver(log, damaged, ["orders"], hot_ms={"orders": 0}, clock=ManualClock(10**7)).until_idle()
    assert log.start_offset("orders", 0) == 4


def test_readers_go_on_across_a_trim(log: Log, archive: Archive) -> None:
    append_numbered(log, 20)
    expected = log_rows(log)
    source = HandoverSource(archive, log, "orders", 0, 0)
    batches = [source.fetch(bytes_max=200)]
    archiver = Archiver(log, archive, ["orders"], roll_rows=6, hot_ms={"orders": 0}, clock=ManualClock(10**7))
    archiver.until_idle()
    assert log.start_offset("orders", 0) == 20
    append_numbered(log, 5, start=20)
    expected += log_rows(log)
    while source.position < 25:
        batches.append(source.fetch(bytes_max=200))
    assert rows_of(batches) == expected


def test_a_log_that_trims_by_itself_first_is_a_gap_and_an_alarm(
    log: Log, archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    """I16."""
    clock = ManualClock(10**7)
    append_numbered(log, 4)
    archiver = Archiver(log, archive, ["orders"], hot_ms={"orders": 0}, clock=clock)
    archiver.until_idle()
    append_numbered(log, 6, start=4)
    log.trim("orders", 0, 7)
    with caplog.at_level(logging.ERROR):
        archiver.until_idle()
    assert [(s.base, s.next, s.gap is not None) for s in archive.segments("orders", 0)] == [
        (0, 4, False), (4, 7, True), (7, 10, False),
    ]  # fmt: skip
    assert "trimmed before they were archived" in caplog.text
    assert (archiver.counts.lost, log.start_offset("orders", 0)) == (3, 10)
