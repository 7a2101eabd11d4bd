"""What every source promises, tested once over live, replay and handover, on a model of plain rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headwater.archive import open_archive
from headwater.archive.archive import Archive
from headwater.archive.writer import Archiver
from headwater.core.batch import Batch
from headwater.core.errors import HandoverGapError, HeadwaterError, OffsetTrimmedError, SegmentCorruptError
from headwater.log import open_log
from headwater.log.interface import Log
from headwater.source.handover import HandoverSource
from headwater.source.interface import Source
from headwater.source.live import LiveSource
from headwater.source.replay import ReplaySource
from tests.unit.archive.rows import Row, append_numbered, append_rows, log_rows, rows_of

_numbers = itertools.count()
KINDS = (
    "live",
    "replay",
    "handover: all archived",
    "handover: none archived",
    "handover: half archived, trimmed",
)


@dataclass
class World:
    """A log, its archive, and how the kind of source under test gets to see what is appended."""

    kind: str
    log: Log
    archive: Archive

    def archiver(self) -> Archiver:
        return Archiver(self.log, self.archive, ["orders"], roll_rows=7)

    def fill(self, append: Callable[[], None]) -> list[Row]:
        """Append, then archive and trim as the kind says; return all records there ever were."""
        append()
        rows = log_rows(self.log)
        if self.kind == "replay" or "all archived" in self.kind:
            self.archiver().until_idle()
        return rows

    def source(self, position: int = 0) -> Source:
        if self.kind == "live":
            return LiveSource(self.log, "orders", 0, position)
        if self.kind == "replay":
            return ReplaySource(self.archive, "orders", 0, position)
        return HandoverSource(self.archive, self.log, "orders", 0, position)

    def numbered(self, count: int) -> list[Row]:
        """Fill with numbered records; where the kind says so, archive the first half and trim it from the log."""
        if "half" not in self.kind:
            return self.fill(lambda: append_numbered(self.log, count))
        append_numbered(self.log, count // 2)
        rows = log_rows(self.log)
        self.archiver().until_idle()
        append_numbered(self.log, count - count // 2, start=count // 2)
        rows += log_rows(self.log)[count // 2 :]
        self.log.trim("orders", 0, count // 2)
        return rows


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    log = open_log(f"memory://source-{next(_numbers)}")
    log.create_topic("orders", 1)
    archive = open_archive(f"file://{tmp_path}", log.log_id)
    yield World(request.param, log, archive)
    archive.close()
    log.close()


def drain(source: Source, *, bytes_max: int = 4 << 20) -> list[Batch]:
    """Fetch until there is nothing more, checking what each fetch promises."""
    batches: list[Batch] = []
    while True:
        before = source.position
        batch = source.fetch(bytes_max=bytes_max)
        assert batch.base == before
        assert source.position == batch.next >= before
        if batch.next == before:
            assert len(batch) == 0
            return batches
        batches.append(batch)


def test_fetches_tile_the_offsets_from_the_position_on(world: World) -> None:
    """I12: no gap, no overlap, whatever the sizes of the fetches and wherever the first one begins."""
    rows = world.numbered(60)
    for start in (0, 1, 13, 29, 30, 31, 59):
        for bytes_max in (1, 100, 1_000, 4 << 20):
            source = world.source(start)
            assert rows_of(drain(source, bytes_max=bytes_max)) == rows[start:]
            assert source.position == source.end_offset() == 60
            source.close()


def test_a_fetch_returns_about_as_many_bytes_as_asked(world: World) -> None:
    world.numbered(60)
    source = world.source()
    batches = drain(source, bytes_max=200)
    assert max(batch.nbytes for batch in batches) <= 200
    assert all(len(batch) for batch in batches)


def test_a_source_can_be_moved_to_any_offset_and_back(world: World) -> None:
    rows = world.numbered(60)
    source = world.source(40)
    source.fetch(bytes_max=100)
    for offset in (0, 59, 30, 29, 60, 7):
        source.seek(offset)
        assert source.position == offset
        assert rows_of(drain(source, bytes_max=300)) == rows[offset:]


def test_at_the_end_a_fetch_is_empty_and_later_records_follow(world: World) -> None:
    rows = world.numbered(20)
    source = world.source()
    assert rows_of(drain(source)) == rows
    for _ in range(3):
        batch = source.fetch()
        assert (len(batch), batch.base, batch.next) == (0, 20, 20)
    append_numbered(world.log, 5, start=20)
    if world.kind == "replay":
        world.archiver().until_idle()
    assert source.end_offset() == 25
    assert [row.offset for row in rows_of(drain(source))] == [20, 21, 22, 23, 24]


def test_an_empty_partition_has_an_end_and_no_records(world: World) -> None:
    source = world.source()
    batch = source.fetch()
    assert (len(batch), batch.base, batch.next, source.position, source.end_offset()) == (0, 0, 0, 0, 0)


def test_records_are_the_same_from_every_source(world: World) -> None:
    """I14, I21: bytes, nulls, headers and timestamps as they were appended."""
    rows = [
        (0, None, None, ()),
        (-1, b"", b"", (("h", None), ("h", b""), ("", b"\0\xff"))),
        (2**63 - 1, b"\0", "ключ 🛫".encode(), (("é", b"x"),)),
    ]
    expected = world.fill(lambda: append_rows(world.log, rows))
    got = rows_of(drain(world.source()))
    assert got == expected
    assert [tuple(row)[1:] for row in got] == rows


def test_closing_twice_does_no_harm(world: World) -> None:
    world.numbered(5)
    source = world.source()
    source.fetch(bytes_max=1)
    source.close()
    source.close()


def test_sources_differ_in_nothing_but_their_class(world: World) -> None:
    public = {name for name in vars(Source) if not name.startswith("_")} | {"topic", "partition", "position"}
    source = world.source()
    assert isinstance(source, Source)
    assert {name for name in dir(source) if not name.startswith("_")} == public


def test_all_errors_of_sources_are_headwaters() -> None:
    for error in (HandoverGapError, OffsetTrimmedError, SegmentCorruptError):
        assert issubclass(error, HeadwaterError)
