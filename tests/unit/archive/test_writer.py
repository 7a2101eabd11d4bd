"""When the archiver closes segments, what it does about rivals and lost replies, and how it finds its place."""

from __future__ import annotations

import logging
from pathlib import Path

import fsspec
import pytest

from headwater.archive import open_archive
from headwater.archive.archive import Archive
from headwater.archive.local import LocalStore
from headwater.archive.segment import ROW_GROUP_ROWS
from headwater.archive.writer import Archiver
from headwater.core.batch import Append
from headwater.core.clock import ManualClock
from headwater.core.errors import HandoverGapError, LogCorruptError
from headwater.log import open_log
from headwater.log.interface import Log
from tests.unit.archive.rows import append_numbered, log_rows, rows_of


def _ranges(archive: Archive, topic: str = "orders") -> list[tuple[int, int]]:
    return [(segment.base, segment.next) for segment in archive.segments(topic, 0)]


def test_a_segment_is_closed_when_it_is_old_enough(log: Log, archive: Archive) -> None:
    clock = ManualClock(1_000)
    archiver = Archiver(log, archive, ["orders"], roll_age_s=60, clock=clock)
    assert archiver.step() == 0
    append_numbered(log, 3)
    assert archiver.step() == 0
    clock.advance(59)
    append_numbered(log, 2, start=3)
    assert archiver.step() == 0
    clock.advance(1)
    assert archiver.step() == 5
    append_numbered(log, 1, start=5)
    assert archiver.step() == 0
    clock.advance(60)
    assert archiver.step() == 1
    assert _ranges(archive) == [(0, 5), (5, 6)]


def test_a_segment_is_closed_when_it_has_enough_rows_or_bytes(log: Log, archive: Archive) -> None:
    archiver = Archiver(log, archive, ["orders"], roll_rows=10, clock=ManualClock())
    append_numbered(log, 25)
    assert archiver.step() == 20
    assert _ranges(archive) == [(0, 10), (10, 20)]
    log.create_topic("large", 1)
    archiver = Archiver(log, archive, ["large"], roll_bytes=100_000, clock=ManualClock())
    for _ in range(9):
        log.append([Append("large", 0, [0], [None], [b"v" * 20_000])])
    first = archiver.step()
    assert 4 <= first <= 6
    assert archiver.step() == 0
    assert archiver.flush() == 9 - first
    assert rows_of(archive.read("large", 0, 0)) == log_rows(log, "large")


def test_until_idle_archives_every_partition_of_every_topic_named(log: Log, archive: Archive) -> None:
    log.create_topic("clicks", 3)
    for partition in range(3):
        append_numbered(log, 4 + partition, topic="clicks", partition=partition)
    append_numbered(log, 2)
    named = ["clicks"]
    archiver = Archiver(log, archive, lambda: named)
    assert archiver.until_idle() == 15
    named.append("orders")
    assert archiver.until_idle() == 2
    assert archiver.until_idle() == 0
    assert archive.topics() == ["clicks", "orders"]
    assert archive.partitions("clicks") == [0, 1, 2]
    assert [archive.end("clicks", n) for n in range(4)] == [4, 5, 6, None]
    assert (archive.end("nothing", 0), archive.start("nothing", 0), archive.segments("nothing", 0)) == (
        None,
        None,
        [],
    )


class _LostReply(LocalStore):
    """A storage whose client tries each put twice, because the first reply was lost."""

    def put_if_absent(self, name: str, data: bytes | memoryview) -> bool:
        first = super().put_if_absent(name, data)
        return super().put_if_absent(name, data) if name.endswith(".parquet") else first


def test_an_archiver_knows_its_own_segment_when_the_reply_was_lost(log: Log, tmp_path: Path) -> None:
    archive = Archive(_LostReply(fsspec.filesystem("file"), str(tmp_path)), log.log_id)
    append_numbered(log, 25)
    archiver = Archiver(log, archive, ["orders"], roll_rows=10)
    assert archiver.until_idle() == 25
    assert (archiver.counts.repeated, archiver.counts.overtaken, archiver.counts.segments) == (3, 0, 3)
    assert rows_of(archive.read("orders", 0, 0)) == log_rows(log)


def test_an_archiver_that_lost_goes_on_from_the_winners_end(log: Log, tmp_path: Path) -> None:
    rival_archive = open_archive(f"file://{tmp_path}", log.log_id)
    append_numbered(log, 9)
    rival = Archiver(log, rival_archive, ["orders"], roll_rows=4)
    hits: list[str] = []

    def overtake(name: str) -> None:
        if name == "archive.encoded" and not hits:
            hits.append(name)
            rival.until_idle()
            append_numbered(log, 2, start=9)

    archive = open_archive(f"file://{tmp_path}", log.log_id)
    stale = Archiver(log, archive, ["orders"], roll_rows=7, crash=overtake)
    assert stale.until_idle() == 0
    assert (stale.counts.overtaken, stale.counts.segments) == (1, 0)
    assert stale.until_idle() == 2
    assert _ranges(archive) == [(0, 4), (4, 8), (8, 9), (9, 11)]
    assert rows_of(archive.read("orders", 0, 0)) == log_rows(log)


def test_a_topic_made_anew_has_an_archive_of_its_own(log: Log, archive: Archive) -> None:
    archiver = Archiver(log, archive, ["orders"])
    append_numbered(log, 5)
    archiver.until_idle()
    log.delete_topic("orders")
    assert archiver.until_idle() == 0
    log.create_topic("orders", 1)
    append_numbered(log, 2, start=100)
    assert archiver.until_idle() == 2
    assert [row.value for row in rows_of(archive.read("orders", 0, 0))] == [b'{"n":100}', b'{"n":101}']
    assert archive.topics() == ["orders"]
    assert len(list(archive.all_places())) == 2
    assert list(archive.verify()) == []


def test_without_the_log_the_topic_archived_last_is_meant(log: Log, archive: Archive) -> None:
    clock = ManualClock(1_000)
    for start in (0, 100):
        log.create_topic("orders", 1)
        append_numbered(log, 2, start=start)
        Archiver(log, archive, ["orders"], clock=clock).until_idle()
        clock.advance(5)
        log.delete_topic("orders")
    alone = open_archive(archive.store.url, log.log_id)
    assert [row.value for row in rows_of(alone.read("orders", 0, 0))] == [b'{"n":100}', b'{"n":101}']


def test_another_log_in_the_same_place_does_not_mix(log: Log, archive: Archive) -> None:
    append_numbered(log, 5)
    Archiver(log, archive, ["orders"]).until_idle()
    other = open_archive(archive.store.url, "another")
    assert (other.topics(), other.end("orders", 0), list(other.verify())) == ([], None, [])


def test_an_archive_begun_late_begins_with_a_gap_that_harms_nobody(log: Log, archive: Archive) -> None:
    append_numbered(log, 10)
    log.trim("orders", 0, 4)
    archiver = Archiver(log, archive, ["orders"])
    assert archiver.until_idle() == 6
    assert (archive.start("orders", 0), archive.end("orders", 0)) == (4, 10)
    assert rows_of(archive.read("orders", 0, 4)) == log_rows(log)
    assert [s.gap for s in archive.segments("orders", 0)] == [
        "the log began here when the archive was begun",
        None,
    ]
    with pytest.raises(HandoverGapError, match=r"orders/0 has no offsets 0\.\.3"):
        list(archive.read("orders", 0, 0))


def test_a_gap_raises_the_alarm(log: Log, archive: Archive, caplog: pytest.LogCaptureFixture) -> None:
    append_numbered(log, 4)
    archiver = Archiver(log, archive, ["orders"])
    archiver.until_idle()
    append_numbered(log, 6, start=4)
    log.trim("orders", 0, 9)
    with caplog.at_level(logging.ERROR):
        archiver.step()
    assert (archiver.counts.gaps, archiver.counts.lost) == (1, 5)
    (alarm,) = caplog.records
    assert (alarm.message, alarm.__dict__["base"], alarm.__dict__["end"]) == (
        "offsets were trimmed before they were archived", 4, 9,
    )  # fmt: skip


def test_a_trim_while_a_segment_is_being_read_is_a_gap_of_exactly_what_went(
    log: Log, archive: Archive
) -> None:
    for start in range(0, 12, 4):
        append_numbered(log, 4, start=start)
    passes: list[str] = []

    def trim(name: str) -> None:
        passes.append(name)
        if passes.count("archive.list") == 1 and name == "archive.list":
            log.trim("orders", 0, 6)

    archiver = Archiver(log, archive, ["orders"], crash=trim)
    assert archiver.until_idle() == 6
    assert archive.start("orders", 0) == 6
    assert rows_of(archive.read("orders", 0, 6)) == log_rows(log)


@pytest.mark.parametrize("everything", [True, False])
def test_a_trim_between_asking_for_the_start_and_reading_is_a_gap(
    log: Log, archive: Archive, everything: bool
) -> None:
    append_numbered(log, 12)
    asked: list[int] = []

    class Trimming:
        log_id = log.log_id

        def start_offset(self, topic: str, partition: int) -> int:
            asked.append(log.start_offset(topic, partition))
            if len(asked) == 1:
                log.trim(topic, partition, 5)
            return asked[-1]

        def __getattr__(self, name: str) -> object:
            return getattr(log, name)

    archiver = Archiver(Trimming(), archive, ["orders"], roll_bytes=1, clock=ManualClock())  # type: ignore[arg-type]
    assert (archiver.flush() if everything else archiver.step()) == 7
    assert asked[:2] == [0, 5]
    assert archive.start("orders", 0) == 5
    assert rows_of(archive.read("orders", 0, 5)) == log_rows(log)


def test_a_log_put_back_to_an_older_state_is_refused(log: Log, archive: Archive, tmp_path: Path) -> None:
    append_numbered(log, 9)
    Archiver(log, archive, ["orders"]).until_idle()
    older = open_log("memory://archive-older")
    info = log.topic("orders")
    older.create_topic("orders", 1)
    append_numbered(older, 5, topic="orders")

    class Restored:
        log_id = log.log_id

        def topic(self, name: str) -> object:
            return info

        def __getattr__(self, name: str) -> object:
            return getattr(older, name)

    with pytest.raises(LogCorruptError, match=r"orders/0 reaches offset 9 but log .* ends at 5"):
        Archiver(Restored(), archive, ["orders"]).until_idle()  # type: ignore[arg-type]  # the rest by __getattr__
    older.close()


def test_row_groups_hold_so_many_rows_that_readers_stay_fast_and_small(log: Log, archive: Archive) -> None:
    for start in range(0, 70_000, 35_000):
        append_numbered(log, 35_000, start=start)
    Archiver(log, archive, ["orders"]).until_idle()
    footer = archive.footer(archive.place("orders", 0), 0)  # type: ignore[arg-type]  # it is there
    assert [group.count for group in footer.row_groups] == [
        ROW_GROUP_ROWS,
        ROW_GROUP_ROWS,
        70_000 - 2 * ROW_GROUP_ROWS,
    ]
    batch = next(archive.read("orders", 0, 0))
    assert isinstance(batch.offsets, range)
