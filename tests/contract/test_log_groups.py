"""What every log promises of groups: one owner a task, fair shares, leases, and fencing inside the commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headwater.core.batch import Append, TopicPartition
from headwater.core.clock import ManualClock
from headwater.core.errors import FencedError, MisuseError, PartitionCountError
from headwater.log.embedded import EmbeddedLog
from headwater.log.interface import Log, Membership, Transaction
from headwater.log.memory import MemoryLog

Open = Callable[[], Log]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000)


@pytest.fixture(params=["memory", "file"])
def another(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Open]:
    """Open the test's log once more, as another worker would; all are closed at the end."""
    opened: list[Log] = []

    def open_it() -> Log:
        kind = request.param
        opened.append(
            MemoryLog(request.node.nodeid, clock=clock)
            if kind == "memory"
            else EmbeddedLog(tmp_path, clock=clock)
        )
        return opened[-1]

    yield open_it
    for log in opened:
        log.close()


@pytest.fixture
def log(another: Open) -> Log:
    log = another()
    log.create_topic("t", 1)
    return log


def record(value: bytes = b"v") -> list[Append]:
    return [Append("t", 0, [0], [None], [value])]


def settle(*members: Membership, rounds: int = 4) -> list[frozenset[int]]:
    """Beat as workers do, releasing at once what is asked for."""
    owned: list[frozenset[int]] = []
    for _ in range(rounds):
        owned = []
        for member in members:
            assignment = member.heartbeat()
            member.release(assignment.revoking)
            owned.append(assignment.owned - assignment.revoking)
    return owned


def test_three_members_share_the_tasks_and_the_first_get_what_is_over(another: Open, log: Log) -> None:
    first = log.join("g", 8)
    assert settle(first) == [frozenset(range(8))]
    second, third = another().join("g", 8), another().join("g", 8)
    shares = settle(first, second, third)
    assert [len(owned) for owned in shares] == [3, 3, 2]
    assert sorted(task for owned in shares for task in owned) == list(range(8))
    assert settle(first, second, third) == shares
    assert log.members("g") == 3
    assert (log.members("other"), log.positions("other")) == (0, {})


def test_a_task_moves_only_after_its_owner_released_it(another: Open, log: Log) -> None:
    """I4: cooperative; the old owner commits on, the new one can't yet."""
    first = log.join("g", 2)
    first.heartbeat()
    second = another().join("g", 2)
    assert second.heartbeat().owned == frozenset()
    beat = first.heartbeat()
    assert [beat.owned, beat.revoking] == [{0, 1}, {1}]
    assert second.heartbeat().owned == frozenset()
    log.commit(Transaction(record(), {TopicPartition("in", 1): 1}, first, [1]))
    first.release([1])
    with pytest.raises(FencedError, match=r"doesn't own tasks \[1\]"):
        log.commit(Transaction(record(), {TopicPartition("in", 1): 2}, first, [1]))
    assert second.heartbeat().owned == {1}
    log.commit(Transaction(record(), {TopicPartition("in", 1): 2}, second, [1]))
    assert log.positions("g") == {TopicPartition("in", 1): 2}
    assert log.end_offset("t", 0) == 2


def test_what_a_leaver_owned_is_taken_by_the_others(another: Open, log: Log) -> None:
    members = [log.join("g", 5), another().join("g", 5), another().join("g", 5)]
    settle(*members)
    before = members[1].heartbeat().generation
    members[0].leave()
    members[0].leave()
    assert [len(owned) for owned in settle(*members[1:])] == [3, 2]
    assert members[1].heartbeat().generation > before
    with pytest.raises(FencedError, match="join anew"):
        members[0].heartbeat()
    assert log.members("g") == 2


def test_an_expired_member_is_fenced_once_another_went_on(
    another: Open, log: Log, clock: ManualClock
) -> None:
    """I4, I18: nothing of what it commits is visible."""
    slow, quick = log.join("g", 2, lease_s=0.5), another().join("g", 2, lease_s=5)
    settle(slow, quick)
    clock.advance(1)
    assert log.members("g") == 1
    # Nobody went on without it yet, so it may; and its heartbeat renews the lease.
    log.commit(Transaction(record(b"in time"), {}, slow, [0]))
    assert slow.heartbeat().owned == {0}
    clock.advance(1)
    assert quick.heartbeat().owned == {0, 1}
    with pytest.raises(FencedError):
        log.commit(Transaction(record(b"too late"), {TopicPartition("in", 0): 9}, slow, [0]))
    with pytest.raises(FencedError):
        log.commit(Transaction(record(b"too late"), {}, slow))
    with pytest.raises(FencedError):
        slow.release([0])
    with pytest.raises(FencedError):
        slow.heartbeat()
    slow.leave()
    assert log.read("t", 0, 0).values == [b"in time"]
    assert log.positions("g") == {}
    again = log.join("g", 2)
    assert [len(owned) for owned in settle(quick, again)] == [1, 1]


def test_the_number_of_tasks_changes_only_while_nobody_runs(log: Log, clock: ManualClock) -> None:
    log.join("g", 4, lease_s=2)
    with pytest.raises(PartitionCountError, match="4 tasks, joined with 2"):
        log.join("g", 2)
    clock.advance(3)
    assert log.join("g", 2).heartbeat().owned == {0, 1}
    for tasks, lease_s in ((0, 10.0), (1, 0.0)):
        with pytest.raises(MisuseError):
            log.join("h", tasks, lease_s=lease_s)


def test_more_members_than_tasks_leave_some_idle(log: Log) -> None:
    members = [log.join("g", 2) for _ in range(4)]
    assert [len(owned) for owned in settle(*members)] == [1, 1, 0, 0]


def test_groups_are_apart(log: Log) -> None:
    one, two = log.join("g", 1), log.join("h", 1)
    assert [one.heartbeat().owned, two.heartbeat().owned] == [{0}, {0}]
    log.commit(Transaction((), {TopicPartition("in", 0): 1}, one, [0]))
    assert (log.positions("g"), log.positions("h")) == ({TopicPartition("in", 0): 1}, {})


def test_positions_are_asked_for_by_name(log: Log) -> None:
    member = log.join("g", 2)
    assert member.heartbeat().owned == {0, 1}
    first, second, third = (TopicPartition("in", number) for number in range(3))
    assert log.positions("g", [first]) == {}
    log.commit(Transaction((), {first: 1, second: 2}, member, [0, 1]))
    assert log.positions("g", [first]) == {first: 1}
    assert log.positions("g", [third, second, first]) == {first: 1, second: 2}
    assert log.positions("g", [third]) == {}
    assert log.positions("g", []) == {}
    assert log.positions("h", [first]) == {}
