"""The log against a list, and groups against a naive model, for both implementations.

Strategy: hypothesis makes any sequence of calls; after each, the log answers as the model does.
Invariants: I4 (one owner a task), I18 (a transaction is there whole or not; what a fenced member commits isn't).
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headwater.core.batch import Append, Headers, TopicPartition
from headwater.core.clock import ManualClock
from headwater.core.errors import FencedError, OffsetTrimmedError, UnknownNameError
from headwater.log.embedded import EmbeddedLog
from headwater.log.interface import Log, Membership, Transaction
from headwater.log.memory import MemoryLog

NAMES = ("a", "b")
PARTITIONS = 2
_numbers = count()

times = st.one_of(
    st.integers(-5, 20), st.sampled_from([-(2**63), 2**63 - 1]), st.integers(-(2**63), 2**63 - 1)
)
payload = st.one_of(st.none(), st.binary(max_size=6), st.sampled_from([b"", b"\x00", b"x" * 3000]))
header = st.tuples(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3), st.one_of(st.none(), st.binary(max_size=3))
)
records = st.lists(
    st.tuples(times, payload, payload, st.lists(header, max_size=2).map(tuple)), min_size=0, max_size=6
)
where = st.tuples(st.sampled_from(NAMES), st.integers(0, PARTITIONS - 1))

Record = tuple[int, bytes | None, bytes | None, Headers]


def append_of(topic: str, partition: int, entries: list[Record]) -> Append:
    columns: Any = list(zip(*entries, strict=True)) if entries else [(), (), (), ()]
    return Append(topic, partition, *columns)


class LogMachine(RuleBasedStateMachine):
    """Topics, records, trims and reads of one log."""

    log: Log

    def open(self) -> Log:
        raise AssertionError("each kind of log opens its own")

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, list[list[Record]]] = {}
        self.starts: dict[tuple[str, int], int] = {}

    @initialize()
    def begin(self) -> None:
        self.log = self.open()
        self.create("a")

    @rule(name=st.sampled_from(NAMES))
    def create(self, name: str) -> None:
        assert self.log.create_topic(name, PARTITIONS).partitions == PARTITIONS
        if name not in self.model:
            self.model[name] = [[] for _ in range(PARTITIONS)]
            self.starts.update({(name, p): 0 for p in range(PARTITIONS)})

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        self.log.delete_topic(name)
        self.model.pop(name, None)

    @rule(parts=st.lists(st.tuples(where, records), max_size=4), repeat=st.sampled_from([1, 1, 1, 60]))
    def append(self, parts: list[tuple[tuple[str, int], list[Record]]], repeat: int) -> None:
        appends = [append_of(topic, partition, entries * repeat) for (topic, partition), entries in parts]
        if any(append.topic not in self.model for append in appends):
            with pytest.raises(UnknownNameError):
                self.log.append(appends)
            return
        expected: dict[TopicPartition, int] = {}
        for (topic, partition), entries in parts:
            held = self.model[topic][partition]
            expected.setdefault(TopicPartition(topic, partition), len(held))
            held.extend(entries * repeat)
        assert self.log.append(appends) == expected

    @precondition(lambda self: self.model)
    @rule(at=where, before=st.integers(-1, 400))
    def trim(self, at: tuple[str, int], before: int) -> None:
        if at[0] in self.model:
            self.log.trim(*at, before)
            self.starts[at] = max(self.starts[at], min(before, len(self.model[at[0]][at[1]])))

    @rule(
        at=where,
        offset=st.integers(0, 400),
        length=st.one_of(st.none(), st.integers(0, 50)),
        bytes_max=st.sampled_from([1, 100, 4000, 8 << 20]),
    )
    def read(self, at: tuple[str, int], offset: int, length: int | None, bytes_max: int) -> None:
        if at[0] not in self.model:
            return
        held, start = self.model[at[0]][at[1]], self.starts[at]
        end = None if length is None else offset + length
        if offset < start:
            with pytest.raises(OffsetTrimmedError) as refused:
                self.log.read(*at, offset)
            assert refused.value.start == start
            return
        batch = self.log.read(*at, offset, end=end, bytes_max=bytes_max)
        found = [
            (batch.timestamps[n], batch.keys[n], batch.values[n], batch.headers_at(n))
            for n in range(len(batch))
        ]
        wanted = held[offset:end]
        assert found == wanted[: len(found)]
        assert list(batch.offsets) == list(range(offset, offset + len(found)))
        assert (batch.base, batch.next) == (offset, offset + len(found))
        assert bool(found) == bool(wanted)
        weight = sum(24 + len(key or b"") + len(value or b"") for _, key, value, _ in found)
        assert weight <= bytes_max or len(found) == 1

    @rule(at=where, time=times)
    def offset_for_time(self, at: tuple[str, int], time: int) -> None:
        if at[0] in self.model:
            held, start = self.model[at[0]][at[1]], self.starts[at]
            expected = next((n for n in range(start, len(held)) if held[n][0] >= time), None)
            assert self.log.offset_for_time(*at, time) == expected

    @rule()
    def reopen(self) -> None:
        again = self.open()
        assert again.log_id == self.log.log_id
        self.log.close()
        self.log = again

    @invariant()
    def ends_agree(self) -> None:
        if hasattr(self, "log"):
            assert set(self.log.topics()) == set(self.model)
            for name, parts in self.model.items():
                for partition, held in enumerate(parts):
                    assert self.log.start_offset(name, partition) == self.starts[name, partition]
                    assert self.log.end_offset(name, partition) == len(held)

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.close()


@dataclass
class Seen:
    """What the model knows of a member."""

    membership: Membership
    lease_s: float
    deadline_s: float
    owned: set[int] = field(default_factory=set)
    is_there: bool = True


class GroupMachine(RuleBasedStateMachine):
    """Members of one group, by a clock that the test moves."""

    TASKS = 5
    log: Log

    def open(self) -> Log:
        raise AssertionError("each kind of log opens its own")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(1_000_000)
        self.seen: list[Seen] = []
        self.committed: list[bytes] = []
        self.position = 0

    @initialize()
    def begin(self) -> None:
        self.log = self.open()
        self.log.create_topic("t", 1)

    def expire(self, keep: Seen | None = None) -> None:
        for seen in self.seen:
            if seen is not keep and seen.deadline_s <= self.clock.monotonic_s():
                seen.is_there = False
                seen.owned.clear()

    @precondition(lambda self: len(self.seen) < 6)
    @rule(lease_s=st.sampled_from([1.0, 5.0]))
    def join(self, lease_s: float) -> None:
        membership = self.log.join("g", self.TASKS, lease_s=lease_s)
        self.expire()
        self.seen.append(Seen(membership, lease_s, self.clock.monotonic_s() + lease_s))

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        seen = data.draw(st.sampled_from(self.seen))
        try:
            beat = seen.membership.heartbeat()
        except FencedError:
            assert not seen.is_there
            return
        assert seen.is_there
        self.expire(keep=seen)
        seen.deadline_s = self.clock.monotonic_s() + seen.lease_s
        others = set().union(*(other.owned for other in self.seen if other is not seen))
        assert not beat.owned & others, "I4: a task has two owners"
        assert seen.owned <= beat.owned, "a heartbeat takes nothing away"
        assert beat.revoking <= beat.owned
        there = sum(other.is_there for other in self.seen)
        assert beat.members == there
        assert len(beat.owned - beat.revoking) in range(self.TASKS // there + 2)
        seen.owned = set(beat.owned)

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), tasks=st.sets(st.integers(0, TASKS - 1)))
    def release(self, data: st.DataObject, tasks: set[int]) -> None:
        seen = data.draw(st.sampled_from(self.seen))
        try:
            seen.membership.release(tasks)
        except FencedError:
            assert not seen.is_there
            return
        assert seen.is_there
        seen.owned -= tasks

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        seen = data.draw(st.sampled_from(self.seen))
        seen.membership.leave()
        seen.is_there = False
        seen.owned.clear()

    @rule(seconds=st.sampled_from([0.4, 1.0, 3.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), tasks=st.sets(st.integers(0, TASKS - 1), max_size=2))
    def commit(self, data: st.DataObject, tasks: set[int]) -> None:
        seen = data.draw(st.sampled_from(self.seen))
        value = b"%d" % next(_numbers)
        move = {TopicPartition("in", 0): self.position + 1}
        try:
            self.log.commit(Transaction([Append("t", 0, [0], [None], [value])], move, seen.membership, tasks))
        except FencedError:
            assert not (seen.is_there and tasks <= seen.owned)
            return
        assert seen.is_there, "I18: a fenced commit went through"
        assert tasks <= seen.owned, "I18: a commit for another's tasks went through"
        self.committed.append(value)
        self.position += 1

    @invariant()
    def only_what_was_let_through_is_visible(self) -> None:
        if hasattr(self, "log"):
            assert list(self.log.read("t", 0, 0).values) == self.committed
            assert self.log.positions("g").get(TopicPartition("in", 0), 0) == self.position
            now_s = self.clock.monotonic_s()
            assert self.log.members("g") == sum(s.is_there and s.deadline_s > now_s for s in self.seen)

    def teardown(self) -> None:
        if not hasattr(self, "log"):
            return
        live = [seen.membership for seen in self.seen if seen.is_there]
        for _ in range(4):
            for membership in list(live):
                try:
                    membership.release(membership.heartbeat().revoking)
                except FencedError:
                    live.remove(membership)
        if live:
            shares = [membership.heartbeat().owned for membership in live]
            assert sorted(task for owned in shares for task in owned) == list(range(self.TASKS))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
        self.log.close()


class OpensMemory:
    """Opens a log in memory, each machine its own."""

    def open(self) -> Log:
        self.name = getattr(self, "name", f"model-{next(_numbers)}")
        return MemoryLog(self.name, clock=getattr(self, "clock", None))


class OpensFile:
    """Opens an embedded log, each machine its own folder."""

    def open(self) -> Log:
        self.folder = getattr(self, "folder", None) or tempfile.mkdtemp(prefix="headwater-model-")
        return EmbeddedLog(self.folder, clock=getattr(self, "clock", None))

    def teardown(self) -> None:
        super().teardown()  # type: ignore[misc]  # of the machine it is mixed into
        if folder := getattr(self, "folder", None):
            shutil.rmtree(folder)


class MemoryLogMachine(OpensMemory, LogMachine):
    pass


class FileLogMachine(OpensFile, LogMachine):
    pass


class MemoryGroupMachine(OpensMemory, GroupMachine):
    pass


class FileGroupMachine(OpensFile, GroupMachine):
    pass


_MODERATE = settings(max_examples=40, stateful_step_count=30, deadline=None)

for _machine in (MemoryLogMachine, FileLogMachine, MemoryGroupMachine, FileGroupMachine):
    _machine.TestCase.settings = _MODERATE

TestMemoryLog: Any = MemoryLogMachine.TestCase
TestFileLog: Any = FileLogMachine.TestCase
TestMemoryGroups: Any = MemoryGroupMachine.TestCase
TestFileGroups: Any = FileGroupMachine.TestCase
