"""The archive of one partition against a list, under rivals, crashes, trims and retries.

Strategy: a state machine appends to a log and trims it; three archivers, each with an archive object of its own, take
turns; one may be stopped by a crash (raised from a crash point, as a killed process stops there) at any step of a
commit, or held at any step while another archiver runs, and then go on as a zombie.
Invariants: segments tile [0, end) (I13); each record that was not trimmed before it was archived is there once, byte
for byte (I14); what was trimmed first is a recorded gap and no more than that (I16).
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headwater.archive import open_archive
from headwater.archive.local import TEMPORARY
from headwater.archive.writer import Archiver
from headwater.core.batch import Append
from headwater.log import open_log
from tests.unit.archive.rows import Row, rows_of

_numbers = itertools.count()
ARCHIVERS = 3


class _Killed(BaseException):
    """Stops an archiver where kill -9 would."""


class ChainMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.log = open_log(f"memory://chain-{next(_numbers)}")
        self.log.create_topic("orders", 1)
        self.rows: list[Row] = []
        self.on_point: list[Callable[[str], None] | None] = [None] * ARCHIVERS
        self.archivers: list[Archiver] = []

    def teardown(self) -> None:
        self.log.close()
        self.folder.cleanup()

    @initialize(before=st.integers(0, 5), trimmed=st.integers(0, 5))
    def begin(self, before: int, trimmed: int) -> None:
        if before:
            self.append(before, 1)
        self.log.trim("orders", 0, min(trimmed, before))
        self.archivers = [self._archiver(which) for which in range(ARCHIVERS)]

    def _archiver(self, which: int) -> Archiver:
        def crash(name: str) -> None:
            hook = self.on_point[which]
            if hook is not None:
                hook(name)

        archive = open_archive(f"file://{self.folder.name}", self.log.log_id)
        return Archiver(self.log, archive, ["orders"], roll_rows=7, crash=crash)

    @property
    def end(self) -> int:
        archive = open_archive(f"file://{self.folder.name}", self.log.log_id)
        return archive.end("orders", 0) or 0

    @rule(count=st.integers(1, 12), size=st.integers(0, 30))
    def append(self, count: int, size: int) -> None:
        base = len(self.rows)
        new = [
            Row(
                n,
                n * 7 % 5,
                None if n % 4 == 0 else b"k%d" % n,
                None if n % 5 == 1 else b"v" * (n % (size + 1)),
                (),
            )
            for n in range(base, base + count)
        ]
        self.rows += new
        self.log.append(
            [Append("orders", 0, [r.timestamp for r in new], [r.key for r in new], [r.value for r in new])]
        )

    @rule(which=st.integers(0, ARCHIVERS - 1))
    def archive_all(self, which: int) -> None:
        self.archivers[which].until_idle()
        assert self.end == len(self.rows)

    @rule(which=st.integers(0, ARCHIVERS - 1), at=st.integers(1, 25))
    def crash_somewhere(self, which: int, at: int) -> None:
        passes = itertools.count(1)

        def die(name: str) -> None:
            if next(passes) == at:
                raise _Killed(name)

        self.on_point[which] = die
        try:
            self.archivers[which].until_idle()
        except _Killed:
            self.archivers[which] = self._reborn(which)
        self.on_point[which] = None

    def _reborn(self, which: int) -> Archiver:
        self.on_point[which] = None
        return self._archiver(which)

    @rule(
        which=st.integers(0, ARCHIVERS - 1), at=st.integers(1, 25), more=st.integers(0, 9), trim=st.booleans()
    )
    def stall_while_a_rival_runs(self, which: int, at: int, more: int, trim: bool) -> None:
        """A zombie: stopped at a step, then another appends, archives and trims, and then it goes on."""
        passes = itertools.count(1)
        rival = self.archivers[(which + 1) % ARCHIVERS]

        def stall(name: str) -> None:
            if next(passes) == at:
                self.on_point[which] = None
                if more:
                    self.append(more, 3)
                rival.until_idle()
                if trim:
                    self.trim_archived(0)

        self.on_point[which] = stall
        self.archivers[which].until_idle()
        self.on_point[which] = None

    @rule(which=st.integers(0, ARCHIVERS - 1), at=st.integers(1, 25))
    def lose_a_reply(self, which: int, at: int) -> None:
        """The storage fails somewhere in a put, maybe after it was done; the same archiver tries again."""
        passes = itertools.count(1)

        def fail(name: str) -> None:
            if next(passes) == at and name not in ("archive.list", "archive.read", "archive.encoded"):
                raise _Killed(name)

        self.on_point[which] = fail
        try:
            self.archivers[which].until_idle()
        except _Killed:
            self.on_point[which] = None
            self.archivers[which].until_idle()
        self.on_point[which] = None

    @rule(keep=st.integers(0, 4))
    def trim_archived(self, keep: int) -> None:
        self.log.trim("orders", 0, max(self.end - keep, self.log.start_offset("orders", 0)))

    @precondition(lambda self: self.end < len(self.rows))
    @rule(count=st.integers(1, 6))
    def trim_what_is_not_archived(self, count: int) -> None:
        """The broker's retention goes by time, not by what is archived."""
        before = min(max(self.end, self.log.start_offset("orders", 0)) + count, len(self.rows))
        self.log.trim("orders", 0, before)

    @invariant()
    def segments_tile_and_hold_each_record_once(self) -> None:
        archive = open_archive(f"file://{self.folder.name}", self.log.log_id)
        segments = archive.segments("orders", 0)
        position = 0
        for segment in segments:
            assert segment.base == position < segment.next
            position = segment.next
        assert position <= len(self.rows)
        missing = {n for s in segments if s.gap is not None for n in range(s.base, s.next)}
        found = rows_of(archive.read("orders", 0, 0, allow_gaps=True))
        assert found == [row for row in self.rows[:position] if row.offset not in missing]
        # Nothing is called lost that the log still has.
        assert all(n < self.log.start_offset("orders", 0) for n in missing)
        archive.close()

    @invariant()
    def verify_finds_nothing_but_recorded_gaps(self) -> None:
        archive = open_archive(f"file://{self.folder.name}", self.log.log_id)
        assert [finding for finding in archive.verify() if finding.error] == []

    @precondition(lambda self: self.archivers)
    @rule()
    def a_new_archiver_collects_what_the_dead_left(self) -> None:
        self._archiver(0).step()
        left = [
            name for _, _, names in os.walk(self.folder.name) for name in names if name.startswith(TEMPORARY)
        ]
        assert left == []


ChainMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=25)
TestChain = ChainMachine.TestCase
