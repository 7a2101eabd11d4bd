"""Offsets for times are exact also where timestamps don't rise."""

from __future__ import annotations

import itertools
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

import headwater.archive.segment as segment
from headwater.archive import open_archive
from headwater.archive.writer import Archiver
from headwater.core.batch import Append
from headwater.core.times import EARLIEST
from headwater.log import open_log
from headwater.source.bounds import offset_after_last_before, offset_at_or_after

_numbers = itertools.count()

edges = st.sampled_from([0, -1, 2**63 - 1, -(2**63)])
times = st.lists(st.one_of(st.integers(0, 12), edges), min_size=1, max_size=60)


@settings(max_examples=50)
@given(
    stamps=times,
    asked=st.lists(st.one_of(st.integers(-2, 14), edges), min_size=1, max_size=6),
    data=st.data(),
)
def test_times_are_found_as_by_looking_at_every_record(
    stamps: list[int], asked: list[int], data: st.DataObject
) -> None:
    """Archive alone, and archive and log as one, with the log trimmed anywhere up to the archive's end."""
    archived = data.draw(st.integers(0, len(stamps)), label="archived")
    trimmed = data.draw(st.integers(0, archived), label="trimmed")
    log = open_log(f"memory://times-{next(_numbers)}")
    log.create_topic("orders", 1)
    with tempfile.TemporaryDirectory() as folder, _row_groups_of(4):
        archive = open_archive(f"file://{folder}", log.log_id)
        for part in (stamps[:archived], stamps[archived:]):
            if part:
                log.append([Append("orders", 0, part, [None] * len(part), [b"v"] * len(part))])
            if part is not stamps and log.end_offset("orders", 0) == archived:
                Archiver(log, archive, ["orders"], roll_rows=9).until_idle()
        log.trim("orders", 0, trimmed)
        for time in [*asked, EARLIEST]:
            at_or_after = [n for n, stamp in enumerate(stamps) if stamp >= time]
            before = [n for n, stamp in enumerate(stamps) if stamp < time]
            assert archive.offset_for_time("orders", 0, time) == next(
                (n for n in at_or_after if n < archived), None
            )
            assert offset_at_or_after(archive, log, "orders", 0, time) == (
                at_or_after[0] if at_or_after else None
            )
            assert offset_after_last_before(archive, log, "orders", 0, time) == (
                before[-1] + 1 if before else None
            )
        archive.close()
    log.close()


class _row_groups_of:  # a context manager that reads as one
    """Small row groups, so that few records have several."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def __enter__(self) -> None:
        self._before = segment.ROW_GROUP_ROWS
        segment.ROW_GROUP_ROWS = self._rows

    def __exit__(self, *exc: object) -> None:
        segment.ROW_GROUP_ROWS = self._before
